"""A folder that a process has for itself is refused to the next."""

import subprocess
import sys
from pathlib import Path

import pytest

from caravan.errors import Permanent, Transient
from caravan.locks import held

HOLD = """
import sys, pathlib
from caravan.locks import held
with held(pathlib.Path(sys.argv[1]), "SPOOL_DIR"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_gone_however_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        (folder / "mine.part").write_bytes(b"x")
        with pytest.raises(Transient, match="SPOOL_DIR: another process uses"), held(folder, "SPOOL_DIR"):
            pass
        first.kill()
    assert (folder / "mine.part").exists()
    with held(folder, "SPOOL_DIR"):
        pass


def test_a_folder_is_let_go_at_the_end(tmp_path: Path) -> None:
    for _ in range(2):
        with held(tmp_path, "SPOOL_DIR"), pytest.raises(Transient), held(tmp_path, "SPOOL_DIR"):
            pass


def test_a_folder_that_cannot_be_made_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(Permanent, match=r"SPOOL_DIR: .* cannot be written"),
        held(tmp_path / "file", "SPOOL_DIR"),
    ):
        pass
