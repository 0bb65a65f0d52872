"""What the routes of one process add to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import FastAPI

from caravan import http


@dataclass
class Wiring:
    """What the routes add: the checks of `/readyz`, the loops, and what the end of the process is told."""

    app: FastAPI
    checks: dict[str, http.Check] = field(default_factory=dict)
    loops: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    on_stop: list[Callable[[], None]] = field(default_factory=list)

    def stop(self) -> None:
        """Tell all who want to know that the process ends."""
        for call in self.on_stop:
            call()
