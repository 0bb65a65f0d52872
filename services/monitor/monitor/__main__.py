"""Run the service: `python -m monitor`; settings come from the environment, see README.md."""

from __future__ import annotations

from caravan.start import imports

if __name__ == "__main__":
    with imports():
        from caravan.runtime import run
        from caravan.settings import load
        from monitor.app import wire
        from monitor.settings import MonitorSettings

    run("monitor", load(MonitorSettings), wire)
