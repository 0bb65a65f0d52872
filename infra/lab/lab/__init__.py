"""What a stack is tried out with: the demo, simulated cameras, rendered photos, well-known data sets."""
