"""Run the service: `python -m shopper`; settings come from the environment, see README.md."""

from __future__ import annotations

from caravan.start import imports

if __name__ == "__main__":
    # Not above, as processes that decode images load this file too, under another name.
    with imports():
        from caravan.runtime import run
        from caravan.settings import load
        from shopper.app import wire
        from shopper.settings import ShopperSettings

    run("shopper", load(ShopperSettings), wire)
