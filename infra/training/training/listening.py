"""The command of the listener."""

from __future__ import annotations

from caravan.start import imports


def listen() -> None:
    """Be the EventListener: POST {"id-edge": "edge1"} starts a run."""
    with imports():
        from caravan.runtime import run  # noqa: PLC0415
        from caravan.settings import load  # noqa: PLC0415
        from training.app import wire  # noqa: PLC0415 - the web server
        from training.settings import TrainingSettings  # noqa: PLC0415

    run("training", load(TrainingSettings), wire)
