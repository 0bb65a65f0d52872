"""The dashboard at central: what flows, what is learned, what serves, what went wrong; live."""
