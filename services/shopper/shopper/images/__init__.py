"""What images are taken, and what looking at them may cost."""
