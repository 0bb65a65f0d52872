"""What the parent is told to run, as it is handed on from the command in a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel


class Program(BaseModel):
    """A Python module that is run as a program: its arguments, its whole environment and its folder.

    One that is not `forked` is started with an interpreter of its own.
    """

    name: str
    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: Path | None
    forked: bool


class Programs(BaseModel):
    """All of them, in the order in which they start."""

    programs: list[Program]
