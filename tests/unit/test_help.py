"""What `--help` says, in the terminal that people have."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
from rich.text import Text
from typer.main import get_command

COLUMNS = 78
"""Of a terminal of 80, less what typer leaves free beside its text."""
APPS = {
    "caravan": "caravan_cli.__main__:commands",
    "lab": "lab.cli:app",
    "local_stack": "local_stack.cli:app",
    "training": "training.commands:commands",
}


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from commands(f"{name} {word}", below)


@pytest.mark.parametrize("name", APPS)
def test_what_help_says_fits_a_terminal_line_by_line(name: str) -> None:
    """Typer keeps the lines of all paragraphs but the first: one that is too long breaks in the middle."""
    module, app = APPS[name].split(":")
    for called, command in commands(name, get_command(getattr(import_module(module), app))):
        _, *paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
        lines = [Text.from_markup(line).plain for each in paragraphs for line in each.splitlines()]
        assert [line for line in lines if len(line) > COLUMNS] == [], called
        is_list = [each.startswith("  ") for each in paragraphs]
        assert (True, True) not in list(pairwise(is_list)), f"{called}: a list in pieces"
