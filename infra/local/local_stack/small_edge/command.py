"""`python -m local_stack edge`: plan an edge by the table, prepare its folders, and become the parent."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console

from local_stack.engines.choice import EMBEDDED
from local_stack.errors import StackError
from local_stack.plan import Plan, PlannedPart
from local_stack.ports import plan_ports
from local_stack.settings import StackSettings
from local_stack.small_edge.programs import Program, Programs

LINK = ("S3_CENTRAL_ENDPOINT", "KAFKA_BOOTSTRAP_SERVERS", "FEEDER_URL")
"""How central is reached; where these are not set, a link shows its doors on this machine's loopback."""
ALONE = {"model_server"}
"""It starts itself anew to hide its keys from what it runs, and ONNX Runtime has threads once imported."""
SPARING = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}
"""What bodies took goes back to the system at once, threads share memory, and no fork loses one."""


def edge() -> None:
    """Run an edge here in little memory, until Ctrl-C: store, broker, model server and services."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        settings = StackSettings.read({**os.environ, "SITE": "edge", "S3": os.environ.get("S3") or "files"})
        file = write(settings, os.environ)
    except StackError as exc:
        console.print(str(exc), style="red", markup=False)
        raise typer.Exit(1) from exc
    words = [sys.executable, "-m", "local_stack.small_edge.parent", str(file)]
    os.execve(words[0], words, {**os.environ, **SPARING})


def write(settings: StackSettings, environment: Mapping[str, str]) -> Path:
    """Prepare all that an edge's programs expect, and write down how they are run.

    Raises:
        StackError: if one is no Python program, a port is in use, or a certificate is missing.

    """
    settings.prepare()
    parts = Plan(settings, plan_ports(settings)).parts.values()
    programs = Programs(programs=[_program(part, environment) for part in parts])
    for part in parts:
        _prepare(part)
    file = settings.home / "run" / "edge.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(programs.model_dump_json())
    return file


def _program(part: PlannedPart, environment: Mapping[str, str]) -> Program:
    interpreter, option, *words = part.command
    if (interpreter, option) != (sys.executable, "-m"):
        raise StackError(
            f"{part.name} is no Python program: an edge in one place takes S3=files and {EMBEDDED} MQTT"
        )
    link = {name: environment[name] for name in LINK if environment.get(name) and name in part.row.env}
    return Program(
        name=part.name,
        module=words[0],
        arguments=words[1:],
        environment={**part.environment, **link},
        folder=part.folder,
        forked=words[0] not in ALONE,
    )


def _prepare(part: PlannedPart) -> None:
    for folder in (part.data, *part.folders):
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in part.files:
        path.write_text(text)
    for bucket in part.buckets:
        (part.data / "objects" / bucket).mkdir(parents=True, exist_ok=True)
