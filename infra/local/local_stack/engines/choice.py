"""Which engines a stack runs: by the variables KAFKA, MQTT and S3."""

from __future__ import annotations

from collections.abc import Mapping

from local_stack.engines.engine import Engine
from local_stack.engines.files import FILES
from local_stack.engines.kafka import APACHE
from local_stack.engines.mosquitto import MOSQUITTO
from local_stack.engines.versitygw import VERSITYGW
from local_stack.parts import PARTS, Part

EMBEDDED = "embedded"
ENGINES: Mapping[str, Mapping[str, Engine]] = {
    "KAFKA": {"apache": APACHE},
    "MQTT": {"mosquitto": MOSQUITTO},
    "S3": {"files": FILES, "versitygw": VERSITYGW},
}

Choice = Mapping[str, str]
"""The engine of each variable that is not embedded: `{"KAFKA": "apache"}`."""


def read(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return what is chosen, and the faults."""
    asked = {variable: environment.get(variable, "") or EMBEDDED for variable in ENGINES}
    chosen = {variable: name for variable, name in asked.items() if name != EMBEDDED}
    faults = [
        f"{variable}: {name!r} is none of {', '.join((EMBEDDED, *ENGINES[variable]))}"
        for variable, name in chosen.items()
        if name not in ENGINES[variable]
    ]
    return chosen, faults


def engines(choice: Choice) -> list[Engine]:
    """Return the engines chosen."""
    return [ENGINES[variable][name] for variable, name in choice.items()]


def table(choice: Choice) -> tuple[Part, ...]:
    """Return the table of parts with these engines in it."""
    parts = PARTS
    for engine in engines(choice):
        parts = tuple(row for part in parts if (row := engine.applied(part)) is not None)
    return parts


def programs(choice: Choice) -> dict[str, str]:
    """Return where the engines' programs are, by the names that commands have for them."""
    return {name: place for engine in engines(choice) for name, place in engine.found().items()}
