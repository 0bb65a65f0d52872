"""What the supervisor leaves on disk: its state, its lock, its logs."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from local_stack import logs
from local_stack.cli import app
from local_stack.errors import StackError
from local_stack.launch import clean
from local_stack.processes import Identity, end_leftovers
from local_stack.settings import StackSettings
from local_stack.state import (
    PartState,
    Phase,
    StackState,
    read_state,
    sole_supervisor,
    state_file,
    write_state,
)


@pytest.fixture
def me() -> Identity:
    found = Identity.of(os.getpid())
    assert found
    return found


def some_state(home: Path, me: Identity, *phases: Phase) -> StackState:
    parts = [
        PartState(name=f"part{index}", edge=None, phase=phase, address="127.0.0.1:1", ports={"http": 1})
        for index, phase in enumerate(phases)
    ]
    return StackState(pid=me.pid, born=me.born, home=home, edges=("edge1",), parts=parts)


@pytest.mark.parametrize("command", [["exec", "--", "true"], ["start"]])
def test_a_stack_of_another_build_is_told_to_be_stopped_first(
    tmp_path: Path, me: Identity, command: list[str]
) -> None:
    """One of the first week has no part kafka-cleaner, and no port of MQTT 5."""
    write_state(some_state(tmp_path, me, Phase.READY))
    outcome = CliRunner().invoke(app, command, env={"CARAVAN_HOME": str(tmp_path), "EDGES": "edge1"})
    assert (outcome.exit_code, type(outcome.exception)) == (1, SystemExit)
    assert "is of another build" in outcome.stderr
    assert "stop it first" in outcome.stderr


def test_state_comes_back_as_it_was_written(tmp_path: Path, me: Identity) -> None:
    state = some_state(tmp_path, me, Phase.READY, Phase.DOWN)
    write_state(state)
    assert read_state(tmp_path) == state


def test_there_is_no_state_before_the_first_start(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None


def test_a_state_file_that_is_not_understood_is_named(tmp_path: Path, me: Identity) -> None:
    write_state(some_state(tmp_path, me))
    state_file(tmp_path).write_text('{"half":')
    with pytest.raises(StackError, match=r"state\.json was written by another version"):
        read_state(tmp_path)


def test_a_stack_is_ready_only_if_all_parts_are_and_its_supervisor_lives(
    tmp_path: Path, me: Identity
) -> None:
    assert some_state(tmp_path, me, Phase.READY, Phase.READY).ready
    assert not some_state(tmp_path, me, Phase.READY, Phase.UNREADY).ready
    assert not some_state(tmp_path, me).ready
    assert not some_state(tmp_path, Identity(me.pid, me.born - 60), Phase.READY).ready


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"EDGES": "edge1 edge2"}, "EDGES='edge1', not 'edge1 edge2'"),
        ({"PARTS": "mqtt"}, "PARTS='', not 'mqtt'"),
        ({"EDGE_GROUPS": "north=edge1"}, "EDGE_GROUPS='', not 'north=edge1'"),
        ({"SITE": "edge"}, "SITE='both', not 'edge'"),
        ({"MQTT": "mosquitto"}, "MQTT='embedded', not 'mosquitto'"),
    ],
)
def test_a_start_beside_a_stack_that_runs_with_something_else_is_refused_by_the_settings_name(
    tmp_path: Path, me: Identity, asked: dict[str, str], told: str
) -> None:
    write_state(some_state(tmp_path, me))
    started = CliRunner().invoke(app, ["start"], env={"CARAVAN_HOME": str(tmp_path), **asked})
    assert told in started.output
    assert started.exit_code == 1


def test_an_edge_that_is_cut_off_from_central_is_up_but_not_ready(tmp_path: Path, me: Identity) -> None:
    cut_off = some_state(tmp_path, me, Phase.READY, Phase.CUT_OFF)
    assert cut_off.up
    assert not cut_off.ready
    assert not some_state(tmp_path, me, Phase.CUT_OFF, Phase.STARTING).up


def test_a_state_keeps_the_site_and_the_ports_of_its_link(tmp_path: Path) -> None:
    chosen = StackSettings.read({"CARAVAN_HOME": str(tmp_path), "SITE": "edge", "KAFKA_PORT": "19092"})
    state = some_state(tmp_path, Identity(1, 0.0)).model_copy(
        update={"site": chosen.site, "chosen_ports": chosen.chosen_ports}
    )
    write_state(state)
    kept = read_state(tmp_path)
    assert kept is not None
    assert kept.settings.across == chosen.across


def test_a_pid_that_was_given_away_is_not_the_process_it_was(me: Identity) -> None:
    assert me.alive
    assert not Identity(me.pid, me.born - 60).alive


def test_processes_without_this_stacks_mark_are_never_ended(tmp_path: Path, me: Identity) -> None:
    # A recorded part with our own pid: were it believed, this test would end itself.
    session = Identity.of(os.getsid(0)) or me
    assert end_leftovers([me, session, Identity(me.pid, me.born - 60)], tmp_path) == 0
    assert me.alive


def test_one_folder_has_one_supervisor(tmp_path: Path) -> None:
    with (
        sole_supervisor(tmp_path),
        pytest.raises(StackError, match="already running"),
        sole_supervisor(tmp_path),
    ):
        pass
    with sole_supervisor(tmp_path):
        pass


def test_a_long_log_is_cut_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        logs.bound(log, limit=100)
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "part.log.1").read_bytes() == b"old\n" * 100


def test_a_short_log_stays(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    log.write_text("one\n\ntwo\nthree\n")
    logs.bound(log, limit=100)
    assert logs.tail(log, 2) == ["two", "three"]
    assert logs.tail(tmp_path / "none.log", 2) == []


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_clean_removes_only_what_is_the_stacks(tmp_path: Path) -> None:
    for name in ("data", "logs", "run", "mine"):
        (tmp_path / name).mkdir()
    assert await clean(tmp_path)
    assert names(tmp_path) == ["mine"]
    assert not await clean(tmp_path)


def test_a_state_that_many_threads_write_is_whole_at_every_moment(tmp_path: Path, me: Identity) -> None:
    short, long = (some_state(tmp_path, me) for _ in range(2))
    long.failure = "x" * 10_000
    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(write_state, state) for state in [short, long] * 100]
        for each in writing:
            each.result()
            assert read_state(tmp_path) in (short, long)
