"""Simulated cameras: they send images to a shopper, and compare what it answered with what the hub counts.

`command` is what a user types, `run` films with all cameras, `camera` is one of them, `lines` are the ways to
the shopper, `pictures` the data sets, `tally` the counts, `hub` what central counted, `screen` shows it.
"""
