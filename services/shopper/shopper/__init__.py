"""The shopper: says what is on a photo and what it costs, and learns from who knows better."""
