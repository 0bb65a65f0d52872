"""Where images are kept, and how training images get to central."""
