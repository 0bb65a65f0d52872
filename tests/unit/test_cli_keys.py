"""Keys are made and changed on the command line, and each step leaves files that the edges can use."""

import errno
import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from caravan.manifest import Manifest
from caravan.model_signature import verify
from caravan.signatures import read_private_key, read_public_keys, sign
from caravan_cli.__main__ import commands


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(commands, ["keys", *map(str, words)])


def is_taken(private: Path, public: Path) -> bool:
    """Tell whether edges with these public keys take what is signed with that key."""
    _, signature = sign(Manifest("tea", 1, ()), read_private_key(private))
    assert signature is not None
    return "manifest.json" in verify(signature, read_public_keys(public).models)


def test_a_new_key_has_a_private_half_for_its_owner_alone_and_a_public_one(tmp_path: Path) -> None:
    private, public = tmp_path / "signing.pem", tmp_path / "signing.pub.pem"
    assert run("new", private).exit_code == 0
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert is_taken(private, public)


def test_a_key_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    private = tmp_path / "signing.pem"
    run("new", private)
    before = private.read_bytes()
    again = run("new", private)
    assert (again.exit_code, private.read_bytes()) == (1, before)
    assert "rotate" in again.output


def test_a_key_that_the_disk_does_not_hold_is_neither_told_of_nor_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "fsync", full)
    found = run("new", tmp_path / "signing.pem")
    assert (found.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert "SIGNING_KEY" not in found.output


def test_while_a_key_is_changed_the_edges_take_what_either_has_signed(tmp_path: Path) -> None:
    private, after, public = (tmp_path / f"signing{end}.pem" for end in ("", ".next", ".pub"))
    run("new", private)
    assert run("rotate", private).exit_code == 0
    assert is_taken(private, public)
    assert is_taken(after, public)
    assert run("rotate", private).exit_code == 1


def test_without_a_key_there_is_none_to_change(tmp_path: Path) -> None:
    found = run("rotate", tmp_path / "signing.pem")
    assert (found.exit_code, list(tmp_path.iterdir())) == (1, [])
