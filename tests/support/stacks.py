"""What tests do to a stack, and take from it, that no other program has a use for."""

from __future__ import annotations

import asyncio
import signal

from local_stack.plan import Plan
from local_stack.processes import END_SECONDS, Identity
from local_stack.stack import Stack


def environment_of(stack: Stack, part: str) -> dict[str, str]:
    """Return what the table sets in a part's environment: all the addresses that it needs."""
    return Plan(stack.settings, stack.state.ports).parts[part].own_environment


async def kill_everything(stack: Stack) -> None:
    """Send SIGKILL to the supervisor and every part at once, as a machine that loses its processes."""
    state = stack.state
    everything = [Identity(state.pid, state.born), *(p.identity for p in state.parts if p.identity)]
    for process in everything:
        process.signal(signal.SIGKILL)
    for process in everything:
        await asyncio.to_thread(process.wait, END_SECONDS)
