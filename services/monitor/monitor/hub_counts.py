"""Images by class, counted in bounded memory however many names edges make up."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from caravan.names import MORE

N = TypeVar("N", int, float)


def folded(values: Mapping[str, N], most: int) -> dict[str, N]:
    """Return the `most` largest values in their order, and the sum of the others as `MORE`."""
    if len(values) <= most:
        return dict(values)
    kept = set(heapq.nlargest(most, values, key=values.__getitem__))
    rest = sum(value for name, value in values.items() if name not in kept)
    return {name: value for name, value in values.items() if name in kept} | {MORE: rest}


class Entries:
    """How many names the counts of a hub hold: each in each table that it is in is one entry, some 100 bytes.

    Args:
        most: entries; beyond it new names are counted as `MORE`, and the history gets coarser.
        most_names: different names.

    """

    def __init__(self, most: int, most_names: int) -> None:
        self._most = most
        self._most_names = most_names
        self._uses: Counter[str] = Counter()
        self._count = 0

    @property
    def are_full(self) -> bool:
        """Whether there is no room for more."""
        return self._count >= self._most

    def name_for(self, name: str, table: Mapping[str, int]) -> str:
        """Return the name that images of a class are counted under in a table."""
        is_new = name not in self._uses and len(self._uses) >= self._most_names
        return MORE if name not in table and (self.are_full or is_new) else name

    def add(self, table: Counter[str], name: str, count: int) -> None:
        """Count in a table."""
        if name not in table:
            self._uses[name] += 1
            self._count += 1
        table[name] += count

    def drop(self, names: Collection[str]) -> None:
        """Forget names that a table had."""
        self._count -= len(names)
        for name in names:
            self._uses[name] -= 1
            if not self._uses[name]:
                del self._uses[name]


@dataclass(slots=True)
class Counts:
    """Images by class, and what of them came in which step of the history."""

    entries: Entries
    total: Counter[str] = field(default_factory=Counter)
    steps: dict[int, Counter[str]] = field(default_factory=dict)

    def add(self, counts: Mapping[str, int], step: int) -> None:
        """Count images of a step."""
        for sent, count in counts.items():
            name = self.entries.name_for(sent, self.total)
            place = step
            if self.entries.are_full and name in self.total:
                # Into the newest step that has it: it is forgotten a little sooner or later.
                place = max((s for s, table in self.steps.items() if name in table), default=step)
            self.entries.add(self.total, name, count)
            self.entries.add(self.steps.setdefault(place, Counter()), name, count)

    def forget(self, oldest: int) -> None:
        """Let go of the steps before."""
        for step in [step for step in self.steps if step < oldest]:
            gone = self.steps.pop(step)
            self.total -= gone
            self.entries.drop(gone)
            self.entries.drop([name for name in gone if name not in self.total])

    def clear(self) -> None:
        """Let go of everything."""
        for table in (self.total, *self.steps.values()):
            self.entries.drop(table)
        self.total.clear()
        self.steps.clear()
