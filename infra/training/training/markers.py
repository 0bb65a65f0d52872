"""Triggers that were accepted, on disk: one small file an edge, gone when a run that covers it ended."""

from collections.abc import Collection, Mapping
from pathlib import Path

from caravan.errors import Permanent
from caravan.files import sync
from caravan.groups import Groups, owner_of
from training.stores import read_json, write_json


class Markers:
    """`pending/<edge>.json` holds the last accepted trigger; `set-aside/<edge>.json` one given up."""

    def __init__(self, directory: Path) -> None:
        self._pending = directory / "pending"
        self._aside = directory / "set-aside"

    def add(self, edge: str, event: str, trace: Mapping[str, str] | None = None) -> None:
        """Note a trigger; it is on disk when this returns. A later one takes the place of an earlier one.

        `trace` is what it carried of its trace.
        """
        write_json(
            self._pending / f"{edge}.json", {"event": event} | ({"trace": dict(trace)} if trace else {})
        )

    def trace(self, edge: str) -> dict[str, str]:
        """Return what an edge's trigger carried of its trace; nothing of one that carried none."""
        try:
            found = read_json(self._pending / f"{edge}.json").get("trace", {})
        except Permanent:
            return {}
        return {str(name): str(value) for name, value in found.items()}

    def pending(self) -> list[tuple[str, str]]:
        """Return the edges that wait for a run, each with its last trigger, the longest waiting first."""
        files = sorted(self._pending.glob("*.json"), key=lambda path: path.stat().st_mtime)
        return [(path.stem, str(read_json(path)["event"])) for path in files]

    def hand_over(self, edges: Collection[str], groups: Groups) -> None:
        """Hand triggers of edges that share a model now to their group; give up those of who is gone."""
        for name, event in self.pending():
            owner = owner_of(name, groups)
            if owner not in groups and owner not in edges:
                self.give_up(name, event, f"{name} is neither an edge nor a group here any more")
            elif owner != name:
                self.add(owner, event, self.trace(name))
                self.remove(name)

    def remove(self, edge: str) -> None:
        """Forget an edge's trigger."""
        (self._pending / f"{edge}.json").unlink(missing_ok=True)
        sync(self._pending)

    def give_up(self, edge: str, event: str, reason: str) -> None:
        """Keep a trigger whose runs keep dying, with the reason; the next trigger tries again."""
        write_json(self._aside / f"{edge}.json", {"event": event, "reason": reason})
        self.remove(edge)
