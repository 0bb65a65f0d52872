"""Central and an edge as two sites, each with half of the embedded stack, and a link that may be cut."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from caravan.s3_signature import signed
from local_stack.keys import PASSWORD, USER, Keys
from local_stack.settings import port_settings
from local_stack.state import StackState, read_state
from support.namespaces import CENTRAL, Namespace, Network, network

TESTS = Path(__file__).parents[1]
LINK = ("S3_CENTRAL_PORT", "KAFKA_PORT", "FEEDER_PORT")
"""What crosses it, and nothing else does."""
RATE = 5_000_000
"""Bytes a second of a connection: a version takes some seconds, as it does over lines that sites have."""
WINDOWS = {
    "central": (*LINK, "TRAINING_PORT", "HUB_PORT", "DELIVERY_PORT"),
    "edge": (
        "SHOPPER_PORT",
        "TFSERVING_REST_PORT",
        "S3_EDGE_PORT",
        "EDGE_MANAGER_PORT",
        "MQTT_PORT",
        "MONITOR_PORT",
    ),
}
"""What the tests look into from outside, each through a Unix socket."""
START_SECONDS, END_SECONDS, COMMAND_SECONDS = 180.0, 60.0, 90.0


class S3Keys(httpx.Auth):
    """Signs requests without a body to one of the stack's S3 servers."""

    def __init__(self, url: str) -> None:
        self._address = Keys(USER, PASSWORD).address(url)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign one."""
        request.headers.update(signed(self._address, request.method, str(request.url)))
        yield request


class Site:
    """One side: how to look at it, and how to run something there."""

    def __init__(self, name: str, namespace: Namespace, folder: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self.namespace = namespace
        self.home = folder / name
        self.folder = folder
        self.environment = {
            **{n: v for n, v in os.environ.items() if n not in port_settings()},
            "CARAVAN_HOME": str(self.home),
            "SITE": name,
            "PYTHONPATH": str(TESTS),
            **settings,
        }

    @property
    def state(self) -> StackState:
        """What its supervisor tells."""
        state = read_state(self.home)
        assert state is not None
        return state

    def window(self, setting: str) -> Path:
        """The Unix socket of a port: `SHOPPER_PORT`."""
        return self.folder / f"{self.name}-{setting.removesuffix('_PORT').lower()}"

    def client(self, setting: str) -> httpx.AsyncClient:
        """Return a client of a door there; the caller closes it."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.window(setting)))
        url = f"http://127.0.0.1:{port_settings()[setting]}"
        auth = S3Keys(url) if setting.startswith("S3_") else None
        return httpx.AsyncClient(transport=transport, base_url=url, timeout=60, auth=auth)

    async def run(self, *command: str, given: bytes = b"") -> tuple[int, str]:
        """Run a command there; return its exit code, and what it prints."""
        words = [sys.executable if word == "python" else word for word in command]
        process = await asyncio.create_subprocess_exec(
            *self.namespace.inside(*words), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=self.environment
        )
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                out, err = await process.communicate(given)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        return process.returncode or 0, f"{out.decode()}{err.decode()}"

    @asynccontextmanager
    async def tied(self, *words: str) -> AsyncIterator[str]:
        """Run a program there until the end of the block; gives the line that it prints once it is up."""
        log = self.folder / f"{self.name}-{words[0]}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *self.namespace.inside(sys.executable, "-m", *words),
                stdin=PIPE, stdout=PIPE, stderr=output, env=self.environment,
            )  # fmt: skip
        try:
            yield await _first_line(process, log)
        finally:
            await _end(process)


class Sites:
    """Both sides."""

    def __init__(self, net: Network, central: Site, edge: Site) -> None:
        self.net = net
        self.central = central
        self.edge = edge

    @asynccontextmanager
    async def cut(self) -> AsyncIterator[None]:
        """Without the link for as long as the block lasts."""
        self.net.cut()
        try:
            yield
        finally:
            self.net.mend()


@asynccontextmanager
async def two_sites(folder: Path, **settings: str) -> AsyncIterator[Sites]:
    """Start both sides, the edge first and alone: it does not wait for central, which it cannot reach yet."""
    async with AsyncExitStack() as stack:
        net = stack.enter_context(network())
        central = Site("central", net.central, folder, settings)
        edge = Site("edge", net.edge, folder, settings)
        ports = port_settings()
        crossing = {
            "central": [f"{CENTRAL}:{ports[name]}=127.0.0.1:{ports[name]}@{RATE}" for name in LINK],
            "edge": [f"127.0.0.1:{ports[name]}={CENTRAL}:{ports[name]}" for name in LINK],
        }
        for site in (central, edge):
            windows = [f"{site.window(name)}=127.0.0.1:{ports[name]}" for name in WINDOWS[site.name]]
            await stack.enter_async_context(site.tied("support.relay", *crossing[site.name], *windows))
        async with asyncio.TaskGroup() as group:
            starts = [
                group.create_task(_entered(stack, site.tied("support.site"))) for site in (edge, central)
            ]
        said = [start.result() for start in starts]
        assert said == ["cut off", "ready"], said
        net.mend()
        yield Sites(net, central, edge)


async def _entered(stack: AsyncExitStack, program: AbstractAsyncContextManager[str]) -> str:
    return await stack.enter_async_context(program)


async def _first_line(process: Process, log: Path) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        line = await process.stdout.readline()
    assert line, f"it ended with {await process.wait()}: {await asyncio.to_thread(log.read_text)}"
    return line.decode().strip()


async def _end(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
