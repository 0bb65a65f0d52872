"""Entry point of `python -m local_stack`."""

import os

from local_stack.cli import app
from local_stack.proxies import past_proxies

if __name__ == "__main__":
    os.environ.update(past_proxies(os.environ))
    app(prog_name="python -m local_stack")
