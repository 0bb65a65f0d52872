"""What the supervisor tells the world: `run/state.json`, replaced whole at every change."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from caravan import strict_json
from local_stack.errors import StackError
from local_stack.ports import Ports
from local_stack.processes import Identity
from local_stack.settings import Site, StackSettings, Tls


class Phase(StrEnum):
    """Where a part is in its life."""

    WAITING = "waiting"
    """for the parts that it needs"""
    STARTING = "starting"
    LATE = "late"
    """starting for longer than its deadline; nobody has given up"""
    READY = "ready"
    CUT_OFF = "cut off"
    """it does all that can be done at an edge while the link to central is down"""
    UNREADY = "not ready"
    """alive, was ready before"""
    DOWN = "down"
    """it ended by itself and is started again after a pause"""
    STOPPING = "stopping"
    STOPPED = "stopped"


class PartState(BaseModel):
    """One part. `since` is when the phase began; `detail` says why it is not ready."""

    model_config = ConfigDict(validate_assignment=True)

    name: str
    edge: str | None
    phase: Phase = Phase.WAITING
    pid: int | None = None
    born: float | None = None
    address: str
    ports: dict[str, int]
    since: datetime = Field(default_factory=lambda: datetime.now(UTC))
    restarts: int = 0
    last_exit: str = ""
    last_line: str = ""
    detail: str = ""

    @property
    def identity(self) -> Identity | None:
        """The process it is, or was last."""
        return None if self.pid is None or self.born is None else Identity(self.pid, self.born)


class StackState(BaseModel):
    """The whole stack, as the supervisor `pid` sees it. `failure` tells why it did not start anything."""

    pid: int
    born: float
    home: Path
    edges: tuple[str, ...]
    edge_groups: str = ""
    edge_products: str = ""
    only: tuple[str, ...] = ()
    tls: Tls = "off"
    certs_dir: Path | None = None
    engines: dict[str, str] = {}
    site: Site = "both"
    chosen_ports: dict[str, int] = {}
    failure: str = ""
    parts: list[PartState] = []

    @property
    def running(self) -> bool:
        """Whether that supervisor lives."""
        return Identity(self.pid, self.born).alive

    @property
    def ready(self) -> bool:
        """Whether it lives and everything is ready."""
        return self.running and bool(self.parts) and all(part.phase is Phase.READY for part in self.parts)

    @property
    def up(self) -> bool:
        """Whether it lives and everything does what it can; an edge may be cut off from central."""
        phases = {part.phase for part in self.parts}
        return self.running and bool(phases) and phases <= {Phase.READY, Phase.CUT_OFF}

    @property
    def settings(self) -> StackSettings:
        """What it was started with, but for whether its ports are any free ones."""
        return StackSettings(
            self.home,
            self.edges,
            only=self.only,
            tls=self.tls,
            certs_dir=self.certs_dir,
            engines=self.engines,
            site=self.site,
            chosen_ports=self.chosen_ports,
            edge_groups=self.edge_groups,
            edge_products=self.edge_products,
        )

    @property
    def ports(self) -> Ports:
        """The ports in use."""
        return {part.name: part.ports for part in self.parts}

    def part(self, name: str) -> PartState:
        """Return one part.

        Raises:
            StackError: if there is none of that name.

        """
        for part in self.parts:
            if part.name == name:
                return part
        raise StackError(
            f"there is no part {name!r}; there are {', '.join(part.name for part in self.parts)}"
        )


def state_file(home: Path) -> Path:
    """Where the state of a stack is."""
    return home / "run" / "state.json"


def read_state(home: Path) -> StackState | None:
    """Return what the last supervisor wrote, alive or not; None where there never was one."""
    try:
        return StackState.model_validate(strict_json.loads(state_file(home).read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise StackError(
            f"{state_file(home)} was written by another version: remove it if nothing runs"
        ) from exc


_writing = threading.Lock()


def write_state(state: StackState) -> None:
    """Replace the state file in one step; of several threads the last one writes what is newest."""
    path = state_file(state.home)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    with _writing:
        draft.write_text(state.model_dump_json(indent=1))
        draft.replace(path)


@contextmanager
def sole_supervisor(home: Path) -> Iterator[None]:
    """Hold the lock that one supervisor of a folder has; the system frees it however that one ends.

    Raises:
        StackError: if another holds it.

    """
    path = home / "run" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StackError(f"a stack is already running in {home}") from exc
        yield
    finally:
        os.close(handle)
