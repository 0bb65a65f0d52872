"""`python -m caravan`: the operator's commands, where caravan-cli is installed."""

import runpy
import sys
from importlib.util import find_spec

if find_spec("caravan_cli") is None:
    sys.exit("the operator's commands are not here: they are in the image caravan/cli")
runpy.run_module("caravan_cli", run_name="__main__", alter_sys=True)
