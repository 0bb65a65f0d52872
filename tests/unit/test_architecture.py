"""The invariants of docs/ARCHITECTURE.md that can be seen in the code without running it."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from caravan.route import Route
from local_stack.parts import PARTS

ROOT = Path(__file__).parents[2]
SHARED = "caravan"
ALSO = {"lab": {"local_stack"}}
"""What a package may import of ours beside what all share."""
CLIENTS = ("aioboto3", "aiomqtt", "fastapi", "grpc", "httpx", "obstore", "starlette", "uvicorn")
ROUTES = sorted(ROOT.glob("*/*/*/routes.py"))


@cache
def modules() -> dict[str, Path]:
    """Return every module of ours that is not a test, by its name."""
    found = {}
    for project in ROOT.glob("*/*/pyproject.toml"):
        for path in project.parent.glob("*/**/*.py"):
            name = ".".join(path.relative_to(project.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run: what only a type checker reads imports nothing."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from running(node)


def imported(path: Path) -> set[str]:
    """Return the modules of ours that a module imports, wherever in it."""
    names: set[str] = set()
    for node in running(parsed(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names.update(name if name in modules() else node.module for name in inner)
    return names & modules().keys()


def package(module: str) -> str:
    return module.partition(".")[0]


def test_a_package_imports_only_what_it_may() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, path in modules().items()
        for other in imported(path)
        if package(other) not in {package(name), SHARED} | ALSO.get(package(name), set())
    ]
    assert len(modules()) > len(ROUTES) > 0
    assert wrong == []


def test_what_tests_have_instead_of_the_outside_is_imported_by_nothing_that_runs() -> None:
    testing = {name for name in modules() if name.startswith(f"{SHARED}.testing")}
    assert testing
    assert [
        name for name, path in modules().items() if name not in testing and imported(path) & testing
    ] == []


def test_no_import_goes_in_a_circle() -> None:
    graph = {name: imported(path) - {name} for name, path in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(" ← ".join(exc.args[1]))


def test_every_door_lies_in_doors() -> None:
    answers = re.compile(r"^ *@(app|router)\.(get|put|post|api_route)\(", re.MULTILINE)
    elsewhere = [
        name
        for name, path in modules().items()
        if package(name) not in {SHARED, "local_stack"} and answers.search(path.read_text())
        if name.split(".")[1] != "doors"
    ]
    assert elsewhere == []


def test_no_private_name_crosses_a_file() -> None:
    crossing = [
        f"{name}: {alias.name} of {node.module}"
        for name, path in modules().items()
        for node in running(parsed(path))
        if isinstance(node, ast.ImportFrom) and package(node.module or "") in {package(m) for m in modules()}
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert crossing == []


def functions(path: Path) -> dict[str, ast.AsyncFunctionDef]:
    return {node.name: node for node in parsed(path).body if isinstance(node, ast.AsyncFunctionDef)}


def travels(function: ast.AsyncFunctionDef) -> bool:
    """Tell whether a docstring says FROM where TO where, in its first paragraph."""
    first = (ast.get_docstring(function) or "").partition("\n\n")[0]
    before, arrow, after = first.partition("→")
    return bool(arrow) and "FROM " in before and "TO " in after


def function_of(route: Route, names: dict[str, ast.AsyncFunctionDef]) -> str:
    """Return the function of a route: that of its name, or of what its name begins with (`detect-http`)."""
    words = route.id.split("-")
    wanted = ["_".join(words[:length]) for length in range(len(words), 0, -1)]
    return next((name for name in wanted if name in names), "")


@pytest.mark.parametrize("path", ROUTES, ids=lambda path: path.parent.name)
def test_every_route_has_one_function_that_says_from_where_to_where(path: Path) -> None:
    declared = importlib.import_module(f"{path.parent.name}.routes").ROUTES
    written = functions(path)
    owners = {route.id: function_of(route, written) for route in declared}
    assert len(owners) == len(declared) > 0
    assert [route for route, name in owners.items() if not (name and travels(written[name]))] == []
    assert {name for name, function in written.items() if travels(function)} == set(owners.values())


@pytest.mark.parametrize("path", ROUTES, ids=lambda path: path.parent.name)
def test_routes_are_given_their_clients(path: Path) -> None:
    names = {
        name
        for node in running(parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert {name for name in names if package(name) in CLIENTS} == set()


def is_best_effort(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and (
        ast.unparse(node.func) == "post" or ast.unparse(node.func).startswith("tell_")
    )


@pytest.mark.parametrize("path", ROUTES, ids=lambda path: path.parent.name)
def test_in_a_route_what_is_best_effort_comes_last(path: Path) -> None:
    early = []
    for name, function in functions(path).items():
        told = [
            node.lineno for node in ast.walk(function) if isinstance(node, ast.Call) and is_best_effort(node)
        ]
        awaited = [
            node.lineno
            for node in ast.walk(function)
            if isinstance(node, ast.Await) and not is_best_effort(node.value)
        ]
        if told and awaited and min(told) < max(awaited):
            early.append(name)
    assert early == []


def calls(path: Path, attribute: str) -> list[ast.Call]:
    """Return the calls of a function or method of this name."""
    found = [node for node in running(parsed(path)) if isinstance(node, ast.Call)]
    return [node for node in found if ast.unparse(node.func).rpartition(".")[2] == attribute]


def test_only_the_one_loop_commits_offsets() -> None:
    # A commit of a database takes no argument.
    commits = {name for name, path in modules().items() if any(call.args for call in calls(path, "commit"))}
    assert commits == {"caravan.consume", "caravan.replay"}


def test_no_consumer_commits_by_itself() -> None:
    consumers = [call for path in modules().values() for call in calls(path, "AIOKafkaConsumer")]
    assert consumers
    for call in consumers:
        assert {"enable_auto_commit": "False"}.items() <= {
            keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords
        }.items()


SERVICES = sorted(
    path.parent for path in ROOT.glob("services/*/pyproject.toml") if path.parent.name != "common"
)


@pytest.mark.parametrize("folder", SERVICES, ids=lambda folder: folder.name)
def test_every_service_runs_in_the_stack_in_compose_and_on_kubernetes(folder: Path) -> None:
    (package,) = (path.parent.name for path in folder.glob("*/app.py"))
    assert any(f"-m {package}" in part.command for part in PARTS)
    for where in ("infra/compose", "infra/kubernetes"):
        files = "".join(path.read_text() for path in (ROOT / where).rglob("*.yaml"))
        assert re.search(rf"image: \S*caravan/{folder.name}\b", files), where
