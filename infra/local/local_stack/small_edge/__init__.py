"""A whole edge for a small box: the table's rows of an edge, each in a process forked from one parent.

The parent has imported what they all need, so that this is in memory once; each process is for the rest what
it is anywhere: a program of its own with its settings, its metrics and its end.
"""
