"""Edge scoring: what is told to the hub of each detection."""
