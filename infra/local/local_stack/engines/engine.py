"""What an engine is: rows of the table run by another program, and how the services reach it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from local_stack.errors import StackError
from local_stack.parts import Part

FOLDER = Path(__file__).parents[2] / "engines"
"""What `make engines` fetches, each engine in a folder of its own."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A program in the place of an embedded one.

    `rows` makes the rows of its names anew, those `without` it does not need. A part that has the variable
    `setting` gets `services` too, where `{…}` is filled in as in any row. `programs` are what it runs, by the
    name that commands have for them, and the words that say how to get one that is missing.
    """

    rows: Mapping[str, Callable[[Part], Part]]
    setting: str
    services: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, tuple[str | Path, str]] = field(default_factory=dict)
    certificates: bool = False
    without: Collection[str] = ()

    def applied(self, part: Part) -> Part | None:
        """Return a row of the table as it is with this engine; None if there is none."""
        if part.name in self.without:
            return None
        if part.name in self.rows:
            return self.rows[part.name](part)
        return replace(part, env={**part.env, **self.services}) if self.setting in part.env else part

    def found(self) -> dict[str, str]:
        """Return where its programs are.

        Raises:
            StackError: saying how to get those that are missing.

        """
        places = {
            name: str(program) if isinstance(program, Path) and program.exists() else shutil.which(program)
            for name, (program, _) in self.programs.items()
        }
        missing = [hint for name, (_, hint) in self.programs.items() if places[name] is None]
        if missing:
            raise StackError("\n".join(dict.fromkeys(missing)))
        return {name: place for name, place in places.items() if place is not None}
