"""The doors: where messages come in. Each decodes, calls a route or the core, and encodes."""
