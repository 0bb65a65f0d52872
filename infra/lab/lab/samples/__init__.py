"""Data sets that others know, made into what the doors take."""
