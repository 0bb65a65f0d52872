"""Run the service: `python -m edge_manager`; settings come from the environment, see README.md."""

from __future__ import annotations

from caravan.start import imports

if __name__ == "__main__":
    with imports():
        from caravan.runtime import run
        from caravan.settings import load
        from edge_manager.app import wire
        from edge_manager.settings import EdgeManagerSettings

    run("edge-manager", load(EdgeManagerSettings), wire)
