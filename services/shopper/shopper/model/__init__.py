"""The models of the model server: how each is asked, and what it says."""
