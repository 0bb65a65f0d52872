"""The process that runs SavedModels, so that the server's own does without TensorFlow.

`process.py` is the server's side of it, `runner.py` the other, `messages.py` what goes between them.
"""
