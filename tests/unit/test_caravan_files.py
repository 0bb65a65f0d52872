"""Files are written whole or not at all, and are on the disk with their names before anybody goes on."""

import errno
import os
import stat
from pathlib import Path

import pytest

from caravan.files import sync, write_file


class Disk:
    """What was brought to it: of each file and folder what it held then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: dict[int, bytes | set[str]] = {}
        self.is_full = False
        self._place = type(Path())  # of this system, whichever a test is told of
        monkeypatch.setattr(os, "fsync", self._sync)

    def _sync(self, number: int) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no room")
        path = self._place(f"/proc/self/fd/{number}").readlink()
        content = {entry.name for entry in path.iterdir()} if path.is_dir() else path.read_bytes()
        self.held[os.fstat(number).st_ino] = content

    def of(self, path: Path) -> bytes | set[str]:
        return self.held[path.stat().st_ino]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_file_is_on_the_disk_with_its_name_and_those_of_new_folders(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "a" / "b" / "key.pem"
    for content in (b"first", b"second"):
        write_file(path, content)
        assert (disk.of(path), path.read_bytes()) == (content, content)
    assert [disk.of(folder) for folder in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")] == [
        {"a"},
        {"b"},
        {"key.pem"},
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_on_windows_a_file_is_brought_to_the_disk_and_no_folder_is_opened(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(b"first")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        sync(bytes(path))
        sync(bytes(tmp_path))
    assert list(disk.held.values()) == [b"first"]


def test_what_the_disk_does_not_take_leaves_what_was_there(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "key.pem"
    write_file(path, b"first")
    disk.is_full = True
    with pytest.raises(OSError, match="no room"):
        write_file(path, b"second")
    assert [(each, each.read_bytes()) for each in tmp_path.iterdir()] == [(path, b"first")]


def test_what_can_be_made_again_is_written_whole_and_not_waited_for(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "cache" / "page.html"
    write_file(path, b"page", durable=False)
    assert (path.read_bytes(), disk.held) == (b"page", {})
