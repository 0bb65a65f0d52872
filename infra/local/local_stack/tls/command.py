"""What a user types: `python -m local_stack certs` and `python -m local_stack tls-door`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from caravan.telemetry import configure_logging
from local_stack.errors import StackError
from local_stack.settings import StackSettings
from local_stack.tls.certificates import Certificate, ensure
from local_stack.tls.door import MOST_CONNECTIONS, Address, Door, server_context
from local_stack.tls.names import CLIENT

console = Console()
failures = Console(stderr=True)


def certs(
    out: Annotated[
        Path | None, typer.Option(help="Folder; CERTS_DIR, or certs/ in CARAVAN_HOME, by default.")
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="A further name or address of the server; may be repeated.")
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option(help="A further client, by name; may be repeated.")
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Make all of them anew, the authority too.")] = False,
) -> None:
    """Make certificates for MQTT over TLS: an authority, the server's, and one for each client.

    What is there and good for a month or more stays. Keys can be read by
    their owner alone.

    [bold]Examples[/bold]

      python -m local_stack certs                       for this machine
      python -m local_stack certs --host shop.lan       the server's name too
      python -m local_stack certs --client till-3       a further client
    """
    try:
        folder = out.expanduser().absolute() if out else StackSettings.read(os.environ).certs
        made = ensure(folder, hosts=host or (), clients=(CLIENT, *(client or ())), force=force)
    except StackError as exc:
        _fail(exc)
    console.print(Text(f"In {folder}:"), soft_wrap=True)
    console.print(_table(made))
    for line in _next_steps(folder):
        console.print(Text(line), soft_wrap=True)


def _table(certificates: list[Certificate]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("certificate", "key", "until", ""):
        table.add_column(column, no_wrap=True)
    for one in certificates:
        state = Text("made", style="green") if one.made else Text("kept", style="dim")
        table.add_row(one.pem.name, one.key.name, f"{one.until:%Y-%m-%d}", state)
    return table


def _next_steps(folder: Path) -> list[str]:
    files = f"--cafile {folder}/ca.pem --cert {folder}/client.pem --key {folder}/client.key"
    return [
        "",
        "A stack that is started from now on opens MQTT with TLS beside the plain port; with",
        "MQTT_TLS=required its own services take that door too:",
        "",
        "  make stop; make start",
        "",
        "Then, with Mosquitto's clients (8883 is edge1's port, 8893 edge2's):",
        "",
        f"  mosquitto_sub -h localhost -p 8883 {files} -t 'response/detection/#' -v &",
        """  printf '{"image":"%s"}' "$(base64 -w0 photo.jpg)" |""",
        f"    mosquitto_pub -h localhost -p 8883 {files} -t detection/me -s",
        "",
        "Any service reaches any broker with TLS by the same settings:",
        "",
        f"  MQTT_HOST=localhost MQTT_PORT=8883 MQTT_TLS_CA={folder}/ca.pem",
        f"  MQTT_TLS_CERT={folder}/client.pem MQTT_TLS_KEY={folder}/client.key",
        "",
        f"A camera elsewhere needs ca.pem and a pair of its own. {folder}/ca.key signs new ones: keep it.",
    ]


def tls_door(
    listen: Annotated[str, typer.Option(help="Where clients come, host:port.")] = "127.0.0.1:8883",
    broker: Annotated[str, typer.Option(help="The plain broker behind it, host:port.")] = "127.0.0.1:1883",
    certs_dir: Annotated[
        Path | None,
        typer.Option("--certs", help="Folder with ca.pem, server.pem and server.key.", show_default=False),
    ] = None,
    most: Annotated[int, typer.Option(help="Connections at once.", min=1)] = MOST_CONNECTIONS,
    metrics_port: Annotated[
        int, typer.Option(help="Where Prometheus asks, on 127.0.0.1; 0 for nowhere.", min=0, max=65535)
    ] = 0,
) -> None:
    """Put TLS with client certificates in front of a plain MQTT broker, until Ctrl-C.

    The stack runs one at each edge once there are certificates.

    Who shows no certificate of ca.pem is refused, counted and logged with the
    reason.
    """
    configure_logging("INFO", "console")
    try:
        folder = certs_dir or StackSettings.read(os.environ).certs
        context = server_context(folder / "ca.pem", folder / "server.pem", folder / "server.key")
        door = Door(context, Address.parse(broker), most)
        where = Address.parse(listen)
        asyncio.run(_serve(door, where, metrics_port))
    except StackError as exc:
        _fail(exc)


async def _serve(door: Door, listen: Address, metrics_port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if metrics_port:
        from prometheus_client import start_http_server  # noqa: PLC0415  only where it is asked for

        try:
            start_http_server(metrics_port, "127.0.0.1")
        except OSError as exc:
            raise StackError(f"port {metrics_port} of the metrics: {exc.strerror}") from exc
    await door.serve(listen, stop)


def _fail(fault: StackError) -> NoReturn:
    failures.print(str(fault), style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1)
