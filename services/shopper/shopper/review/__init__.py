"""What people are asked to look at, and what becomes of it."""
