"""An edge on a small box: whatever its parts need is there built for 64-bit ARM, for each Python."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.dockerfiles import ROOT

UV = Path(sys.executable).with_name("uv")
EDGE = ("shopper", "edge-manager", "monitor", "model-server", "edge")
AWAY = ("Failed to fetch", "error sending request", "Request failed", "the network was disabled")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("part", EDGE)
def test_an_edges_pins_have_wheels_for_arm(part: str, version: str, tmp_path: Path) -> None:
    found = subprocess.run(
        [
            *(UV, "pip", "install", "--dry-run", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--python-platform", "aarch64-manylinux_2_28"),
            *("--python-version", version, "--target", tmp_path, "-r", ROOT / "requirements" / f"{part}.txt"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if any(words in found.stderr for words in AWAY):
        pytest.skip("no package index can be reached, to ask for wheels")
    assert found.returncode == 0, found.stderr


def test_a_package_without_a_wheel_is_found(tmp_path: Path) -> None:
    found = subprocess.run(
        [
            *(UV, "pip", "install", "--dry-run", "--quiet", "--no-deps", "--no-index"),
            *("--only-binary", ":all:", "--python-platform", "aarch64-manylinux_2_28"),
            *("--find-links", tmp_path, "--target", tmp_path, "caravan-without-a-wheel==1"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode != 0
    assert not any(words in found.stderr for words in AWAY)
