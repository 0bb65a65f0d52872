"""What it may cost to have bodies sent: a least rate, a last moment, and so many senders at once.

A sender whose body has not come within a moment takes a place, until its last byte is here. Where there are
too many, the slowest gives way to who comes new, so that those who only hold places lose them.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caravan.errors import BadInput, Unavailable

MAX_OPEN_FILES = 2**16
HEAD_START_SECONDS = 0.2
"""Seconds for which a body may be received without a place: most are complete by then."""
GRACE_SECONDS = 1.0
"""Seconds for which a new sender is not asked to give way."""
STEADY_RATE = 2**16
"""Bytes a second above which a sender is never asked to give way."""
FILES_PER_CONNECTION = 2
FILES_PER_SENDER = 4
"""Open files per sender: its connection, its spooled body, and as many for everything else."""


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What may be at the doors of a process at once, and how long it may take.

    Attributes:
        connections: open ones; beyond, idle ones are closed, and requests answered with 503.
        senders: bodies that are on their way; half of them for one client.
        least_rate: bytes a second, on average of `idle_seconds`, that a body has to come with.
        idle_seconds: over which that is measured, and after which who does not read its answer is let go.
        body_seconds: in which a body has to be whole.
        head_seconds: in which a request's line and headers have to be whole.

    """

    connections: int = 1000
    senders: int = 256
    least_rate: float = 1024
    idle_seconds: float = 30
    body_seconds: float = 300
    head_seconds: float = 15

    def within(self, files: int) -> Self:
        """Return the limits of a process that may open so many files."""
        return replace(
            self,
            connections=max(1, min(self.connections, files // FILES_PER_CONNECTION)),
            senders=max(1, min(self.senders, files // FILES_PER_SENDER)),
        )


def open_files() -> int:
    """Return how many files the process may open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def raise_open_files() -> None:
    """Raise the process's limit of open files as far as the system lets it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if open_files() < wanted:
        # A system may allow less than it says: then the limits of the doors are lower.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Senders:
    """Those who are sending a body now."""

    def __init__(self, limits: DoorLimits) -> None:
        self.limits = limits.within(open_files())
        self._now: dict[_Sender, None] = {}

    def enter(self, sender: _Sender) -> None:
        """Give a sender a place; the slowest gives way where there is none.

        Raises:
            Unavailable: if none does.

        """
        own = [one for one in self._now if one.client == sender.client]
        if len(own) >= max(1, self.limits.senders // 2):
            crowd: Iterable[_Sender] = own
        elif len(self._now) >= self.limits.senders:
            crowd = self._now
        else:
            crowd = ()
        if crowd and not _slowest_gives_way(crowd):
            raise Unavailable("too many senders at once: try again")
        self._now[sender] = None

    def leave(self, sender: _Sender) -> None:
        """Take a sender's place back."""
        self._now.pop(sender, None)

    def make_room(self) -> bool:
        """Have the slowest sender give way, whose memory another needs; tell whether there was one."""
        return _slowest_gives_way(self._now)


def _slowest_gives_way(crowd: Iterable[_Sender]) -> bool:
    slow = [one for one in crowd if one.is_slow]
    if not slow:
        return False
    min(slow, key=lambda one: one.rate).give_way()
    return True


class Intake:
    """ASGI middleware: who sends a body too slowly, for too long, or is one too many, is told so.

    The error is raised where the body is read, so that it is answered as any other.

    Args:
        app: the wrapped ASGI app.
        senders: those of all doors of the process.

    """

    def __init__(self, app: ASGIApp, senders: Senders) -> None:
        self._app = app
        self._senders = senders

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not has_body(scope):
            await self._app(scope, receive, send)
            return
        sender = _Sender((scope.get("client") or ("",))[0], receive, self._senders)
        try:
            await self._app(scope, sender.receive, send)
        finally:
            self._senders.leave(sender)


def has_body(scope: Scope) -> bool:
    """Tell whether a request has a body."""
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


class _Sender:
    def __init__(self, client: str, receive: Receive, senders: Senders) -> None:
        self.client = client
        self._receive = receive
        self._senders = senders
        self._limits = senders.limits
        self._clock = asyncio.get_running_loop().time
        self._began: float | None = None
        self._size = 0
        self._waited = 0.0
        self._waiting: asyncio.Timeout | None = None
        self._waiting_since = 0.0
        self._window_waited = 0.0
        self._window_size = 0
        self._has_place = False
        self._gives_way = False
        self._whole = False

    @property
    def seconds(self) -> float:
        """Since it began."""
        return 0.0 if self._began is None else self._clock() - self._began

    @property
    def is_slow(self) -> bool:
        """Whether it is waited for, and may be asked to give way."""
        waits = self._waiting is not None
        return waits and self.seconds >= GRACE_SECONDS and self.rate < STEADY_RATE

    @property
    def rate(self) -> float:
        """Bytes a second, of the time that it was waited for."""
        waiting = self._clock() - self._waiting_since if self._waiting else 0.0
        return self._size / (self._waited + waiting + 1e-3)

    def give_way(self) -> None:
        """Have what it is asked next, or now, answered with 503."""
        self._gives_way = True
        self._senders.leave(self)
        if self._waiting is not None:
            self._waiting.reschedule(0)

    async def receive(self) -> Message:
        """Return the next part of the body.

        Raises:
            BadInput: 408 if the sender is too slow.
            Unavailable: if it is one too many.

        """
        if self._whole:
            return await self._receive()
        self._began = self._began or self._clock()
        while True:
            self._take_place()
            limits = self._limits
            now = self._waiting_since = self._clock()
            last = min(now + limits.idle_seconds - self._window_waited, self._began + limits.body_seconds)
            start_ends = last if self._has_place else self._began + HEAD_START_SECONDS
            try:
                async with asyncio.timeout_at(min(last, start_ends)) as self._waiting:
                    message = await self._receive()
            except TimeoutError as exc:
                if start_ends < last and not self._gives_way:
                    self._count_wait()
                    continue
                self._senders.leave(self)
                raise (self._given_way() if self._gives_way else self._too_slow()) from exc
            finally:
                self._waiting = None
            self._count_wait()
            self._count(message)
            return message

    def _take_place(self) -> None:
        if self._gives_way:
            raise self._given_way()
        if not self._has_place and self.seconds >= HEAD_START_SECONDS:
            self._senders.enter(self)
            self._has_place = True

    def _count_wait(self) -> None:
        waited = self._clock() - self._waiting_since
        self._waited += waited
        self._window_waited += waited

    def _count(self, message: Message) -> None:
        size = len(message.get("body", b""))
        self._size += size
        self._window_size += size
        # Enough for a whole window has come: a new one begins.
        if self._window_size >= self._limits.least_rate * self._limits.idle_seconds:
            self._window_waited, self._window_size = 0.0, 0
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._whole = True
            self._senders.leave(self)

    def _given_way(self) -> Unavailable:
        return Unavailable("too many senders at once, and this one was the slowest: try again")

    def _too_slow(self) -> BadInput:
        limits = self._limits
        if self.seconds >= limits.body_seconds:
            return BadInput(f"the body was not whole after {limits.body_seconds:g} s", status=408)
        least = limits.least_rate * limits.idle_seconds
        return BadInput(f"less than {least:g} bytes came in {limits.idle_seconds:g} s", status=408)
