"""A whole edge forked from one parent: what is run, and that it is kept running and ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local_stack.errors import StackError
from local_stack.ports import HeldPorts
from local_stack.settings import StackSettings
from local_stack.small_edge.programs import Program, planned
from support.waiting import wait_until

SECONDS = 30.0
NAMES = ("first", "second")


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A parent of two programs that write down who they are."""
    (tmp_path / "sleeper.py").write_text(
        "import os, sys, time\n"
        "if __name__ == '__main__':\n"
        "    with open(sys.argv[1], 'a') as file:\n"
        "        file.write(f'{os.getpid()} {os.environ.get(\"MARK\")} {os.getcwd()}\\n')\n"
        "    time.sleep(600)\n"
    )
    programs = [
        Program(
            name=name,
            module="sleeper",
            arguments=[str(tmp_path / name)],
            environment={"MARK": name, "PYTHONPATH": str(tmp_path)},
            folder=tmp_path,
        )
        for name in NAMES
    ]
    (tmp_path / "edge.py").write_text(
        "from pathlib import PosixPath\n"
        "from local_stack.small_edge.parent import run\n"
        "from local_stack.small_edge.programs import Program\n"
        f"run({programs!r})\n"
    )
    running = subprocess.Popen(
        [sys.executable, str(tmp_path / "edge.py")], env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def await_starts(file: Path, count: int) -> list[list[str]]:
    wait_until(lambda: len(starts(file)) == count)
    return starts(file)


def starts(file: Path) -> list[list[str]]:
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def test_each_program_has_its_own_environment_is_started_again_and_ends_with_its_parent(
    tmp_path: Path, parent: subprocess.Popen[bytes]
) -> None:
    for name in NAMES:
        file = tmp_path / name
        pid, mark, folder = await_starts(file, 1)[0]
        assert (mark, folder) == (name, str(tmp_path))
        os.kill(int(pid), signal.SIGKILL)
        await_starts(file, 2)
    children = psutil.Process(parent.pid).children()
    assert {str(child.pid) for child in children} == {starts(tmp_path / name)[1][0] for name in NAMES}
    parent.terminate()
    assert parent.wait(SECONDS) == 0
    assert not psutil.wait_procs(children, 0)[1]


def test_programs_do_not_outlive_a_parent_that_is_killed(
    tmp_path: Path, parent: subprocess.Popen[bytes]
) -> None:
    wait_until(lambda: all(starts(tmp_path / name) for name in NAMES))
    children = psutil.Process(parent.pid).children()
    parent.kill()
    assert not psutil.wait_procs(children, SECONDS)[1]


def read(home: Path, **more: str) -> StackSettings:
    chosen = {"CARAVAN_HOME": str(home), "SITE": "edge", "S3": "files", "PORTS": "free"}
    return StackSettings.read({**chosen, **more})


def test_an_edge_has_its_buckets_and_reaches_central_where_it_is_told(tmp_path: Path) -> None:
    central = {"S3_CENTRAL_ENDPOINT": "https://s3.example.org", "FEEDER_URL": "https://feeder.example.org"}
    with HeldPorts() as held:
        programs = {one.name: one for one in planned(read(tmp_path), central, held)}
    assert list(programs) == [
        f"{name}-edge1" for name in ("s3", "mqtt", "model-server", "edge-manager", "shopper", "monitor")
    ]
    shopper = programs["shopper-edge1"].environment
    assert {name: shopper[name] for name in central} == central
    assert shopper["KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:9092"
    buckets = (tmp_path / "data" / "s3-edge1" / "objects").iterdir()
    assert {bucket.name for bucket in buckets} == {"production", "data", "valid", "unclassified"}


def test_an_engine_that_is_no_python_program_is_refused(tmp_path: Path) -> None:
    with HeldPorts() as held, pytest.raises(StackError, match="s3-edge1 is no Python program"):
        planned(read(tmp_path, S3="embedded"), {}, held)
