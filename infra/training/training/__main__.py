"""The pipeline's commands: `python -m training --help`."""

from __future__ import annotations

import sys

from caravan.start import imports

if __name__ == "__main__":
    # What runs all the time, or anew for each run, imports no more than it needs.
    match sys.argv[1:]:
        case ["listen"]:
            from training.listening import listen as main
        case ["worker"]:
            with imports():
                from training.worker import main
        case _:
            from training.commands import commands as main
    main()
