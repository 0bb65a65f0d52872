"""`python -m caravan`: the operator's commands, which are in caravan-cli."""

import runpy
import sys

try:
    import caravan_cli  # noqa: F401 - only looked for
except ModuleNotFoundError:
    sys.exit("the operator's commands are not here: they are in the image caravan/cli")
runpy.run_module("caravan_cli", run_name="__main__", alter_sys=True)
