"""The commands for people: up, start, stop, status, logs, clean, edge, certs."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from caravan.groups import parse_groups
from local_stack import display, logs
from local_stack.engines import choice
from local_stack.errors import StackError, StartFailed
from local_stack.launch import clean as clean_home
from local_stack.launch import launch, part_log, supervisor_log
from local_stack.launch import stop as stop_home
from local_stack.plan import Plan, PlannedPart, traces_of
from local_stack.settings import DEMO, StackSettings
from local_stack.small_edge.command import edge
from local_stack.state import Phase, StackState, read_state
from local_stack.supervisor import supervise
from local_stack.tls.command import certs, tls_door

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="""Caravan whole on one machine: stores, brokers, model server and services under one supervisor.

    [bold]Examples[/bold]

      python -m local_stack up                      watch it; Ctrl-C stops it all
      python -m local_stack start                   the same in the background
      EDGES="edge1 edge2" python -m local_stack up  two edges, 10 ports apart
      PARTS="kafka mqtt" python -m local_stack up   some parts, and what they need

    [bold]Settings[/bold] (environment)

      CARAVAN_HOME  folder of data, logs and state (default .caravan)
      EDGES         ids of the edges (default edge1)
      EDGE_GROUPS   which of them share a model: north=edge1,edge2
      EDGE_PRODUCTS products that one of those has for itself: edge1=chai
      SITE          "both" sides here (default), or only "central", or only "edge"
      PORTS         "fixed" (default) or "free": any free port
      MQTT_TLS      "on": a door with TLS beside the plain one (the default
                    after `certs`, else "off"); "required": the services take it
      CERTS_DIR     its certificates (default certs/ in CARAVAN_HOME)
      S3_CENTRAL_PORT 9000  KAFKA_PORT 9092  FEEDER_PORT 8081
      DELIVERY_PORT 8082  TRAINING_PORT 8085  HUB_PORT 8086
      S3_EDGE_PORT 9100  MQTT_PORT 1883  MQTT5_PORT 1884
      MQTT_TLS_PORT 8883  MQTT_WS_PORT 9001
      TFSERVING_GRPC_PORT 8500  TFSERVING_REST_PORT 8501
      SHOPPER_PORT 8080  EDGE_MANAGER_PORT 8083  MONITOR_PORT 8084

    Any setting of a service (SCORE_ACCURACY, LOG_LEVEL, …) given here reaches
    it.

    What the stack is tried out with (demo, cameras, data sets) is
    `python -m lab`.
    """,
)
app.command()(edge)
app.command()(certs)
app.command()(tls_door)
WHAT_RUNS = ("EDGES", "EDGE_GROUPS", "EDGE_PRODUCTS", "SITE", "PARTS", "MQTT_TLS", *choice.ENGINES)
"""Settings that a stack which runs already must have been started with, too."""
OF_ONE_PART = {"PORT"}
"""Settings that differ from part to part, and so are none of an operator's command."""

console = Console()
failures = Console(stderr=True)


@app.command()
def up() -> None:
    """Run the stack here, with a live table, until Ctrl-C."""
    settings = _settings()
    try:
        if console.is_terminal:
            _watch_live(settings)
        else:
            _watch_plain(settings)
    except StackError as exc:
        _fail(exc)


def _watch_live(settings: StackSettings) -> None:
    with Live(console=console, auto_refresh=False) as live:

        def draw(state: StackState) -> None:
            parts = [display.status(state)]
            if state.ready:
                parts += [
                    Text("\nEverything is ready. Ctrl-C stops it.", style="bold green"),
                    display.addresses(state),
                ]
            live.update(Group(*parts), refresh=True)

        asyncio.run(supervise(settings, on_change=draw))


def _watch_plain(settings: StackSettings) -> None:
    told: dict[str, str] = {}

    def tell(state: StackState) -> None:
        for part in state.parts:
            line = display.change(part)
            if told.get(part.name) != line:
                told[part.name] = line
                print(line, flush=True)
        if state.ready and "everything" not in told:
            told["everything"] = "ready"
            console.print(display.addresses(state))

    asyncio.run(supervise(settings, on_change=tell))


def _refuse_another(old: StackState, settings: StackSettings) -> None:
    """End with a word on what the running stack was started with, if something else is asked for."""
    has, asked = old.settings.environment(), settings.environment()
    for name in WHAT_RUNS:
        if has[name] != asked[name]:
            _fail(StackError(f"it is running with {name}={has[name]!r}, not {asked[name]!r}: stop it first"))


@app.command()
def start() -> None:
    """Start the stack in the background and wait until everything is ready.

    Exit code 0 only if everything is; else it says which part is not and why,
    and nothing is left running.
    """
    settings = _settings()
    old = _state(settings.home)
    if old is not None and old.running:
        _refuse_another(old, settings)
        _parts(old)
        console.print("It is already running.")
        console.print(display.addresses(old))
        return
    with display.progress(console) as progress:
        task = progress.add_task("Starting", total=None)

        def advance(state: StackState) -> None:
            waiting = [part.name for part in state.parts if part.phase is not Phase.READY]
            what = f"Waiting for {waiting[0]}" if waiting else "Starting"
            done = len(state.parts) - len(waiting)
            progress.update(task, total=len(state.parts) or None, completed=done, description=what)

        try:
            launched = asyncio.run(launch(settings, on_change=advance))
        except StackError as exc:
            progress.stop()
            _fail(exc)
        except KeyboardInterrupt:
            progress.stop()
            _fail(StackError("interrupted: everything is stopped again"))
    _tell_started(launched.state)


def _tell_started(state: StackState) -> None:
    if state.ready:
        console.print("[bold green]Everything is ready.[/bold green]")
    else:
        console.print("[bold green]Everything here runs.[/bold green] Central is out of reach so far.")
        for part, ports in state.settings.across.items():
            for port in ports.values():
                console.print(f"The link should show {part} at 127.0.0.1:{port}", highlight=False)
    console.print(display.addresses(state))


@app.command()
def stop() -> None:
    """Stop the stack; what it stored stays."""
    home = _settings().home
    with console.status("Stopping"):
        ran = asyncio.run(stop_home(home))
    console.print("Stopped." if ran else "Nothing was running.")


@app.command()
def status(*, json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Show every part; exit code 0 only if everything is ready."""
    home = _settings().home
    state = _state(home)
    if json:
        facts = {"running": False, "ready": False} if state is None else _facts(state)
        console.print_json(data=facts)
    elif state is None or not state.running:
        console.print(f"Nothing is running in {home}.")
        if state is not None and state.failure:
            console.print(f"The last start failed: {state.failure}", style="red", highlight=False)
    else:
        console.print(display.status(state))
    raise typer.Exit(0 if state is not None and state.ready else 1)


def _facts(state: StackState) -> dict[str, object]:
    return {"running": state.running, "ready": state.ready, **state.model_dump(mode="json")}


@app.command("logs")
def show_log(
    part: Annotated[str, typer.Argument(help="A part as `status` names it, or 'supervisor'.")],
    lines: Annotated[int, typer.Option("-n", "--lines", help="How many lines, from the end.")] = 100,
) -> None:
    """Print the end of a part's log."""
    home = _settings().home
    log = supervisor_log(home) if part == "supervisor" else part_log(home, part)
    if not log.is_file():
        known = ", ".join(sorted(path.stem for path in log.parent.glob("*.log"))) or "none yet"
        _fail(StackError(f"there is no log of {part!r}; there are: {known}"))
    with suppress(BrokenPipeError):
        print("\n".join(logs.tail(log, lines)))


def _parts(state: StackState) -> dict[str, PlannedPart]:
    """Return the parts of what runs; an error unless they are those that would run now."""
    try:
        return Plan(state.settings, state.ports).parts
    except KeyError as exc:
        _fail(
            StackError(
                f"what runs in {state.home} is of another build, which has no {exc.args[0]}: stop it first"
            )
        )


@app.command("exec")
def execute(
    command: Annotated[list[str], typer.Argument(help="The command; put -- before it.")],
    edge: Annotated[
        str, typer.Option(help="Whose addresses: an edge, the first by default, or a group.")
    ] = "",
) -> None:
    """Run a command with the addresses of the running stack in its environment.

    For example: python -m local_stack exec -- python -m caravan account
    """
    home = _settings().home
    state = _state(home)
    if state is None or not state.running:
        _fail(StackError(f"nothing is running in {home}: start it first"))
    groups = parse_groups(state.edge_groups)
    if edge and edge not in (*state.edges, *groups):
        _fail(StackError(f"there is no edge {edge!r}; there are: {', '.join((*state.edges, *groups))}"))
    parts = _parts(state)
    owner = edge or state.edges[0]
    edge = groups.get(owner, (owner,))[0]
    settings = {
        name: value
        for part in parts.values()
        if part.row.inherits and part.edge in (None, edge)
        for name, value in part.own_environment.items()
        if name not in OF_ONE_PART
    }
    environment = {**traces_of(home, "commands"), **os.environ, **settings, "EDGE": owner}
    words = [sys.executable if command[0] == "python" else command[0], *command[1:]]
    try:
        os.execvpe(words[0], words, environment)
    except OSError as exc:
        _fail(StackError(f"{words[0]}: {exc.strerror}"))


@app.command()
def clean() -> None:
    """Stop the stack and remove all that it stored."""
    home = _settings().home
    with console.status("Stopping and removing"):
        found = asyncio.run(clean_home(home / DEMO)) | asyncio.run(clean_home(home))
    console.print(f"Removed what was in {home}." if found else f"There was nothing in {home}.")


@app.command("supervise", hidden=True)
def supervise_only(
    *, until_eof: Annotated[bool, typer.Option("--until-eof", help="Stop when standard input ends.")] = False
) -> None:
    """Run the supervisor without showing anything: what `start` starts."""
    try:
        asyncio.run(supervise(_settings(), until_eof=until_eof))
    except StackError as exc:
        _fail(exc)


def _settings() -> StackSettings:
    try:
        return StackSettings.read(os.environ)
    except StackError as exc:
        _fail(exc)


def _state(home: Path) -> StackState | None:
    try:
        return read_state(home)
    except StackError as exc:
        _fail(exc)


def _fail(fault: StackError) -> NoReturn:
    failures.print(str(fault), style="red", highlight=False, markup=False, soft_wrap=True)
    if isinstance(fault, StartFailed) and fault.tail:
        failures.print(f"the end of the log of {fault.part or 'the supervisor'}:", style="bold")
        for line in fault.tail:
            failures.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1)
