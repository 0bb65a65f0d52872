"""Mosquitto's configuration: on which ports it listens."""

WEBSOCKET = 9001


def listens(text: str) -> set[int]:
    """Return the ports of the listeners that are not for the container alone."""
    lines = [line.split() for line in text.splitlines()]
    return {int(words[1]) for words in lines if words[:1] == ["listener"] and words[2:] != ["127.0.0.1"]}
