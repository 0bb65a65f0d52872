"""The operator's command line: what looks after a running Caravan, and is in no service."""
