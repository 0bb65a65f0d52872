"""A new version of a model beside the one before: who answers, and which of them is better."""
