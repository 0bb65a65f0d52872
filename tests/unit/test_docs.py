"""What the documentation names exists, and what exists is documented."""

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from caravan.route import Route
from support.written import (
    AT_CENTRAL,
    AT_THE_EDGE,
    COMMON,
    SERVICES,
    default_of,
    rows,
    shared,
    variables,
    written,
)

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for pattern in ("*.md", "docs/*.md", "services/*/README.md", "infra/*/README.md")
    for path in ROOT.glob(pattern)
]
MOST_BYTES_OF_A_PICTURE = 60_000
BROWSER = ROOT / "tests/browser"


def table_of(readme: str) -> set[str]:
    """Return the variables in the first cells of a README's tables."""
    cells = re.findall(r"^\| (`[A-Z0-9_]+`(?:, `[A-Z0-9_]+`)*) \|", readme, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([A-Z0-9_]+)`", cell)}


def test_every_shared_setting_is_listed_and_no_other() -> None:
    assert table_of((ROOT / COMMON / "README.md").read_text()) == set(shared())


@pytest.mark.parametrize("folder", SERVICES)
def test_a_services_readme_lists_its_own_settings_and_no_other(folder: str) -> None:
    own = variables(SERVICES[folder]).keys() - shared().keys()
    listed = table_of((ROOT / folder / "README.md").read_text())
    assert listed - shared().keys() == own


@pytest.mark.parametrize("page", written(), ids=str)
def test_a_page_that_is_made_from_code_is_as_the_code_is(page: Path) -> None:
    assert (ROOT / page).read_text() == written()[page], "make docs writes it"


def test_every_default_that_a_readme_tells_is_the_codes() -> None:
    told = [
        (folder, names, default)
        for folder, fields in [(COMMON, shared()), *((f, variables(s)) for f, s in SERVICES.items())]
        for names, default, _ in rows((ROOT / folder / "README.md").read_text())
        if set(names) <= fields.keys() and (values := re.findall(r"`([^`]+)`", default))
        if len(values) == len(names) and default.startswith("`")
        for name, value in zip(names, values, strict=True)
        if (really := default_of(fields[name])) and float_or_text(really) != float_or_text(value)
    ]
    assert [wrong for wrong in told if "PORT" not in wrong[1]] == []


def float_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def test_every_make_target_is_on_the_page_of_commands() -> None:
    targets = set(re.findall(r"^([a-z.-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    page = (ROOT / "docs/commands.md").read_text()
    assert targets - {"help"} == set(re.findall(r"^\| `make ([a-z.-]+)` \|", page, flags=re.MULTILINE))


def test_every_command_that_a_page_names_can_be_made() -> None:
    targets = set(re.findall(r"^([a-z.-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    code = re.compile(r"(?:^ {4}|`)make ([a-z]+(?:[-.][a-z]+)*)\b", re.MULTILINE)
    named = {target: page.name for page in PAGES for target in code.findall(page.read_text())}
    assert "test" in named
    assert {target: page for target, page in named.items() if target not in targets} == {}


@pytest.mark.parametrize("target", ["report", "origin"])
def test_a_version_is_asked_for_only_where_one_is_said(target: str) -> None:
    """The release's own number is no version of a model."""

    def said(*given: str) -> str:
        command = ["make", "--dry-run", target, *given]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "--version" not in said()
    assert "--version 3" in said("VERSION=3")


def test_every_metric_is_documented_and_the_other_way_round() -> None:
    sources = [
        path.read_text() for folder in ("services", "infra") for path in ROOT.glob(f"{folder}/*/*/**/*.py")
    ]
    declared = re.findall(r'= (?:Counter|Gauge|Histogram)\(\s*"([a-z_]+)"', "\n".join(sources))
    page = (ROOT / "docs/observability.md").read_text()
    cells = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", page, flags=re.MULTILINE)
    listed = [name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell) if "_" in name]
    assert sorted(listed) == sorted(declared)


def test_every_link_leads_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text())]
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_every_picture_is_shown_and_small() -> None:
    shown = "".join(page.read_text() for page in PAGES)
    pictures = list((ROOT / "docs/screenshots").iterdir())
    assert [picture.name for picture in pictures if f"screenshots/{picture.name}" not in shown] == []
    assert [picture.name for picture in pictures if picture.stat().st_size > MOST_BYTES_OF_A_PICTURE] == []


def test_the_browser_tests_that_the_documentation_names_are_there() -> None:
    tests = "".join(path.read_text() for path in BROWSER.glob("test_*.py"))
    named = re.findall(r"`(…[a-z_]+|test_[a-z_]+)…?`", (ROOT / "docs/app.md").read_text())
    missing = [
        name
        for name in named
        if name.strip("…_") not in tests and not BROWSER.joinpath(f"{name}.py").exists()
    ]
    assert named
    assert missing == []


def named_in_code_type(text: str) -> Iterator[tuple[str, str]]:
    """Yield what a page names in code type: a path, and an identifier of the file that was named last."""
    path = ""
    for token in re.findall(r"`([^`\n]+)`", text):
        if re.fullmatch(r"[\w.-]+(?:/[\w.-]+)+/?", token):
            path = token
            yield path, ""
        elif path.endswith(".py") and re.fullmatch(r"[A-Za-z_]\w+", token):
            yield path, token


def test_the_map_names_files_that_are_there_and_what_is_in_them() -> None:
    page = (ROOT / "docs/ARCHITECTURE.md").read_text()
    named = {found for line in page.splitlines() for found in named_in_code_type(line)}
    assert [path for path, _ in named if not (ROOT / path).exists()] == []
    assert [
        (path, name)
        for path, name in named
        if name and not re.search(rf"\b{name}\b", (ROOT / path).read_text())
    ] == []


def test_the_map_shows_every_package_and_every_folder_of_tests() -> None:
    page = (ROOT / "docs/ARCHITECTURE.md").read_text()
    packages = {path.parent.relative_to(ROOT) for path in ROOT.glob("*/*/pyproject.toml")}
    tests = {path.relative_to(ROOT) for path in ROOT.glob("tests/*/") if any(path.glob("test_*.py"))}
    assert packages
    assert [str(path) for path in packages | tests if f"`{path}/" not in page] == []


def routes_of(folder: str) -> tuple[Path, dict[str, Route]]:
    """Return a package, and the routes that it declares, by the names of their constants."""
    (path,) = (ROOT / folder).glob("*/routes.py")
    module = importlib.import_module(f"{path.parent.name}.routes")
    found = {name: value for name, value in vars(module).items() if isinstance(value, Route)}
    assert set(found.values()) == set(module.ROUTES)
    assert len(module.ROUTES) == len({route.id for route in module.ROUTES})
    return path.parent, found


@pytest.mark.parametrize("folder", SERVICES)
def test_a_services_readme_has_a_place_for_the_table_of_its_routes(folder: str) -> None:
    _, routes = routes_of(folder)
    readme = (ROOT / folder / "README.md").read_text()
    assert "<!-- routes -->\n| route |" in readme
    assert [route.id for route in routes.values() if f"| `{route.id}` |" not in readme] == []


def test_every_service_that_declares_routes_is_in_the_picture_of_the_flow() -> None:
    assert {*AT_CENTRAL, *AT_THE_EDGE} == {Path(folder).name for folder in SERVICES}


def names_used(code: str) -> Iterator[str]:
    """Yield the names that a module uses, but for those in its list of routes."""
    for statement in ast.parse(code).body:
        is_list = isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "ROUTES"
        for node in () if is_list else ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                yield node.id
            elif isinstance(node, ast.Attribute):
                yield node.attr


@pytest.mark.parametrize("folder", SERVICES)
def test_each_route_that_is_declared_is_run(folder: str) -> None:
    package, routes = routes_of(folder)
    used = {name for path in package.rglob("*.py") for name in names_used(path.read_text())}
    assert routes.keys() - used == set()


def test_an_exchange_is_opened_by_the_route_that_declares_it() -> None:
    opened_by_name = [
        path.relative_to(ROOT)
        for folder in ("services", "infra")
        for path in ROOT.glob(f"{folder}/*/*/**/*.py")
        if "telemetry.exchange(" in path.read_text() and path.parent.name != "caravan"
    ]
    assert opened_by_name == []


def test_the_site_shows_every_page() -> None:
    shown = set(re.findall(r": ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE))
    pages = {path.relative_to(ROOT).as_posix() for path in PAGES}
    assert pages - {"README.md", "docs/home.md"} == shown - {"index.md"}
