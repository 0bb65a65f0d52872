"""One process that starts the parts, watches them, starts again what ends, and stops them all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx

from local_stack import logs, probes, processes
from local_stack.errors import NotReady, StackError
from local_stack.plan import Plan, PlannedPart
from local_stack.ports import HeldPorts, plan_ports, why_blocked
from local_stack.processes import Identity
from local_stack.settings import StackSettings
from local_stack.state import PartState, Phase, StackState, read_state, sole_supervisor, write_state

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between a part's end and its next start; doubled each time, until it stays up for LONG_UP."""
LONG_UP = 30.0
WATCH, WATCH_SELDOM, ASK_AGAIN, ASK_SELDOM = 5.0, 30.0, 0.1, 0.5
"""Seconds between questions to a part that is ready, at first and in the long run, and to one that is not."""
LOG_CHECK, DISPLAY = 30.0, 1.0

OnChange = Callable[[StackState], None]


async def supervise(
    settings: StackSettings, *, until_eof: bool = False, on_change: OnChange | None = None
) -> None:
    """Run a stack until SIGINT, SIGTERM or SIGHUP, or with `until_eof` until standard input ends.

    Raises:
        StackError: if another supervisor runs there or a port is busy; nothing was started.

    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    if until_eof:
        await loop.connect_read_pipe(lambda: _SetAtEnd(stop), sys.stdin)
    with sole_supervisor(settings.home), HeldPorts() as held:
        state = StackState(
            pid=os.getpid(),
            born=_born(),
            home=settings.home,
            edges=settings.edges,
            edge_groups=settings.edge_groups,
            edge_products=settings.edge_products,
            only=settings.only,
            tls=settings.tls,
            certs_dir=settings.certs_dir,
            engines=dict(settings.engines),
            site=settings.site,
            chosen_ports=dict(settings.chosen_ports or {}),
        )
        try:
            plan = await _plan(settings, held)
        except StackError as exc:
            state.failure = str(exc)
            await asyncio.to_thread(write_state, state)
            raise
        await _Supervisor(plan, state, on_change or (lambda _: None)).run(stop)


async def _plan(settings: StackSettings, held: HeldPorts) -> Plan:
    """End what an earlier supervisor left over, then choose the ports."""
    old = await asyncio.to_thread(read_state, settings.home)
    if old is not None:
        await asyncio.to_thread(sweep, old)
    await asyncio.to_thread(settings.prepare)
    plan = Plan(settings, await asyncio.to_thread(plan_ports, settings, take=held.take))
    await asyncio.to_thread(lambda: plan.parts)  # copies the Kafka broker out of its wheel, the first time
    return plan


def sweep(old: StackState, *, at_once: bool = False) -> int:
    """End the processes and remove the litter of a supervisor that is gone; return how many processes."""
    parts = [part.identity for part in old.parts if part.identity]
    ended = processes.end_leftovers(parts, old.home, at_once=at_once)
    known = {part.name: part.ports for part in old.parts}
    try:
        planned = Plan(old.settings, known).parts.values()
    except KeyError:  # the table has changed since
        return ended
    for part in planned:
        if not any(why_blocked(port) for port in part.ports.values()):
            processes.tidy(part)
    return ended


class _Supervisor:
    def __init__(self, plan: Plan, state: StackState, on_change: OnChange) -> None:
        self._parts = plan.parts
        self._state = state
        self._on_change = on_change
        self._dirty = asyncio.Event()
        self._alarm = asyncio.Event()
        self._was_ready = {name: asyncio.Event() for name in self._parts}
        state.parts = [
            PartState(name=part.name, edge=part.edge, address=part.address, ports=dict(part.ports))
            for part in self._parts.values()
        ]

    async def run(self, stop: asyncio.Event) -> None:
        # Loopback needs no proxy.
        async with (
            httpx.AsyncClient(timeout=probes.SECONDS, trust_env=False) as http,
            asyncio.TaskGroup() as group,
        ):
            others = [
                group.create_task(self._tell(), name="state file"),
                group.create_task(self._bound_logs(), name="logs"),
            ]
            running = {
                name: group.create_task(self._keep(part, http), name=name)
                for name, part in self._parts.items()
            }
            self._dirty.set()
            await stop.wait()
            for wave in reversed(waves(list(self._parts.values()))):
                await _cancel([running[part.name] for part in wave])
            await _cancel(others)
        self._on_change(self._state)
        await asyncio.to_thread(write_state, self._state)

    async def _keep(self, part: PlannedPart, http: httpx.AsyncClient) -> None:
        """Keep one part running, from when the parts that it needs are ready until cancelled."""
        state = self._state.part(part.name)
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        try:
            for need in part.after:
                await self._was_ready[need].wait()
            while True:
                began = loop.time()
                reason = await self._run_once(part, state, http)
                pause = FIRST_PAUSE if loop.time() - began > LONG_UP else pause
                last = await asyncio.to_thread(logs.tail, part.log, 1)
                self._set(
                    state,
                    Phase.DOWN,
                    pid=None,
                    restarts=state.restarts + 1,
                    last_exit=reason,
                    last_line=last[0] if last else "",
                    detail=f"{reason}; starts again in {pause:.1f} s",
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            self._set(state, Phase.STOPPED, pid=None, detail="")

    async def _run_once(self, part: PlannedPart, state: PartState, http: httpx.AsyncClient) -> str:
        """Start a part and wait for its end, of which the reason is returned; ended if cancelled."""
        try:
            process = await processes.spawn(part)
        except OSError as exc:
            return f"cannot be started: {exc}"
        identity = Identity.of(process.pid)
        self._set(state, Phase.STARTING, pid=process.pid, born=identity.born if identity else None, detail="")
        watch = asyncio.create_task(self._watch(part, state, http), name=f"watch {part.name}")
        try:
            return exit_reason(await process.wait())
        finally:
            await _cancel([watch])
            if process.returncode is None:
                self._set(state, Phase.STOPPING, detail="")
                await _end(process, part.row.grace)
            await asyncio.to_thread(processes.kill_session, process.pid, self._state.home)
            await asyncio.to_thread(processes.tidy, part)

    async def _watch(self, part: PlannedPart, state: PartState, http: httpx.AsyncClient) -> None:
        """Ask a part whether it is ready, again and again."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + part.row.deadline
        misses = 0
        quiet_since = loop.time()
        while True:
            try:
                await probes.ask(http, part.probe, part.buckets)
            except NotReady as exc:
                misses += 1
                cut_off = bool(exc.checks) and exc.checks <= part.does_without
                if not cut_off and state.phase not in (Phase.READY, Phase.UNREADY, Phase.CUT_OFF):
                    self._set(
                        state, Phase.STARTING if loop.time() < deadline else Phase.LATE, detail=str(exc)
                    )
                elif misses > 1:  # one slow answer of a busy machine, or of a link, is no news
                    self._set(state, Phase.CUT_OFF if cut_off else Phase.UNREADY, detail=str(exc))
                    self._was_ready[part.name].set()
            else:
                misses = 0
                self._set(state, Phase.READY, detail="")
                self._was_ready[part.name].set()
            # Twenty parts that are asked all the time start later for it.
            again = min(ASK_AGAIN * 1.1**misses, ASK_SELDOM)
            if state.phase is not Phase.READY:
                quiet_since = loop.time()
                await asyncio.sleep(again)
                continue
            quiet = loop.time() - quiet_since
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(WATCH, quiet / 4), WATCH_SELDOM)):
                    await self._alarm.wait()
                    quiet_since = loop.time()

    def _set(self, state: PartState, phase: Phase, **facts: Any) -> None:
        if state.phase is phase and all(getattr(state, name) == value for name, value in facts.items()):
            return
        if state.phase is not phase:
            state.since = datetime.now(UTC)
            if phase in (Phase.DOWN, Phase.UNREADY, Phase.CUT_OFF):
                # Other parts are about to feel what has become of this one.
                alarm, self._alarm = self._alarm, asyncio.Event()
                alarm.set()
        state.phase = phase
        for name, value in facts.items():
            setattr(state, name, value)
        self._dirty.set()

    async def _tell(self) -> None:
        """Tell the display every second and at each change; write the state file at each change."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(DISPLAY):
                    await self._dirty.wait()
            self._on_change(self._state)
            if self._dirty.is_set():
                self._dirty.clear()
                await asyncio.to_thread(write_state, self._state.model_copy(deep=True))

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.to_thread(self._bound_all)
            await asyncio.sleep(LOG_CHECK)

    def _bound_all(self) -> None:
        for part in self._parts.values():
            logs.bound(part.log)


class _SetAtEnd(asyncio.Protocol):
    """Sets an event when the other end of a pipe is gone."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the name is asyncio's
        self._event.set()


def waves(parts: Sequence[PlannedPart]) -> list[list[PlannedPart]]:
    """Group parts so that each wave needs only the waves before it. `parts` is in a valid order to start."""
    depth: dict[str, int] = {}
    for part in parts:
        depth[part.name] = 1 + max((depth[need] for need in part.after), default=-1)
    return [[part for part in parts if depth[part.name] == level] for level in range(max(depth.values()) + 1)]


def exit_reason(code: int) -> str:
    """Say how a process ended: `exit code 1`, `killed by SIGKILL`."""
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            continue
        return


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _born() -> float:
    me = Identity.of(os.getpid())
    return me.born if me else 0.0
