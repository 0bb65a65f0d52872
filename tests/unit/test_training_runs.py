"""The listener: what it accepts is run, once for many triggers, fairly, and after any end of the process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from caravan import http, tracing
from caravan.groups import learners
from caravan.testing.waiting import until
from training.children import Ended
from training.doors.triggers import build
from training.markers import Markers
from training.runs import CRASHES, Runs

DONE = Ended("done", "ready")


class Runner:
    """Stands in for the child processes: each run waits until it is told how it ends."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.under_way: dict[str, asyncio.Future[Ended]] = {}
        self.most = 0

    async def __call__(self, edge: str, run: str, heard: Callable[[dict[str, Any]], None]) -> Ended:
        assert edge not in self.under_way, "two runs of one edge"
        self.started.append(edge)
        self.under_way[edge] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.under_way))
        heard({"stage": "train", "progress": 0.5})
        try:
            return await self.under_way[edge]
        finally:
            del self.under_way[edge]

    async def end(self, edge: str, ended: Ended = DONE) -> None:
        await until(lambda: edge in self.under_way)
        self.under_way[edge].set_result(ended)
        await until(lambda: edge not in self.under_way or not self.under_way[edge].done())


class Told:
    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []

    async def __call__(self, *words: str) -> None:
        self.said.append(words)  # type: ignore[arg-type]


@asynccontextmanager
async def listening(
    state: Path, runner: Any, told: Told | None = None, at_once: int = 1
) -> AsyncIterator[Runs]:
    runs = Runs(Markers(state), runner, told or Told(), wait=0.001)
    tasks = [asyncio.create_task(runs.work()) for _ in range(at_once)]
    try:
        yield runs
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def idle(runs: Runs) -> None:
    await until(lambda: not runs.state()["current"] and not runs.state()["waiting"])


async def test_triggers_during_a_run_become_one_more_run(tmp_path: Path) -> None:
    runner = Runner()
    async with listening(tmp_path, runner) as runs:
        await runs.accept("edge1", "e1")
        await until(lambda: "edge1" in runner.under_way)
        for i in range(5):
            await runs.accept("edge1", f"more-{i}")
        await runner.end("edge1")
        await runner.end("edge1")
        await idle(runs)
    assert runner.started == ["edge1", "edge1"]
    assert Markers(tmp_path).pending() == []


async def test_edges_take_turns(tmp_path: Path) -> None:
    runner = Runner()
    async with listening(tmp_path, runner) as runs:
        await runs.accept("edge1", "a")
        await until(lambda: "edge1" in runner.under_way)
        for edge in ("edge1", "edge2", "edge3"):
            await runs.accept(edge, "b")
        for edge in ("edge1", "edge2", "edge3", "edge1"):
            await runner.end(edge)
        await idle(runs)
    assert runner.started == ["edge1", "edge2", "edge3", "edge1"]
    assert runner.most == 1


async def test_as_many_runs_at_once_as_are_allowed_and_never_two_of_one_edge(tmp_path: Path) -> None:
    runner = Runner()
    async with listening(tmp_path, runner, at_once=2) as runs:
        for edge in ("edge1", "edge1", "edge2", "edge3"):
            await runs.accept(edge, "a")
        await until(lambda: len(runner.under_way) == 2)
        for edge in ("edge1", "edge2", "edge3"):
            await runner.end(edge)
        await idle(runs)
    assert runner.most == 2
    assert sorted(runner.started) == ["edge1", "edge2", "edge3"]


async def test_a_trigger_is_on_disk_before_it_is_answered_and_until_its_run_has_ended(tmp_path: Path) -> None:
    runner = Runner()
    async with listening(tmp_path, runner) as runs:
        await runs.accept("edge1", "a")
        assert Markers(tmp_path).pending() == [("edge1", "a")]
        await until(lambda: "edge1" in runner.under_way)
        assert Markers(tmp_path).pending() == [("edge1", "a")]
        await runner.end("edge1")
        await idle(runs)
    assert Markers(tmp_path).pending() == []


async def test_what_was_under_way_or_waiting_at_the_end_of_the_process_is_run_by_the_next(
    tmp_path: Path,
) -> None:
    first = Runner()
    async with listening(tmp_path, first) as runs:
        await runs.accept("edge1", "a")
        await runs.accept("edge2", "b")
        await until(lambda: "edge1" in first.under_way)
    second = Runner()
    async with listening(tmp_path, second) as runs:
        await second.end("edge1")
        await second.end("edge2")
        await idle(runs)
    assert second.started == ["edge1", "edge2"]
    assert Markers(tmp_path).pending() == []


async def test_a_trigger_that_came_during_the_last_run_survives_a_restart(tmp_path: Path) -> None:
    runner = Runner()
    async with listening(tmp_path, runner) as runs:
        await runs.accept("edge1", "a")
        await until(lambda: "edge1" in runner.under_way)
        await runs.accept("edge1", "b")
        runner.under_way["edge1"].set_result(DONE)
        await until(lambda: len(runner.started) == 2)
    assert Markers(tmp_path).pending() == [("edge1", "b")]


async def test_a_run_whose_store_is_away_is_made_again_until_it_ends(tmp_path: Path) -> None:
    runner = Runner()
    async with listening(tmp_path, runner) as runs:
        await runs.accept("edge1", "a")
        for _ in range(CRASHES + 2):
            await runner.end("edge1", Ended("again", "S3 is away"))
            assert Markers(tmp_path).pending() == [("edge1", "a")]
        await runner.end("edge1")
        await idle(runs)
    assert len(runner.started) == CRASHES + 3
    assert Markers(tmp_path).pending() == []


async def test_a_refusal_is_final(tmp_path: Path) -> None:
    runner = Runner()
    async with listening(tmp_path, runner) as runs:
        await runs.accept("edge1", "a")
        await runner.end("edge1", Ended("refused", "only one class"))
        await idle(runs)
        assert runs.state()["last"][-1]["detail"] == "only one class"
    assert runner.started == ["edge1"]
    assert Markers(tmp_path).pending() == []


async def test_a_run_that_keeps_dying_is_given_up_told_and_tried_again_by_the_next_trigger(
    tmp_path: Path,
) -> None:
    runner, told = Runner(), Told()
    async with listening(tmp_path, runner, told) as runs:
        await runs.accept("edge1", "a")
        for _ in range(CRASHES):
            await runner.end("edge1", Ended("crashed", "the process ended with -9"))
        await until(lambda: bool(told.said))
        await idle(runs)
        assert Markers(tmp_path).pending() == []
        assert "ended with -9" in (tmp_path / "set-aside/edge1.json").read_text()
        edge, run, reason = told.said[0]
        assert (edge, run) == ("edge1", "a")
        assert "ended with -9" in reason
        await runs.accept("edge1", "b")
        await runner.end("edge1")
        await idle(runs)
    assert len(runner.started) == CRASHES + 1


async def test_an_edge_whose_run_has_to_wait_does_not_hold_up_another(tmp_path: Path) -> None:
    runner = Runner()
    runs = Runs(Markers(tmp_path), runner, Told(), wait=60)
    task = asyncio.create_task(runs.work())
    await runs.accept("edge1", "a")
    await runner.end("edge1", Ended("again", "S3 is away"))
    await runs.accept("edge2", "b")
    await runner.end("edge2")
    await until(lambda: not runs.state()["current"])
    assert runs.state()["waiting"] == ["edge1"]
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with listening(tmp_path, Runner()) as runs:
        app = build({"edge1": ("edge1",), "edge2": ("edge2",)}, runs, "caravan")
        http.install(app, {})
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://listener") as connected:
            yield connected


async def test_a_run_goes_on_with_the_trace_of_its_trigger_also_after_a_restart(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    app = build({"edge1": ("edge1",)}, Runs(Markers(tmp_path), Runner(), Told()), "caravan")
    http.install(app, {})
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://listener"
    ) as client:
        await client.post("/", json={"id-edge": "edge1"}, headers={"traceparent": parent})
    runner, carried = Runner(), list[dict[str, str]]()

    async def noting(edge: str, run: str, heard: Callable[[dict[str, Any]], None]) -> Ended:
        carried.append(tracing.headers())
        return await runner(edge, run, heard)

    async with listening(tmp_path, noting) as runs:
        await runner.end("edge1")
        await idle(runs)
    trigger, run = spans.get_finished_spans()
    assert (trigger.name, run.name) == ("training-trigger", "training-run")
    assert {f"{span.context.trace_id:032x}" for span in (trigger, run)} == {parent[3:35]}
    assert carried[0]["traceparent"] == f"{parent[:36]}{run.context.span_id:016x}-01"


async def test_the_listener_answers_as_tekton_does(client: httpx.AsyncClient, tmp_path: Path) -> None:
    answer = await client.post("/", json={"id-edge": "edge1"})
    assert answer.status_code == 202
    body = answer.json()
    assert set(body) == {"eventListener", "namespace", "eventListenerUID", "eventID"}
    assert all(body.values())
    assert Markers(tmp_path).pending() == [("edge1", body["eventID"])]
    again = (await client.post("/", json={"id-edge": "edge2"})).json()
    assert again["eventListenerUID"] == body["eventListenerUID"]
    assert again["eventID"] != body["eventID"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"nonsense", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"id-edge": 7}', 400),
        (b'{"id-edge": ""}', 400),
        (b'{"id-edge": "../etc"}', 400),
        (b'{"id-edge": "edge9"}', 404),
        (b'{"id-edge": "' + b"a" * 100_000 + b'"}', 413),
    ],
)
async def test_a_bad_trigger_is_refused_as_a_problem_document(
    client: httpx.AsyncClient, tmp_path: Path, content: bytes, status: int
) -> None:
    answer = await client.post("/", content=content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert Markers(tmp_path).pending() == []


async def test_the_runs_can_be_seen(client: httpx.AsyncClient) -> None:
    await client.post("/", json={"id-edge": "edge1"})
    await client.post("/", json={"id-edge": "edge2"})
    body = (await client.get("/runs")).json()
    (current,) = body["current"]
    assert (current["edge"], current["stage"], current["progress"]) == ("edge1", "train", 0.5)
    assert body["waiting"] == ["edge2"]


async def test_triggers_of_the_edges_of_a_group_are_one_run_of_the_group(tmp_path: Path) -> None:
    runner, groups = Runner(), {"north": ("edge1", "edge2")}
    of_each = {name: learners(name, groups, {}) for name in ("edge1", "edge2", "edge3", "north")}
    async with listening(tmp_path, runner) as runs:
        app = build(of_each, runs, "caravan")
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://listener") as client:
            for name in ("edge3", "edge1", "edge2", "north"):
                assert (await client.post("/", json={"id-edge": name})).status_code == 202
        await runner.end("edge3")
        await runner.end("north")
        await idle(runs)
    assert runner.started == ["edge3", "north"]


async def test_a_trigger_of_any_edge_of_a_group_is_a_run_of_the_group_and_then_of_those_with_products(
    tmp_path: Path,
) -> None:
    runner, groups = Runner(), {"north": ("edge1", "edge2", "edge3")}
    of_each = {name: learners(name, groups, {"edge1": ("chai",)}) for name in ("edge1", "edge2", "north")}
    for name in of_each:
        runs = Runs(Markers(tmp_path), runner, Told(), behind={"edge1": "north"})
        tasks = [asyncio.create_task(runs.work()) for _ in range(2)]
        transport = httpx.ASGITransport(app=build(of_each, runs, "caravan"))
        async with httpx.AsyncClient(transport=transport, base_url="http://listener") as client:
            assert (await client.post("/", json={"id-edge": name})).status_code == 202
        await until(lambda: "north" in runner.under_way)
        assert runs.state()["waiting"] == ["edge1"], "though there is room for a second run"
        await runner.end("north")
        await runner.end("edge1")
        await idle(runs)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert runner.started == ["north", "edge1"] * 3


async def test_what_waits_as_an_edge_joins_a_group_is_handed_to_the_group(tmp_path: Path) -> None:
    markers = Markers(tmp_path)
    for name in ("edge1", "edge2", "edge3", "gone"):
        markers.add(name, f"of-{name}", {"traceparent": name})
    markers.hand_over(("edge1", "edge2", "edge3"), {"north": ("edge1", "edge2")})
    assert dict(markers.pending()) == {"north": "of-edge2", "edge3": "of-edge3"}
    assert markers.trace("north") == {"traceparent": "edge2"}
    assert "neither an edge nor a group" in (tmp_path / "set-aside" / "gone.json").read_text()
