"""What an edge's parent runs: an edge as the table plans it, prepared, and each part as a Python program."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local_stack.engines.choice import EMBEDDED
from local_stack.errors import StackError
from local_stack.plan import USUAL, Plan, PlannedPart
from local_stack.ports import HeldPorts, plan_ports
from local_stack.settings import StackSettings

PASSED_ON = ("S3_CENTRAL_ENDPOINT", "KAFKA_BOOTSTRAP_SERVERS", "FEEDER_URL", "MQTT_WS_URL")
"""How central is reached, and the broker by browsers; where these are not set, it is on loopback."""

SMALL = USUAL | {"segments": "5", "captured_mib": "8192"}
"""A broker that remembers less of each topic, and a disk that a week's images do not fill."""
CHOSEN = {"HOST": "host", "CAPTURED_MIB": "captured_mib"}
"""The settings by which these words are chosen."""


@dataclass(frozen=True, slots=True)
class Program:
    """A Python module that is run as a program: its arguments, its whole environment and its folder."""

    name: str
    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: Path | None


def planned(settings: StackSettings, environment: Mapping[str, str], held: HeldPorts) -> list[Program]:
    """Prepare all that an edge's programs expect, and return these, in the order in which they start.

    Raises:
        StackError: if one is no Python program, a port is in use, or a certificate is missing.

    """
    settings.prepare()
    words = SMALL | {word: environment[name] for name, word in CHOSEN.items() if environment.get(name)}
    if not words["captured_mib"].isdecimal():
        raise StackError(f"CAPTURED_MIB: {words['captured_mib']!r} is no number of MiB")
    parts = Plan(settings, plan_ports(settings, take=held.take), words).parts.values()
    programs = [_program(part, environment) for part in parts]
    for part in parts:
        _prepare(part)
    return programs


def _program(part: PlannedPart, environment: Mapping[str, str]) -> Program:
    interpreter, option, *words = part.command
    if (interpreter, option) != (sys.executable, "-m"):
        raise StackError(
            f"{part.name} is no Python program: an edge in one place takes S3=files and {EMBEDDED} MQTT"
        )
    passed_on = {
        name: environment[name] for name in PASSED_ON if environment.get(name) and name in part.row.env
    }
    return Program(part.name, words[0], words[1:], {**part.environment, **passed_on}, part.folder)


def _prepare(part: PlannedPart) -> None:
    for folder in (part.data, *part.folders):
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in part.files:
        path.write_text(text)
    for bucket in part.buckets:
        (part.data / "objects" / bucket).mkdir(parents=True, exist_ok=True)
