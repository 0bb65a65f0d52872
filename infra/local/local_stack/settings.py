"""What the user chooses: the folder, the edges, the ports, and perhaps only some parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, get_args

from caravan.contracts import edge_faults
from caravan.groups import group_faults, parse_groups, parse_products, product_faults
from local_stack.engines import choice
from local_stack.errors import StackError
from local_stack.parts import PARTS, Part
from local_stack.tls.names import complete

HIGHEST_PORT = 65535
DEMO = "demo"
"""The folder of the demo's own stack, within that of `make start`."""
Tls = Literal["off", "on", "required"]
"""MQTT with TLS: no door; a door beside the plain port; a door that the stack's services take too."""
Site = Literal["both", "central", "edge"]
"""Which side runs here. At an edge alone, a link puts central's doors on this machine's loopback."""


@dataclass(frozen=True, slots=True)
class StackSettings:
    """One stack.

    `home` is absolute. `only` names the rows of the table to run, with all that they need; empty: every row.
    `chosen_ports` holds the port settings that differ from the table's defaults; with `free_ports` every port
    is any free one. `certs_dir` holds the certificates of MQTT with TLS. `engines` are the programs in the
    place of embedded ones. `edge_groups` says which edges share a model, and `edge_products` what one
    has for itself, as services read it. At the site `edge`, central's ports are those chosen or the defaults,
    `free_ports` or not.
    """

    home: Path
    edges: tuple[str, ...] = ("edge1",)
    free_ports: bool = False
    only: tuple[str, ...] = ()
    chosen_ports: Mapping[str, int] | None = None
    tls: Tls = "off"
    certs_dir: Path | None = None
    engines: choice.Choice = field(default_factory=dict)
    site: Site = "both"
    edge_groups: str = ""
    edge_products: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read CARAVAN_HOME, EDGES, what they share, SITE, PORTS, PARTS, ports, MQTT_TLS, CERTS_DIR, engines.

        Raises:
            StackError: naming every fault.

        """
        faults: list[str] = []
        edges = _words(environment.get("EDGES", "")) or ("edge1",)
        faults += [f"EDGES: {fault}" for fault in edge_faults(edges)]
        if "central" in edges:
            faults.append("EDGES: 'central' is the name of the other side")
        groups = environment.get("EDGE_GROUPS", "")
        products = environment.get("EDGE_PRODUCTS", "")
        faults += _group_faults(groups, edges, products)
        only = _words(environment.get("PARTS", ""))
        known = [part.name for part in PARTS]
        faults += [
            f"PARTS: no part {name!r}; there are {', '.join(known)}" for name in only if name not in known
        ]
        ports = environment.get("PORTS", "") or "fixed"
        if ports not in ("fixed", "free"):
            faults.append(f"PORTS: {ports!r} is neither 'fixed' nor 'free'")
        chosen: dict[str, int] = {}
        for setting in port_settings():
            text = environment.get(setting, "")
            if text.isdecimal() and 0 < int(text) <= HIGHEST_PORT:
                chosen[setting] = int(text)
            elif text:
                faults.append(f"{setting}: {text!r} is not a port")
        home = _folder(environment, "CARAVAN_HOME", Path(".caravan"))
        certs = _folder(environment, "CERTS_DIR", home / "certs")
        tls = _tls(environment.get("MQTT_TLS", ""), certs)
        if tls is None:
            faults.append(f"MQTT_TLS: {environment['MQTT_TLS']!r} is none of {', '.join(get_args(Tls))}")
        engines, more = choice.read(environment)
        faults += more
        site, more = _site(environment.get("SITE", "") or "both", only, engines)
        faults += more
        if faults:
            raise StackError("\n".join(faults))
        return cls(
            home, edges, ports == "free", only, chosen, tls or "off", certs, engines, site, groups, products
        )

    def environment(self) -> dict[str, str]:
        """Return the environment that `read` would make the same settings of."""
        return {
            "CARAVAN_HOME": str(self.home),
            "EDGES": " ".join(self.edges),
            "EDGE_GROUPS": self.edge_groups,
            "EDGE_PRODUCTS": self.edge_products,
            "SITE": self.site,
            "PORTS": "free" if self.free_ports else "fixed",
            "PARTS": " ".join(self.only),
            "MQTT_TLS": self.tls,
            "CERTS_DIR": str(self.certs),
            **dict.fromkeys(choice.ENGINES, choice.EMBEDDED),
            **self.engines,
        } | {setting: str((self.chosen_ports or {}).get(setting, "")) for setting in port_settings()}

    @property
    def certs(self) -> Path:
        """Folder of the certificates, whether there are any or not."""
        return self.certs_dir or self.home / "certs"

    @property
    def engine_certs(self) -> Path:
        """Folder of the certificates that engines have, whether MQTT's door has any or not."""
        return self.home / "data" / "certs"

    def prepare(self) -> None:
        """See that what is asked for can be run, and make the certificates that an engine needs.

        Raises:
            StackError: if it is MQTT with TLS, and the certificates are not there; or an engine is not.

        """
        chosen = choice.engines(self.engines)
        for engine in chosen:
            engine.found()
        if any(engine.certificates for engine in chosen):
            from local_stack.tls.certificates import ensure  # noqa: PLC0415 - loads cryptography

            ensure(self.engine_certs)
        if self.tls != "off" and not complete(self.certs):
            raise StackError(
                f"MQTT_TLS is {self.tls!r}, but {self.certs} lacks certificates: make certs makes them"
            )
        if not self.rows:
            raise StackError(
                f"nothing to run: {' '.join(self.only)} needs certificates; make certs makes them"
            )

    @property
    def rows(self) -> tuple[Part, ...]:
        """The rows of the table that run: those asked for and all that they need, in the table's order."""
        parts = choice.table(self.engines)
        wanted = set(self.only) or {part.name for part in parts}
        while (
            needed := {name for part in parts if part.name in wanted for name in part.after + part.beside}
            - wanted
        ):
            wanted |= needed
        return tuple(
            part
            for part in parts
            if part.name in wanted and (self.tls != "off" or not part.tls) and _runs_at(self.site, part)
        )

    @property
    def across(self) -> dict[str, dict[str, int]]:
        """Where a link shows central's doors at an edge: `{"kafka": {"kafka": 9092}}`; empty elsewhere."""
        return {
            part.name: {
                name: (self.chosen_ports or {}).get(port.setting, port.default)
                for name, port in part.ports.items()
                if port.setting
            }
            for part in PARTS
            if part.linked and self.site == "edge"
        }


def port_settings() -> dict[str, int]:
    """Every setting that chooses a port, with its default."""
    return {port.setting: port.default for part in PARTS for port in part.ports.values() if port.setting}


def _group_faults(text: str, edges: Sequence[str], products: str) -> list[str]:
    try:
        groups = parse_groups(text)
    except ValueError as exc:
        return [f"EDGE_GROUPS: {exc}"]
    faults = [f"EDGE_GROUPS: {fault}" for fault in group_faults(groups, edges)]
    try:
        found = product_faults(parse_products(products), groups)
    except ValueError as exc:
        found = [str(exc)]
    return [*faults, *(f"EDGE_PRODUCTS: {fault}" for fault in found)]


def _site(text: str, only: Sequence[str], engines: choice.Choice) -> tuple[Site, list[str]]:
    """Read SITE, and find what is asked for that runs at the other one."""
    sites: dict[str, Site] = {site: site for site in get_args(Site)}
    if text not in sites:
        return "both", [f"SITE: {text!r} is none of {', '.join(sites)}"]
    site = sites[text]
    faults = [
        f"PARTS: {part.name!r} does not run at SITE={site}"
        for part in PARTS
        if part.name in only and not _runs_at(site, part)
    ]
    if site == "edge" and "KAFKA" in engines:
        faults.append("KAFKA: it runs at central; an edge reaches the plain door that any of them has there")
    return site, faults


def _runs_at(site: Site, part: Part) -> bool:
    return site == "both" or part.each_edge == (site == "edge")


def _folder(environment: Mapping[str, str], setting: str, default: Path) -> Path:
    return Path(environment.get(setting, "") or default).expanduser().absolute()


def _tls(text: str, certs: Path) -> Tls | None:
    """Read MQTT_TLS; unset, there is a door where there are certificates. None for what is no choice."""
    if not text:
        return "on" if complete(certs) else "off"
    choices: dict[str, Tls] = {choice: choice for choice in get_args(Tls)}
    return choices.get(text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())
