"""How well a model does where it serves: a data set's pictures asked about, and counted."""
