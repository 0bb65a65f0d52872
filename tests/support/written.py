"""Pages that are made from the code, and the site of all pages: `python -m support.written [SITE]` in tests/.

Settings are those of the services' own types: defaults and bounds are read there, what each means in the
table beside the service. Commands are those of the Makefile. Tables of routes come from what is declared.
"""

import importlib
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from caravan.route import Route, table
from caravan.settings import CentralS3Settings, EdgeS3Settings, KafkaSettings, MqttSettings, ServiceSettings
from caravan.tokens import TokenSettings
from delivery.settings import DeliverySettings
from edge_manager.settings import EdgeManagerSettings
from feeder.settings import FeederSettings
from monitor.settings import MonitorSettings
from shopper.settings import ShopperSettings
from support.flow import Service, picture
from training.settings import TrainingSettings

ROOT = Path(__file__).parents[2]
SHARED = (ServiceSettings, KafkaSettings, MqttSettings, CentralS3Settings, EdgeS3Settings, TokenSettings)
SERVICES: dict[str, type[BaseSettings]] = {
    "services/delivery": DeliverySettings,
    "services/edge-manager": EdgeManagerSettings,
    "services/feeder": FeederSettings,
    "services/monitor": MonitorSettings,
    "services/shopper": ShopperSettings,
    "infra/training": TrainingSettings,
}
COMMON = "services/common"
SETTINGS, COMMANDS, FLOW = Path("docs/settings.md"), Path("docs/commands.md"), Path("docs/flow.svg")
AT_CENTRAL, AT_THE_EDGE = ("feeder", "delivery", "training", "monitor"), ("shopper", "edge-manager")
SERVING = Route("serve", source="gRPC `model-server`, S3 `production`", mandatory="the answer: a prediction")
"""The model server keeps to another system's API, and declares no route."""
HOME, STYLE = Path("docs/home.md"), Path("docs/site.css")
PAGES = ("*.md", "docs/*.md", "services/*/README.md", "infra/*/README.md")
ROUTES = re.compile(r"(?<=<!-- routes -->\n).*?(?=\n<!-- /routes -->)", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
FIGURES = re.compile(r"\bsrc=\"([^\"]+)\"")

SETTINGS_HEAD = """\
# Settings

Every setting is an environment variable, checked when a process starts: all faults are named at once, and
nothing runs with half of its settings. Secrets are never shown. `make docs` reads the defaults and bounds on
this page out of the code.

The embedded stack has settings of its own, ports above all ([there](../infra/local/README.md)); the model
server has those of TensorFlow Serving's image ([there](../infra/model-server/README.md#settings)). No service
knows which broker or store it talks to: Apache Kafka, Mosquitto, any S3 server and TensorFlow Serving take
the places of the embedded parts by these settings alone.

"""
COMMANDS_HEAD = """\
# Commands

`make` alone lists these too. `NAME=value` behind a command chooses, as in `make report EDGE=edge1 VERSION=2`;
commands that ask a running stack ask the one that `make start` has started.

"""


def variables(settings: type[BaseSettings]) -> dict[str, FieldInfo]:
    """Return the environment variables that a service reads."""
    return {name.upper(): field for name, field in settings.model_fields.items()}


def shared() -> dict[str, FieldInfo]:
    """Return those that several services read."""
    return {name: field for settings in SHARED for name, field in variables(settings).items()}


def rows(readme: str) -> Iterator[tuple[list[str], str, str]]:
    """Yield the rows of a README's tables of settings: variables, the default as told there, the meaning."""
    pattern = r"^\| (`[A-Z0-9_]+`(?:, `[A-Z0-9_]+`)*) \| ?(.*?) ?\| (.*) \|$"
    for names, default, meaning in re.findall(pattern, readme, flags=re.MULTILINE):
        yield re.findall(r"`([A-Z0-9_]+)`", names), default, meaning


def default_of(field: FieldInfo) -> str:
    """Return a default as it would be set; empty where it is made of other things, or of nothing."""
    value = field.get_default(call_default_factory=False)
    match value:
        case bool():
            return str(value).lower()
        case int() | str():
            return str(value)
        case float():
            return f"{value:g}" if value < 1e6 else str(int(value))
        case SecretStr():
            return value.get_secret_value()
        case tuple() if all(isinstance(one, str) for one in value):
            return " ".join(value)
    return ""


def bounds_of(field: FieldInfo) -> str:
    """Return what a setting may be, as far as its type says it in a word."""
    kind: Any = field.annotation
    choices = _choices(kind)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if kind is bool:
        return "`true`, `false`"
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = [
        f"{sign} {limit:,}".replace(",", " ") if isinstance(limit, int) else f"{sign} {limit}"
        for part in field.metadata
        for name, sign in signs.items()
        if (limit := getattr(part, name, None)) is not None
    ]
    return " and ".join(limits)


def _choices(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return tuple(str(one) for one in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(str(one.value) for one in kind)
    return next((found for one in get_args(kind) if (found := _choices(one))), ())


def settings_table(fields: dict[str, FieldInfo], readme: str) -> str:
    """Return the table of those settings that a README tells the meaning of."""
    lines = ["| variable | default | may be | meaning |", "|---|---|---|---|"]
    for names, told, meaning in rows(readme):
        if not set(names) <= fields.keys():
            continue
        values = [default_of(fields[name]) for name in names]
        is_told = any(values) and "PORT" not in names
        default = ", ".join(f"`{value}`" for value in values if value) if is_told else told
        limits = dict.fromkeys(bound for name in names if (bound := bounds_of(fields[name])))
        variable = ", ".join(f"`{name}`" for name in names)
        lines.append(f"| {variable} | {default} | {'; '.join(limits)} | {meaning} |")
    return "\n".join(lines)


def settings_page() -> str:
    """Return the page of all services' settings."""
    parts = [
        "## Shared by the services",
        settings_table(shared(), moved((ROOT / COMMON / "README.md").read_text(), COMMON)),
    ]
    for folder, settings in sorted(SERVICES.items(), key=lambda item: Path(item[0]).name):
        own = {name: field for name, field in variables(settings).items() if is_own(name, field)}
        parts += [
            f"## {Path(folder).name}",
            f"It listens on `PORT` {default_of(settings.model_fields['port'])}.",
            settings_table(own, moved((ROOT / folder / "README.md").read_text(), folder)),
        ]
    return SETTINGS_HEAD + "\n\n".join(parts) + "\n"


def is_own(name: str, field: FieldInfo) -> bool:
    """Tell whether a service adds a setting, or gives a shared one another default; `PORT` is told apart."""
    others = shared()
    return name not in others or (name != "PORT" and default_of(field) != default_of(others[name]))


def moved(text: str, folder: str) -> str:
    """Return a README's text with its links as a page in docs/ writes them."""
    return LINK.sub(
        lambda found: f"]({_from_docs((ROOT / folder / found[1]).resolve())}{found[2] or ''})",
        re.sub(r"\]\(#", "](README.md#", text),
    )


def _from_docs(path: Path) -> str:
    inside = path.relative_to(ROOT)
    return inside.relative_to("docs").as_posix() if inside.parts[0] == "docs" else f"../{inside.as_posix()}"


def commands_page() -> str:
    """Return the page of the Makefile's targets."""
    parts: list[str] = []
    commands = ""
    for line in (ROOT / "Makefile").read_text().splitlines():
        if heading := re.fullmatch(r"# --- (.+?) -*", line):
            if commands:
                parts[-1] += f"\n\n| command | what it does |\n|---|---|\n{commands}"
            parts.append(f"## {heading[1][0].upper()}{heading[1][1:]}")
            commands = ""
        elif (target := re.match(r"([a-z.-]+):.*## (.+)", line)) and target[1] != "help":
            commands += f"| `make {target[1]}` | {target[2]} |\n"
    parts[-1] += f"\n\n| command | what it does |\n|---|---|\n{commands}"
    return COMMANDS_HEAD + "\n\n".join(part.strip() for part in parts) + "\n"


def routes_readme(folder: str) -> str:
    """Return a service's README with the table of its routes."""
    return ROUTES.sub(lambda _: table(routes_of(folder)), (ROOT / folder / "README.md").read_text())


def routes_of(folder: str) -> Sequence[Route]:
    """Return the routes that a service declares."""
    (package,) = (ROOT / folder).glob("*/routes.py")
    routes: Sequence[Route] = importlib.import_module(f"{package.parent.name}.routes").ROUTES
    return routes


def flow() -> str:
    """Return the picture of all services' routes; of the monitor's, the bridge runs at the edge."""
    declared = {Path(folder).name: routes_of(folder) for folder in SERVICES}
    bridge = [route for route in declared["monitor"] if route.id == "bridge"]
    declared["monitor"] = [route for route in declared["monitor"] if route not in bridge]
    central = [Service(name, declared[name]) for name in AT_CENTRAL]
    edge = [Service(name, declared[name]) for name in AT_THE_EDGE]
    return picture(central, [*edge, Service("model-server", [SERVING]), Service("monitor (edge)", bridge)])


def written() -> dict[Path, str]:
    """Return every page that is made from code, by its path from the root."""
    return {
        SETTINGS: settings_page(),
        COMMANDS: commands_page(),
        FLOW: flow(),
        **{Path(folder, "README.md"): routes_readme(folder) for folder in SERVICES},
    }


def stage(site: Path) -> None:
    """Lay out what the site is made of: all pages where they are in the repository, and what they show."""
    shutil.rmtree(site, ignore_errors=True)
    pages = [path.relative_to(ROOT) for pattern in PAGES for path in ROOT.glob(pattern)]
    for page in pages:
        text = (ROOT / page).read_text()
        linked = [found[0] for found in LINK.findall(text)] + FIGURES.findall(text)
        for target in {(ROOT / page.parent / link).resolve().relative_to(ROOT) for link in linked}:
            if target.suffix != ".md" and (ROOT / target).is_file():
                _copy(target, site)
        if page != HOME and page != Path("README.md"):
            (site / page).parent.mkdir(parents=True, exist_ok=True)
            (site / page).write_text(_for_the_site(text, page))
    _copy(STYLE, site)
    (site / "index.md").write_text(_at_the_front((ROOT / HOME).read_text()))


def _for_the_site(text: str, page: Path) -> str:
    """Return a page whose links to the README lead to the front page, and to folders nowhere."""

    def link(found: re.Match[str]) -> str:
        target = (ROOT / page.parent / found[2]).resolve()
        if target.is_dir():
            return found[1]
        if target == ROOT / "README.md":
            depth = "../" * (len(page.parts) - 1)
            return f"[{found[1]}]({depth}index.md)"
        return found[0]

    return re.sub(r"\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)", link, text)


def _at_the_front(text: str) -> str:
    """Return the front page, which lies one folder above the others in docs/."""

    def from_root(link: str) -> str:
        return (ROOT / HOME.parent / link).resolve().relative_to(ROOT).as_posix()

    text = LINK.sub(lambda found: f"]({from_root(found[1])}{found[2] or ''})", text)
    return FIGURES.sub(lambda found: f'src="{from_root(found[1])}"', text)


def _copy(path: Path, site: Path) -> None:
    (site / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / path, site / path)


def main() -> None:
    """Write the pages; with a folder, lay out the site's source there."""
    for path, text in written().items():
        if not (ROOT / path).exists() or (ROOT / path).read_text() != text:
            (ROOT / path).write_text(text)
            sys.stdout.write(f"written: {path}\n")
    for folder in sys.argv[1:]:
        stage(Path(folder).absolute())


if __name__ == "__main__":
    main()
