"""A run in a process of its own: what it takes of memory goes with it.

The process makes itself ready and waits on standard input for one line, `{"edge": …, "run": …}`, with whether
it `exports` itself, and perhaps with the `traceparent` of the trace that it belongs to.
What happens goes to standard output as lines of JSON, and so do jobs for the exporter, unless it exports
itself: the lines that come in then are what became of them. Standard input that ends means that the parent
is gone, by whatever signal: then so is this process.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from caravan import strict_json, traces, tracing
from caravan.errors import Permanent, Transient
from caravan.settings import load
from caravan.telemetry import configure_logging
from training.codes import AGAIN, DONE, REFUSED
from training.exporter import Exporter, Job
from training.orphan import lines_of_parent
from training.pipeline import run_pipeline
from training.session import load_embedder, session
from training.settings import TrainingSettings

if TYPE_CHECKING:
    from training.embedder import Embedder


def main() -> NoReturn:
    """Serve one job and end the process with DONE, REFUSED (for good) or AGAIN (a store is away)."""
    say = _Say()
    settings = load(TrainingSettings)
    configure_logging(settings.log_level, settings.log_format)
    traces.start("training", settings)
    # A cold start: images are acquired while the backbone loads. A warm one: it is loaded when the job comes.
    with ThreadPoolExecutor(1) as pool:
        embedder = pool.submit(load_embedder)
        line = sys.stdin.buffer.readline()
        if not line:
            os._exit(DONE)
        lines = lines_of_parent(AGAIN)
        job = strict_json.loads_object(line)
        exporter = None if job["exports"] else Exporter(partial(_ask, say, lines))
        with tracing.following(job):
            code = asyncio.run(_run(settings, job, embedder, say, exporter))
        tracing.stop()
        # Not by way of the interpreter's end: that would wait for the backbone to finish loading.
        sys.stderr.flush()
        os._exit(code)


async def _ask(say: "_Say", lines: SimpleQueue[bytes], job: Job) -> str | None:
    """Have a job done by the exporter that the parent keeps; see `ExporterProcess.ask`."""
    say({"export": job})
    answer = strict_json.loads_object(await asyncio.to_thread(lines.get))
    if "died" in answer:
        raise RuntimeError(answer["died"])
    fault: str | None = answer["fault"]
    return fault


async def _run(
    settings: TrainingSettings,
    job: Mapping[str, Any],
    embedder: "Future[Embedder]",
    say: "_Say",
    exporter: Exporter | None,
) -> int:
    edge, facts = str(job["edge"]), {"run": str(job["run"])}
    work = Path(settings.work_dir, edge)
    opened = session(settings, edge, work, embedder.result, say, facts=facts, exporter=exporter)
    async with opened as (run, reporter):
        try:
            outcome = await run_pipeline(run, reporter)
        except Permanent as exc:
            say({"ended": str(exc)})
            return REFUSED
        except Transient as exc:
            say({"ended": str(exc)})
            return AGAIN
    say({"ended": outcome.reason or outcome.state, "version": outcome.version, "outcome": outcome.state})
    return DONE


class _Say:
    """Writes facts to what was standard output; whatever else prints there now goes to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def __call__(self, fact: dict[str, Any]) -> None:
        self._out.write(json.dumps(fact) + "\n")
        self._out.flush()
