"""Entry point of `python -m lab`."""

import os

from lab.cli import app
from local_stack.proxies import past_proxies

if __name__ == "__main__":
    os.environ.update(past_proxies(os.environ))
    app(prog_name="python -m lab")
