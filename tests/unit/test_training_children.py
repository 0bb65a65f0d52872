"""Runs are child processes that are followed, bounded, and never left behind."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import psutil
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from caravan import tracing
from caravan.testing.waiting import until
from training.children import Children
from training.exporter import Job

SCRIPT = """
import json, sys, time
job = json.loads(sys.stdin.readline())
def say(**fact): print(json.dumps(fact), flush=True)
say(name="training", stage="train", progress=0.5, pid=__import__("os").getpid(), **job)
"""


def child(end: str) -> Sequence[str]:
    return (sys.executable, "-c", SCRIPT + end)


def workers() -> list[psutil.Process]:
    """The children of this process that run the script: other tests may have left a resource tracker."""
    return [process for process in psutil.Process().children() if SCRIPT in " ".join(process.cmdline())]


async def run(end: str, *, warm: bool = False, seconds: float = 30) -> tuple[str, str, list[dict[str, Any]]]:
    heard: list[dict[str, Any]] = []
    async with Children(warm=warm, seconds=seconds, command=child(end)) as children:
        ended = await children.run("edge1", "run-1", heard.append)
    return ended.state, ended.detail, heard


async def test_a_run_is_told_its_job_and_followed_to_its_end() -> None:
    state, detail, heard = await run('say(ended="ready", version=3)')
    assert (state, detail) == ("done", "ready")
    assert (heard[0]["edge"], heard[0]["run"], heard[0]["stage"]) == ("edge1", "run-1", "train")


async def test_a_run_is_told_of_the_trace_that_it_belongs_to(spans: InMemorySpanExporter) -> None:
    with tracing.span("training-run"):
        here = tracing.headers()
        _, _, (first, *_) = await run('say(ended="ready")')
    assert first["traceparent"] == here["traceparent"]
    _, _, (first, *_) = await run('say(ended="ready")')
    assert "traceparent" not in first
    assert len(spans.get_finished_spans()) == 1


async def test_a_run_is_answered_what_became_of_its_exports_and_exports_itself_where_nobody_does() -> None:
    async def ask(job: Job) -> str | None:
        if job["directory"] == "deadly":
            raise RuntimeError("it died")
        return f"no {job['directory']}"

    asks = """
for directory in ("model", "deadly"):
    say(export={"directory": directory})
    say(name="training", stage="told", answer=json.loads(sys.stdin.readline()))
say(ended="ready")
"""
    heard: list[dict[str, Any]] = []
    async with Children(warm=False, seconds=30, ask=ask, command=child(asks)) as children:
        assert (await children.run("edge1", "run-1", heard.append)).state == "done"
    assert [fact["answer"] for fact in heard[1:]] == [{"fault": "no model"}, {"died": "it died"}]
    assert not heard[0]["exports"]
    _, _, (first, *_) = await run('say(ended="ready")')
    assert first["exports"]


async def test_exit_codes_tell_a_refusal_from_a_store_that_is_away_and_from_a_crash() -> None:
    assert (await run('say(ended="one class"); sys.exit(65)'))[:2] == ("refused", "one class")
    assert (await run('say(ended="S3 is away"); sys.exit(75)'))[:2] == ("again", "S3 is away")
    assert (await run("sys.exit(1)"))[0] == "crashed"
    assert (await run("import os; os.kill(os.getpid(), 9)"))[:2] == ("crashed", "the process ended with -9")


async def test_a_run_that_hangs_is_ended() -> None:
    state, detail, heard = await run("time.sleep(600)", seconds=2)
    assert state == "crashed"
    assert "longer than 2 s" in detail
    assert not psutil.pid_exists(heard[0]["pid"])


async def test_a_run_that_is_cancelled_leaves_no_process() -> None:
    heard: list[dict[str, Any]] = []
    async with Children(warm=True, seconds=30, command=child("time.sleep(600)")) as children:
        task = asyncio.create_task(children.run("edge1", "run-1", heard.append))
        async with asyncio.timeout(20):
            while not heard:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
    assert not psutil.pid_exists(heard[0]["pid"])
    assert workers() == []


async def test_the_process_kept_ready_serves_the_next_run_and_one_that_died_is_replaced() -> None:
    heard: list[dict[str, Any]] = []
    async with Children(warm=True, seconds=30, command=child('say(ended="ready")')) as children:
        (ready,) = await until(workers)
        await children.run("edge1", "run-1", heard.append)
        assert heard[0]["pid"] == ready.pid
        (spare,) = await until(workers)
        spare.kill()
        async with asyncio.timeout(20):
            # The run that meets the dead one before its death is known ends as a crash, and is made again.
            while (await children.run("edge1", "run-2", heard.append)).state != "done":
                pass
    assert workers() == []


async def test_a_worker_ends_when_its_parent_is_gone() -> None:
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "training",
        "worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert worker.stdin is not None
    worker.stdin.close()  # As the system closes it when the parent is killed.
    async with asyncio.timeout(60):
        assert await worker.wait() == 0
