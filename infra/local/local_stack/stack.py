"""A stack for Python programs: tests, the demo, benchmarks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from caravan.settings import S3Address
from local_stack.engines import choice
from local_stack.errors import StackError
from local_stack.keys import Keys
from local_stack.launch import failed, launch
from local_stack.launch import stop as stop_home
from local_stack.settings import StackSettings, Tls
from local_stack.state import PartState, Phase, StackState, read_state

POLL = 0.05
_NOTICE_SECONDS = 10.0


class Stack:
    """A whole stack in processes of its own: `async with Stack(home, edges=("edge1",)) as stack:`.

    All ports are free ones, the engines those that KAFKA, MQTT and S3 choose. It ends with this process, in
    whatever way that ends. Parts have the names that `python -m local_stack status` shows: `feeder`, `kafka`,
    `shopper-edge1`. It may be used from several event loops, as it holds nothing of one.

    Args:
        home: where it keeps data, logs and state; these outlive it.
        edges: ids of the edges.
        edge_groups: which of them share a model: `north=edge1,edge2`.
        edge_products: products that one of those has for itself: `edge1=chai`.
        parts: rows of the table to run, with what they need; none means all.
        environment: settings for the services, over those of this process.
        tls: whether MQTT has a door with TLS, its certificates being in `certs/` of the home.
        on_change: told the state again and again while it starts.
        lasting: whether what it stored is of use after its end; else the end is quick.

    """

    def __init__(
        self,
        home: Path,
        *,
        edges: Sequence[str] = ("edge1",),
        edge_groups: str = "",
        edge_products: str = "",
        parts: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        tls: Tls = "off",
        on_change: Callable[[StackState], None] | None = None,
        lasting: bool = True,
    ) -> None:
        self._environment = {**os.environ, **(environment or {})}
        engines, faults = choice.read(self._environment)
        if faults:
            raise StackError("\n".join(faults))
        self.settings = StackSettings(
            home.absolute(),
            tuple(edges),
            free_ports=True,
            only=tuple(parts),
            tls=tls,
            engines=engines,
            edge_groups=edge_groups,
            edge_products=edge_products,
        )
        self._on_change = on_change
        self._lasting = lasting
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(at_once=not self._lasting)

    async def start(self) -> None:
        """Start it and wait until everything is ready.

        Raises:
            StartFailed: naming the part at fault; nothing is left running.

        """
        launched = await launch(
            self.settings, tied=True, environment=self._environment, on_change=self._on_change
        )
        self._process = launched.process

    async def stop(self) -> None:
        """Stop it, if it runs; what it stored stays, for a next start."""
        await self._end(at_once=False)

    async def _end(self, *, at_once: bool) -> None:
        await stop_home(self.settings.home, at_once=at_once)
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None

    # --- where things are -----------------------------------------------------------------------

    @property
    def state(self) -> StackState:
        """What the supervisor last told.

        Raises:
            StackError: if it was never started.

        """
        state = read_state(self.settings.home)
        if state is None:
            raise StackError(f"nothing was ever started in {self.settings.home}")
        return state

    @property
    def names(self) -> list[str]:
        """The names of all parts, in the order in which they start."""
        return [part.name for part in self.state.parts]

    def port(self, part: str, which: str | None = None) -> int:
        """A port of a part: its first, or `which` of those that the table gives it, such as `websocket`."""
        ports = self.state.part(part).ports
        return next(iter(ports.values())) if which is None else ports[which]

    def url(self, part: str, which: str | None = None) -> str:
        """The address of an HTTP door: `http://127.0.0.1:<port>`, without a slash at its end."""
        return f"http://127.0.0.1:{self.port(part, which)}"

    def s3(self, part: str) -> S3Address:
        """How to reach an S3 server: `s3-central`, `s3-edge1`."""
        side: Literal["CENTRAL", "EDGE"] = "CENTRAL" if part == "s3-central" else "EDGE"
        return Keys.of(side, self._environment).address(self.url(part))

    @property
    def kafka(self) -> str:
        """The bootstrap server, `host:port`."""
        return f"127.0.0.1:{self.port('kafka')}"

    # --- harm, and recovery from it -------------------------------------------------------------

    async def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a part a deadly signal, and return once the supervisor has noticed that it ended.

        Raises:
            StackError: if it does not run, or outlives the signal.

        """
        before = self.state.part(part)
        if before.identity is None:
            raise StackError(f"{part} does not run: it is {before.phase}")
        before.identity.signal(number)
        deadline = asyncio.get_running_loop().time() + _NOTICE_SECONDS
        while (await self._read(part)).restarts == before.restarts:
            if asyncio.get_running_loop().time() > deadline:
                raise StackError(f"{part} is still running after {number.name}")
            await asyncio.sleep(POLL)

    async def wait_ready(self, part: str, seconds: float = 60.0) -> None:
        """Wait until a part is ready.

        Raises:
            StartFailed: if it is not within `seconds`.

        """
        deadline = asyncio.get_running_loop().time() + seconds
        while (state := await self._read(part)).phase is not Phase.READY:
            if asyncio.get_running_loop().time() > deadline:
                raise await failed(self.settings.home, state)
            await asyncio.sleep(POLL)

    async def _read(self, part: str) -> PartState:
        state = await asyncio.to_thread(lambda: self.state)
        return state.part(part)
