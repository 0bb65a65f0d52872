"""common: what senders may cost until their body is there, and how those are answered that are refused."""

import asyncio
from typing import Any

import pytest

from caravan.errors import BadInput, CaravanError, Unavailable
from caravan.intake import DoorLimits, Intake, Senders
from caravan.lingering import LingeringClose

SCOPE = {"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}


@pytest.fixture(autouse=True)
def _no_head_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caravan.intake.HEAD_START_SECONDS", 0)


class Body:
    """A body that comes as the test has it, and what its reader saw."""

    def __init__(self, senders: Senders, client: str = "10.0.0.1") -> None:
        self.parts: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        self.read = b""
        self.error: CaravanError | None = None
        scope = SCOPE | {"client": (client, 5000)}
        self.task = asyncio.create_task(Intake(self._app, senders)(scope, self._receive, self._send))

    def sends(self, part: bytes, *, more: bool = True) -> None:
        self.parts.put_nowait((part, more))

    async def ended(self) -> CaravanError | None:
        async with asyncio.timeout(10):
            await self.task
        return self.error

    async def _app(self, _: Any, receive: Any, __: Any) -> None:
        try:
            more = True
            while more:
                message = await receive()
                self.read += message["body"]
                more = message["more_body"]
        except CaravanError as exc:
            self.error = exc

    async def _receive(self) -> dict[str, Any]:
        body, more = await self.parts.get()
        return {"type": "http.request", "body": body, "more_body": more}

    async def _send(self, _: Any) -> None:
        raise AssertionError


# --- slow ---------------------------------------------------------------------------------------------


async def test_who_sends_less_than_the_least_rate_is_told_so() -> None:
    body = Body(Senders(DoorLimits(least_rate=1000, idle_seconds=0.1)))
    for _ in range(100):
        body.sends(b"x")
        await asyncio.sleep(0.005)
        if body.task.done():
            break
    error = await body.ended()
    assert isinstance(error, BadInput)
    assert error.status == 408
    assert "less than 100 bytes" in error.detail


async def test_who_sends_the_least_rate_may_take_any_number_of_windows() -> None:
    body = Body(Senders(DoorLimits(least_rate=1, idle_seconds=0.5)))
    for _ in range(60):
        body.sends(b"xx")
        await asyncio.sleep(0.02)
    body.sends(b"", more=False)
    assert await body.ended() is None
    assert len(body.read) == 120


async def test_a_body_has_a_last_moment_however_fast_it_comes() -> None:
    body = Body(Senders(DoorLimits(body_seconds=0.1)))
    while not body.task.done():
        body.sends(bytes(10_000))
        await asyncio.sleep(0.005)
    error = await body.ended()
    assert isinstance(error, BadInput)
    assert error.status == 408
    assert "0.1 s" in error.detail


# --- many ---------------------------------------------------------------------------------------------


async def test_where_there_are_too_many_a_new_one_is_told_to_come_again() -> None:
    senders = Senders(DoorLimits(senders=4))
    others = [Body(senders, f"10.0.0.{n}") for n in range(4)]
    await asyncio.sleep(0)
    error = await Body(senders, "10.0.0.9").ended()
    assert isinstance(error, Unavailable)
    assert error.status == 503

    others[0].sends(b"all", more=False)
    await others[0].ended()
    late = Body(senders, "10.0.0.9")
    late.sends(b"all", more=False)
    assert await late.ended() is None
    for body in others[1:]:
        body.sends(b"", more=False)
        assert await body.ended() is None


async def test_one_client_has_half_of_the_places() -> None:
    senders = Senders(DoorLimits(senders=4))
    hog = [Body(senders) for _ in range(3)]
    other = Body(senders, "10.0.0.2")
    await asyncio.sleep(0)
    assert isinstance(await hog[2].ended(), Unavailable)
    for body in (hog[0], hog[1], other):
        body.sends(b"all", more=False)
        assert await body.ended() is None


async def test_a_body_that_comes_at_once_needs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    senders = Senders(DoorLimits(senders=1))
    slow = Body(senders)
    await asyncio.sleep(0)
    monkeypatch.setattr("caravan.intake.HEAD_START_SECONDS", 0.05)
    ordinary, late = Body(senders, "10.0.0.2"), Body(senders, "10.0.0.3")
    ordinary.sends(b"one ")
    ordinary.sends(b"two", more=False)
    assert await ordinary.ended() is None
    assert ordinary.read == b"one two"
    late.sends(b"one")
    assert isinstance(await late.ended(), Unavailable)
    slow.sends(b"", more=False)
    assert await slow.ended() is None


async def test_the_slowest_gives_its_place_to_who_comes_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caravan.intake.GRACE_SECONDS", 0)
    senders = Senders(DoorLimits(senders=2))
    slow, fast = Body(senders, "10.0.0.1"), Body(senders, "10.0.0.2")
    slow.sends(b"x")
    fast.sends(bytes(5000))
    await asyncio.sleep(0.01)
    new = Body(senders, "10.0.0.3")
    error = await slow.ended()
    assert isinstance(error, Unavailable)
    assert "slowest" in error.detail
    for body in (fast, new):
        body.sends(b"", more=False)
        assert await body.ended() is None


def test_limits_fit_into_the_files_that_may_be_open() -> None:
    limits = DoorLimits(connections=1000, senders=512)
    assert (limits.within(10_000).connections, limits.within(10_000).senders) == (1000, 512)
    assert (limits.within(256).connections, limits.within(256).senders) == (128, 64)


# --- answers before the body was read -----------------------------------------------------------------


class Wire:
    """One request as a server sees it: what is received and sent, in order."""

    def __init__(self, *chunks: bytes, endless: bool = False) -> None:
        self.chunks = list(chunks)
        self.endless = endless
        self.seen: list[str] = []
        self.headers: dict[bytes, bytes] = {}

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        self.seen.append("receive")
        if self.endless:
            return {"type": "http.request", "body": b"x", "more_body": True}
        body = self.chunks.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(self.chunks)}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])
            self.seen.append("start")
        else:
            self.seen.append("more" if message.get("more_body") else "end")

    async def serve(self, *, reads: bool, seconds: float = 5) -> None:
        async def app(_: Any, receive: Any, send: Any) -> None:
            while reads and (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})

        scope = {"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}
        await LingeringClose(app, seconds=seconds)(scope, self.receive, self.send)


async def test_an_answer_goes_out_before_the_rest_of_the_body_is_read() -> None:
    wire = Wire(b"a", b"b", b"c")
    await wire.serve(reads=False)

    assert wire.seen == ["start", "more", "receive", "receive", "receive", "end"]
    assert wire.headers[b"connection"] == b"close"


async def test_a_sender_that_never_stops_is_cut_off() -> None:
    wire = Wire(endless=True)
    await wire.serve(reads=False, seconds=0.05)

    assert wire.seen[:2] == ["start", "more"]
    assert wire.seen[-1] == "end"


async def test_a_connection_whose_body_was_read_stays_open() -> None:
    wire = Wire(b"a", b"b")
    await wire.serve(reads=True)

    assert wire.seen == ["receive", "receive", "start", "end"]
    assert b"connection" not in wire.headers
