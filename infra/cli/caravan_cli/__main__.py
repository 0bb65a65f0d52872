"""The operator's commands: `python -m caravan --help`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from caravan import rollouts, s3
from caravan.account import read_account
from caravan.concurrency import run
from caravan.contracts import (
    DATA,
    DEFAULT_MODEL,
    IMAGES,
    REJECTED,
    TRIGGER,
    UNCLASSIFIED,
    VALID,
    class_of,
    data_bucket,
    models_bucket,
    ready_bucket,
)
from caravan.errors import CaravanError
from caravan.groups import learners, sources
from caravan.names import is_sha256
from caravan.receipts import Account
from caravan.rollout import Order, Rollout
from caravan.settings import KafkaSettings, S3Address, load
from caravan.telemetry import configure_logging
from caravan_cli.keys import signing
from caravan_cli.settings import (
    AccountSettings,
    EdgeAtCentral,
    EdgesAtCentral,
    OriginSettings,
    WithdrawSettings,
)

FEW = 3
"""Contents that are named one by one."""

commands = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Look after a running Caravan. Addresses and credentials come from the same environment variables "
    "as the services'.",
)


def _as_kept(what: str) -> str:
    """Return a SHA-256 in lower case, as `Get-FileHash` of Windows does not write it; all else as it is."""
    return what.lower() if is_sha256(what.lower()) else what


@commands.callback()
def start() -> None:
    """Look after a running Caravan."""
    configure_logging("WARNING", "console")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every terminal has all that names and lines are made of.
        sys.stdout.reconfigure(errors="replace")


@commands.command("account")
def print_account() -> None:
    """Account for every image of one edge (EDGE), and exit with 1 if it does not add up.

    captured = stored + duplicate + rejected + pending + withdrawn, and the
    bucket holds just that content.
    """
    settings = load(AccountSettings)
    _one_edge(settings)
    with _plainly():
        account, at_the_edge = run(_both_sides(settings))
    tell_account(Console(), settings.edge, account, at_the_edge)
    raise typer.Exit(0 if account.adds_up else 1)


def tell_account(console: Console, edge: str, account: Account, at_the_edge: Table) -> None:
    """Print an account: both sides, then every key that is at fault, and whether it adds up."""
    table = Table("at central", "images", title=f"{edge}: every image of every upload")
    for name in ("captured", "stored", "duplicates", "rejected", "pending", "withdrawn"):
        table.add_row(name, str(getattr(account, name)))
    console.print(table)
    console.print(at_the_edge)
    for what, keys in account.faults.items():
        for key in keys:
            console.print(f"{what}: {key}", style="red", highlight=False, markup=False, soft_wrap=True)
    console.print("It adds up." if account.adds_up else "It does not add up.")


@commands.command("withdraw")
def withdraw_images(
    what: Annotated[
        str,
        typer.Argument(
            callback=_as_kept,
            help="An image by its key, images/<class>/<file>, or the SHA-256 of its content; "
            "or a batch by the id that the feeder answered.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why; kept with the tombstones.")] = "",
    label_only: Annotated[
        bool,
        typer.Option(
            "--label-only", help="From the class alone that it was given: it may come again under another."
        ),
    ] = False,
) -> None:
    """Take an image or a batch out of the data of EDGE for good: for privacy, or for wrong labels.

    EDGE is an edge, or a group of them (EDGE_GROUPS): then it is taken out at
    each that knows it.

    It is removed wherever it lies, training forgets it and is triggered without
    it, and who sends it again is told that it is withdrawn. The account counts
    it as withdrawn. Of a batch, what another one brought under the same class
    too stays, and is named. Models that were trained on it stay in E-models:
    see `which`. Where less than two classes are left there is nothing to
    train: the last version goes on serving.
    """
    from caravan_cli.withdraw import withdraw_everywhere  # noqa: PLC0415

    settings = load(WithdrawSettings)
    stores = [s3.open_bucket(settings.central, data_bucket(edge)) for edge in settings.members]

    with _plainly():
        done = run(withdraw_everywhere(stores, what, reason=reason, label_only=label_only))
    for key in done.removed:
        typer.echo(f"removed {key}")
    for kept in done.kept:
        typer.echo(f"stays, as another batch brought it too: {kept}")
    count = len(done.contents)
    typer.echo(f"withdrawn: {(', '.join(done.contents) or 'nothing') if count <= FEW else f'{count} images'}")
    if not done.contents:
        return
    try:
        run(_ask_for_training(settings, "withdrawn", count))
    except CaravanError as exc:
        typer.echo(f"training is not triggered, give the command again: {exc}", err=True)
        raise typer.Exit(1) from exc
    with _plainly():
        run(_tell_what_cannot_be_trained(settings))


@commands.command("which")
def print_which(
    image: Annotated[
        str,
        typer.Argument(
            callback=_as_kept, help="The SHA-256 of its content, or its key, images/<class>/<file>."
        ),
    ],
) -> None:
    """Name every version of every edge (EDGES) and group (EDGE_GROUPS) that saw an image; 1 if none did.

    Also for an image that was withdrawn. Versions that do not say what they
    were made of are named, too.
    """
    from caravan_cli.which import Seen, Unknown, which  # noqa: PLC0415
    from caravan_cli.withdraw import contents_at  # noqa: PLC0415

    settings = load(EdgesAtCentral)
    is_content = is_sha256(image)
    if not is_content and not class_of(image):
        raise typer.BadParameter(
            f"neither a SHA-256 (64 digits in hex) nor a key, {IMAGES}<class>/<file>: {image}"
        )

    async def ask(owner: str) -> tuple[list[Seen], list[Unknown]]:
        names = models_bucket(owner), ready_bucket(owner)
        models, ready = (s3.open_bucket(settings.central, name) for name in names)
        contents = {image} if is_content else set[str]()
        for edge in () if is_content else sources(owner, settings.edge_groups, settings.edge_products):
            contents |= await contents_at(s3.open_bucket(settings.central, data_bucket(edge)), image)
        return await which(models, ready, contents)

    table = Table("edge", "model", "version", "image", "class", "serves")
    doubts = []
    for edge in (*settings.edges, *settings.edge_groups):
        with _plainly():
            seen, unknown = run(ask(edge))
        for one in seen:
            serves = "yes" if one.serves else ""
            table.add_row(edge, one.model, str(one.version), one.role, one.item, serves)
        doubts += [f"{edge}: version {one.version} of {one.model}: {one.why}" for one in unknown]
    if table.row_count:
        Console().print(table)
    else:
        typer.echo("No version says that it saw this image.")
    for doubt in doubts:
        typer.echo(f"not known: {doubt}", err=True)
    raise typer.Exit(0 if table.row_count else 1)


quarantined = typer.Typer(
    help="Batches of one edge (EDGE) that are not learnt from: the version that serves contradicts them."
)
commands.add_typer(quarantined, name="quarantine")
commands.add_typer(signing, name="keys")


@quarantined.callback(invoke_without_command=True)
def list_quarantine(context: typer.Context) -> None:
    """List the batches of EDGE, an edge or a group of them, that wait for a person, and why."""
    from caravan.quarantine import read_waiting  # noqa: PLC0415

    if context.invoked_subcommand is not None:
        return
    settings = load(EdgeAtCentral)
    found = 0
    for edge in settings.members:
        with _plainly():
            held = run(read_waiting(s3.open_bucket(settings.central, data_bucket(edge))))
        where = "" if edge == settings.edge else f"{edge}  "
        for each in held:
            typer.echo(f"{where}{each.batch}  since {each.at}  {len(each.images)} images: {each.reason}")
        found += len(held)
    if not found:
        typer.echo(f"nothing of {settings.edge} is in quarantine")


@quarantined.command("show")
def show_quarantined(
    batch: Annotated[str, typer.Argument(help="Its id, as the list has it.")],
    out: Annotated[Path, typer.Option(help="Folder to write it into.", file_okay=False)] = Path(
        ".caravan/reports"
    ),
) -> None:
    """Write a page with pictures of a batch to a file, and print its path."""
    from caravan.quarantine import read_page  # noqa: PLC0415

    settings = load(EdgeAtCentral)
    store = s3.open_bucket(settings.central, data_bucket(_one_edge(settings)))
    with _plainly():
        page = run(read_page(store, batch))
    _write(out / f"{settings.edge}-quarantine-{batch}.html", page)


@quarantined.command("release")
def release_quarantined(
    batch: Annotated[str, typer.Argument(help="Its id, as the list has it.")],
) -> None:
    """Say that the labels of a batch are right: it is learnt from, and training is asked for."""
    from caravan.quarantine import release_batch  # noqa: PLC0415

    settings = load(WithdrawSettings)
    store = s3.open_bucket(settings.central, data_bucket(_one_edge(settings)))

    async def release() -> int:
        released = await release_batch(store, batch)
        await _ask_for_training(settings, "released", len(released.images))
        return len(released.images)

    with _plainly():
        images = run(release())
    typer.echo(f"released: {images} images of {batch} are learnt from; training is asked for")


rolled_out = typer.Typer(help="How far a version has come at the edges of a group (EDGE), ring by ring.")
commands.add_typer(rolled_out, name="rollout")
Model = Annotated[str, typer.Option(help="Name of the model.")]
Why = Annotated[str, typer.Option(help="Why; kept with the rollout.")]


@rolled_out.callback(invoke_without_command=True)
def show_rollout(context: typer.Context, model: Model = DEFAULT_MODEL) -> None:
    """Show the rollout of a model at the group EDGE, or that of EDGE: where it is, since when, and why."""
    if context.invoked_subcommand is not None:
        return
    settings = load(EdgeAtCentral)
    with _plainly():
        store = s3.open_bucket(settings.central, models_bucket(settings.owner))
        found, _ = run(rollouts.read(store, model))
    if found is None:
        typer.echo(f"there is no rollout of {model} at {settings.owner}")
        return
    _tell_rollout(settings, found)


@rolled_out.command("hold")
def hold_rollout(model: Model = DEFAULT_MODEL, reason: Why = "") -> None:
    """Let the version go to no further ring until `promote`; if it does badly, it is stopped all the same."""
    _order_rollout("hold", model, reason)


@rolled_out.command("promote")
def promote_rollout(model: Model = DEFAULT_MODEL, reason: Why = "") -> None:
    """Let the version go to the next ring now, whatever the edges have said of it."""
    _order_rollout("promote", model, reason)


@rolled_out.command("stop")
def stop_rollout(model: Model = DEFAULT_MODEL, reason: Why = "") -> None:
    """Give every edge that has the version the one before again; also after it went to all of them."""
    _order_rollout("stop", model, reason)


def _order_rollout(what: Order, model: str, reason: str) -> None:
    settings = load(WithdrawSettings)
    store = s3.open_bucket(settings.central, models_bucket(settings.owner))
    edges = settings.sharers

    async def order() -> Rollout:
        ordered = await rollouts.order(store, model, what, edges, reason)
        await _ask_for_training(settings, "rollout", what)
        return ordered

    with _plainly():
        ordered = run(order())
    _tell_rollout(settings, ordered)


def _tell_rollout(settings: EdgeAtCentral, found: Rollout) -> None:
    edges = settings.sharers
    reached = found.reaches(edges)
    typer.echo(
        f"version {found.version} of {settings.owner} is {found.state} since {found.since}: {found.why}"
    )
    typer.echo(f"ring {found.ring} of {found.count} ({found.rings}), {len(reached)} of {len(edges)} edges")
    if found.before:
        typer.echo(f"the version before is {found.before}")
    if found.numbers:
        typer.echo(", ".join(f"{name} {count}" for name, count in found.numbers.items()))
    if found.differing:
        typer.echo("both versions were sure, and differed; the dashboard shows the pictures of")
    for each in found.differing:
        reviewed = f"; reviewed: {each.reviewed}" if each.reviewed else ""
        typer.echo(
            f"  {each.edge} {each.image}: version {found.version} said {each.item} ({each.score:.2f}), "
            f"version {found.before} {each.beside_item} ({each.beside_score:.2f}){reviewed}"
        )
        typer.echo(f"    hub/uncertain/{each.id}.jpg")


@commands.command("replay")
def print_replay(topic: str = typer.Argument(help="The topic to send them to again, e.g. trigger")) -> None:
    """Send the dead letters of a topic on their way again, as they first came; 1 if some are left."""
    from caravan.replay import replay  # noqa: PLC0415

    with _plainly():
        sent = run(replay(load(KafkaSettings), topic))
    typer.echo(f"{sent} messages sent to {topic} again")


@commands.command("report")
def write_report(
    model: Annotated[str, typer.Argument(help="Name of the model.")] = DEFAULT_MODEL,
    version: Annotated[str, typer.Option(help="Number of the version, or `latest`.")] = "latest",
    out: Annotated[Path, typer.Option(help="Folder to write it into.", file_okay=False)] = Path(
        ".caravan/reports"
    ),
) -> None:
    """Write the training report of a version of EDGE, an edge or a group, to a file, and print its path."""
    from caravan.holds import read_hold  # noqa: PLC0415
    from caravan.reports import Reports  # noqa: PLC0415

    settings = load(EdgeAtCentral)
    store = s3.open_bucket(settings.central, models_bucket(settings.edge))
    with _plainly():
        found = run(Reports(store).read_report(model, version))
        held = run(read_hold(store, model))
    _write(out / f"{settings.edge}-{found.model}-{found.version}.html", found.content)
    if held is not None:
        typer.echo(f"{model} is {held.reason}", err=True)
    if settings.owner != settings.edge:
        typer.echo(f"{settings.edge} shares its model now: EDGE={settings.owner} has the reports", err=True)


@commands.command("origin")
def print_origin(
    model: Annotated[str, typer.Argument(help="Name of the model.")] = DEFAULT_MODEL,
    version: Annotated[
        int | None, typer.Option(help="Number of the version; by default the newest.", min=1)
    ] = None,
) -> None:
    """Tell where a version of EDGE, an edge or a group, comes from, and who vouches for that.

    PUBLIC_KEY is the PEM file whose keys are believed, as an edge's is; 1 if
    the version's signature is by none of them, or contradicts its manifest.
    """
    from caravan_cli.origin import read_origin  # noqa: PLC0415

    settings = load(OriginSettings)
    store = s3.open_bucket(settings.central, models_bucket(settings.edge))
    with _plainly():
        origin = run(read_origin(store, model, version, settings.public_key))
    table = Table(title=f"{model} of {settings.edge}, version {origin.version}", show_header=False)
    for name, fact in origin.facts():
        table.add_row(name, fact)
    Console().print(table)


@commands.command("trace")
def print_trace(
    trace: Annotated[str, typer.Argument(help="Its id, or the beginning of it.")] = "",
    upload: Annotated[str, typer.Option(help="The `batch` of an upload's answer, or its beginning.")] = "",
    newest: Annotated[
        bool, typer.Option("--last", help="The last one; so it is where nothing is said.")
    ] = True,
) -> None:
    """Draw what one upload or detection did in all services, out of the local stack's span files.

    They are in `traces/` of CARAVAN_HOME (.caravan), where services run with
    TRACES=file, as the stack's do.
    """
    from caravan_cli import trace_files, trace_view  # noqa: PLC0415

    del newest
    folder = Path(os.environ.get("CARAVAN_HOME") or ".caravan", "traces")
    traces = trace_files.read_traces(folder).values()
    if trace:
        found = trace_files.of_id(traces, trace)
    elif upload:
        found = trace_files.of_upload(traces, upload)
    else:
        found = trace_files.last(traces)
    if found is None:
        nothing = f"there are no traces in {folder}: start a stack here (make start), and send it something"
        typer.echo(f"no such trace in {folder}, out of {len(traces)}" if traces else nothing, err=True)
        raise typer.Exit(1)
    console = Console()
    console.print(trace_view.draw(found, console.width, trace_files.going_on(traces, found)))


async def _ask_for_training(settings: WithdrawSettings, why: str, what: int | str) -> None:
    from caravan.kafka import Producer  # noqa: PLC0415

    async with Producer(settings) as producer:
        edge = settings.edge.encode()
        await producer.send(TRIGGER, edge, key=edge, headers={why: str(what)})


async def _tell_what_cannot_be_trained(settings: WithdrawSettings) -> None:
    """Tell whose last version goes on serving, as there are no images for one without what was withdrawn."""
    from caravan_cli.withdraw import classes_left  # noqa: PLC0415

    groups, products = settings.edge_groups, settings.edge_products
    for owner in learners(settings.edge, groups, products):
        left = await classes_left(
            (s3.open_bucket(settings.central, data_bucket(edge)), others)
            for edge, others in sources(owner, groups, products).items()
        )
        if len(left) < 2:  # noqa: PLR2004 - a model tells apart
            what = f"only images of {', '.join(left)} are" if left else "no image is"
            typer.echo(f"{what} left for {owner} to train on: its last version goes on serving as it is")


def _one_edge(settings: EdgeAtCentral) -> str:
    if settings.edge in settings.edge_groups:
        edges = ", ".join(settings.members)
        raise typer.BadParameter(f"{settings.edge} is a group: set EDGE to one of {edges}")
    return settings.edge


@contextmanager
def _plainly() -> Iterator[None]:
    """End with one line that says what failed, not with a trace."""
    try:
        yield
    except (CaravanError, OSError) as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(1) from exc


def _write(file: Path, page: bytes) -> None:
    """Write a page, and print its path."""
    with _plainly():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(page)
    typer.echo(file.absolute())


async def _both_sides(settings: AccountSettings) -> tuple[Account, Table]:
    account = await read_account(s3.open_bucket(settings.central, data_bucket(settings.edge)))
    return account, await _edge_table(settings)


async def _edge_table(settings: AccountSettings) -> Table:
    table = Table("at the edge", "images")
    meanings = {
        (DATA, IMAGES): "taught, pending until pushed",
        (DATA, f"{REJECTED}{IMAGES}"): "pushed, and rejected at central",
        (VALID, IMAGES): "detected and known",
        (UNCLASSIFIED, IMAGES): "detected and unknown",
        (UNCLASSIFIED, f"{REJECTED}{IMAGES}"): "reviewed, and no product",
    }
    for (bucket, prefix), meaning in meanings.items():
        table.add_row(meaning, await _count(settings.edge_s3, bucket, prefix))
    return table


async def _count(address: S3Address, bucket: str, prefix: str) -> str:
    try:
        return str(await s3.count(s3.open_bucket(address, bucket), prefix))
    except (CaravanError, FileNotFoundError):
        return "out of reach"


if __name__ == "__main__":
    commands(prog_name="python -m caravan")
