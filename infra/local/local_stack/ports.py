"""Which port each part listens on: by default, by setting, or any that is free."""

from __future__ import annotations

import errno
import random
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from local_stack.errors import StackError
from local_stack.settings import HIGHEST_PORT, StackSettings

STEP = 10
"""How far the ports of one edge are from those of the next."""
_BELOW_EPHEMERAL = range(15_000, 32_000)
"""Free ports are taken here, where no outgoing connection gets in between the choice and the use."""

Ports = dict[str, dict[str, int]]
"""The ports of each planned part: `{"mqtt-edge1": {"mqtt": 1883, "websocket": 9001}}`."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    number: int
    part: str
    edge: str | None
    setting: str
    step: int

    def __str__(self) -> str:
        who = f"{self.part} of {self.edge}" if self.edge else self.part
        return f"{who}, {self.setting} + {self.step}" if self.step else who


def part_name(part: str, edge: str | None) -> str:
    """Name of a part as it runs: `feeder`, `shopper-edge1`."""
    return f"{part}-{edge}" if edge else part


def plan_ports(
    settings: StackSettings,
    blocked: Callable[[int], str] | None = None,
    take: Callable[[int], bool] = lambda _: True,
) -> Ports:
    """Choose a port for everything that the settings ask for, before anything starts.

    `blocked` tells why a port cannot be had, or "" where it can. Those that are free to choose `take` may
    still refuse: see `HeldPorts`.

    Raises:
        StackError: naming every port that is in use or wanted twice, and the setting to change.

    """
    blocked = blocked or why_blocked
    ports: Ports = {}
    fixed: list[_Wanted] = []
    free: list[tuple[str, str]] = []
    for part in settings.rows:
        for index, edge in enumerate(settings.edges if part.each_edge else (None,)):
            name = part_name(part.name, edge)
            ports[name] = {}
            for port_name, port in part.ports.items():
                if settings.free_ports or not port.setting:
                    free.append((name, port_name))
                    continue
                step = index * STEP
                number = (settings.chosen_ports or {}).get(port.setting, port.default) + step
                ports[name][port_name] = number
                fixed.append(_Wanted(number, part.name, edge, port.setting, step))
    faults = list(_faults(fixed, blocked))
    if faults:
        raise StackError("\n".join(faults))
    taken = {wanted.number for wanted in fixed}
    taken |= {number for doors in settings.across.values() for number in doors.values()}
    for name, port_name in free:
        ports[name][port_name] = _any_free(taken, blocked, take)
        taken.add(ports[name][port_name])
    return ports


def _faults(fixed: Iterable[_Wanted], blocked: Callable[[int], str]) -> Iterable[str]:
    by_number: defaultdict[int, list[_Wanted]] = defaultdict(list)
    for wanted in fixed:
        by_number[wanted.number].append(wanted)
    for number, all_wanted in by_number.items():
        first, *others = all_wanted
        if number > HIGHEST_PORT:
            yield f"port {number} ({first}) does not exist: set {first.setting} to a lower one"
        elif others:
            who = " and ".join(f"({wanted})" for wanted in all_wanted)
            yield f"port {number} is wanted by both {who}: set {others[-1].setting} to another"
        elif reason := blocked(number):
            yield f"port {number} ({first}) {reason}: set {first.setting} to another"


def why_blocked(number: int) -> str:
    """Tell why 127.0.0.1:number cannot be listened on, or "" if it can."""
    with socket.socket() as probe:
        # As servers do: a connection that is still closing does not block the port, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return "is in use"
            return f"cannot be used ({exc.strerror})"
    return ""


def _any_free(taken: set[int], blocked: Callable[[int], str], take: Callable[[int], bool]) -> int:
    for number in random.sample(_BELOW_EPHEMERAL, 1000):
        if number not in taken and not blocked(number) and take(number):
            return number
    raise StackError("no free port was found")


class HeldPorts:
    """Free ports that no other stack takes while this is open, nor while a part that has one starts again."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()

    def take(self, number: int) -> bool:
        """Bind a port without listening; False if anybody else has bound it.

        Whoever binds with SO_REUSEADDR, as servers do, may listen on it still; who chooses, here, does not.
        """
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", number))
        except OSError:
            holder.close()
            return False
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sockets.append(holder)
        return True
