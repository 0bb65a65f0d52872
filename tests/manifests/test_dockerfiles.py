"""The Dockerfile: linted, and of each image about what is really there."""

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from local_stack.parts import PARTS
from local_stack.settings import port_settings
from support.containers import SERVICES
from support.dockerfiles import DOCKERFILE, IMAGES, ROOT, VERSION, stages
from support.sbom import NPM, locks, of_npm

EVERY = pytest.mark.parametrize("image", IMAGES)

FOR_TESTS = ROOT / "services" / "common" / "caravan" / "testing"


def hadolint() -> str:
    beside = Path(sys.executable).with_name("hadolint")
    found = str(beside) if beside.exists() else shutil.which("hadolint")
    if found is None:
        pytest.skip("no hadolint for this machine")
    return found


def test_there_is_one_for_every_service_the_model_server_the_pipeline_and_a_whole_edge() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/*/pyproject.toml")}
    assert set(IMAGES) == packages - {"common", "lab", "local"} | {"edge"}


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([hadolint(), DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@EVERY
def test_what_is_installed_is_locked_with_hashes(image: str) -> None:
    installs = [step.rest for step in stages(image)[0].of("RUN") if "install" in step.rest]
    assert installs
    for line in installs:
        for command in (part for part in line.split("&&") if "pip install" in part):
            files = re.findall(r"-r (\S+)", command)
            assert "--require-hashes" in command
            assert files
            for file in files:
                assert "--hash=sha256:" in (ROOT / file).read_text()


@EVERY
def test_it_runs_as_a_numbered_user_without_rights_and_says_what_it_is(image: str) -> None:
    last = stages(image)[-1]
    (user,) = last.of("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:0", user.rest)
    labels = last.labels
    assert labels["org.opencontainers.image.title"] == f"caravan/{image}"
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.description"]


@EVERY
def test_the_image_gets_its_files_from_the_first_stage_alone(image: str) -> None:
    build, last = stages(image)
    assert build.base == last.base
    assert all(step.flags == {"from": "app"} for step in last.of("COPY"))


@EVERY
def test_what_is_copied_exists_and_is_in_the_build_context(image: str) -> None:
    for step in stages(image)[0].of("COPY"):
        *sources, _ = step.arguments
        for source in sources:
            assert (ROOT / source).exists(), source
            there = [ROOT / source, *(ROOT / source).rglob("*")]
            files = [file for file in there if file.is_file()]
            assert any(in_context(file) for file in files), source
            code = [file for file in files if file.suffix == ".py" and not file.is_relative_to(FOR_TESTS)]
            assert [str(file) for file in code if not in_context(file)] == []


@EVERY
def test_its_bill_of_materials_names_all_that_it_is_made_of(image: str) -> None:
    own = f"requirements/{image}.txt"
    has_stubs = any("stub_files" in step.rest for step in stages(image)[0].of("RUN"))
    assert locks(image) == [own, *["requirements/stubs.txt"] * has_stubs]
    shipped = [file for file in (ROOT / NPM / "node_modules").glob("*/**/*") if in_context(file)]
    assert {file.relative_to(ROOT / NPM / "node_modules").parts[0] for file in shipped} <= {"mqtt"}
    has_npm = any(NPM in step.arguments for step in stages(image)[0].of("COPY"))
    assert [(one["name"], one["scope"]) for one in of_npm(image)] == [("mqtt", "optional")] * has_npm


def test_what_is_for_tests_is_in_no_image() -> None:
    assert [file for file in FOR_TESTS.rglob("*.py") if in_context(file)] == []


@pytest.mark.parametrize(
    "path",
    [
        *(".git/config", "README.md", ".venv/bin/uv", ".caravan/x", "docs/a.md"),
        *("services/shopper/npm/node_modules/axe-core/axe.js", "services/shopper/shopper/__pycache__/a.pyc"),
    ],
)
def test_nothing_else_is_in_the_build_context(path: str) -> None:
    assert not in_context(ROOT / path)


@pytest.mark.parametrize("image", SERVICES)
def test_the_health_check_and_the_port_are_those_of_the_service(image: str) -> None:
    port = SERVICES[image].model_fields["port"].default
    last = stages(image)[-1]
    url = urlsplit(last.health_url)
    assert (url.hostname, url.port, url.path) == ("127.0.0.1", port, "/healthz")
    assert last.exposed == {port} == {int(last.env["PORT"])}


@pytest.mark.parametrize("image", SERVICES)
def test_what_the_image_sets_are_settings_of_the_service(image: str) -> None:
    known = {name.upper() for name in SERVICES[image].model_fields}
    systems = {"PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "HOME", "MALLOC_MMAP_THRESHOLD_"}
    env = stages(image)[-1].env
    assert set(env) - systems - known == set()
    assert env["HOST"] == "0.0.0.0"


def test_a_whole_edge_is_asked_by_its_shopper_and_shows_the_doors_that_others_may_ask() -> None:
    doors = {
        port.default
        for row in PARTS
        if row.each_edge and "{host}" in " ".join((row.command, *row.env.values(), *row.files.values()))
        for port in row.ports.values()
        if port.default
    }
    last = stages("edge")[-1]
    url = urlsplit(last.health_url)
    assert (url.hostname, url.port, url.path) == ("127.0.0.1", port_settings()["SHOPPER_PORT"], "/healthz")
    assert last.exposed == doors
    assert (last.env["HOST"], last.env["CARAVAN_HOME"]) == ("0.0.0.0", "/data")


def in_context(file: Path) -> bool:
    """Tell whether `.dockerignore` lets a file in: the last line that matches decides."""
    name = file.relative_to(ROOT).as_posix()
    inside = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#") and _matches(name, pattern):
            inside = line.startswith("!")
    return inside


def _matches(name: str, pattern: str) -> bool:
    # A pattern that matches a folder matches what is in it.
    parts = name.split("/")
    return any(_fits(parts[:length], pattern.split("/")) for length in range(1, len(parts) + 1))


def _fits(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_fits(parts[skip:], patterns[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])
