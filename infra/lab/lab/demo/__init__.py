"""The main job of the product in one command, with every claim checked on real answers.

`command` is what a user types, `story` tells it from top to bottom, `steps` does each part, `supply` has the
photos, `screen` shows it.
"""
