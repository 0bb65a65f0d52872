"""Run the service: `python -m delivery`; settings come from the environment, see README.md."""

from __future__ import annotations

from caravan.start import imports

if __name__ == "__main__":
    with imports():
        from caravan.runtime import run
        from caravan.settings import load
        from delivery.app import wire
        from delivery.settings import DeliverySettings

    run("delivery", load(DeliverySettings), wire)
