"""Run the cleaner: `python -m local_stack.log_cleaner`; settings come from the environment, see README.md."""

from __future__ import annotations

from caravan.start import imports

if __name__ == "__main__":
    with imports():
        from caravan.runtime import run
        from caravan.settings import load
        from local_stack.log_cleaner.app import wire
        from local_stack.log_cleaner.settings import LogCleanerSettings

    run("log-cleaner", load(LogCleanerSettings), wire)
