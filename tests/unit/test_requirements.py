"""What images install: pins of one lock, which names no host, and no more than they have use for."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

FOLDER = Path(__file__).parents[2] / "requirements"
MEGABYTES = {
    "cli": 85,
    "delivery": 47,
    "edge": 280,
    "edge-manager": 82,
    "feeder": 86,
    "monitor": 64,
    "shopper": 172,
}
"""Of the wheels of an image without TensorFlow, unpacked, at most: a tenth above what they are."""
SERVICES = sorted(path.parents[1].name for path in FOLDER.parent.glob("services/*/*/app.py"))


def pins(image: str) -> dict[str, Requirement]:
    lines = (FOLDER / f"{image}.txt").read_text().splitlines()
    found = [Requirement(line.rstrip(" \\")) for line in lines if line and line[0] not in " #"]
    return {each.name: each for each in found}


def megabytes(requirement: Requirement) -> float:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return 0.0
    try:
        files = distribution(requirement.name).files or []
    except PackageNotFoundError:
        pytest.skip(f"{requirement.name} is not installed: make setup")
    return sum(file.size or 0 for file in files) / 1e6


@pytest.mark.parametrize("image", sorted({*MEGABYTES, *SERVICES}))
def test_an_image_is_no_larger_than_its_work_asks_for(image: str) -> None:
    sizes = {name: round(megabytes(each), 1) for name, each in pins(image).items()}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:10]
    assert sum(sizes.values()) <= MEGABYTES[image], largest


@pytest.mark.parametrize("image", [*MEGABYTES, "model-server", "training"])
def test_an_image_has_what_the_one_lock_pins(image: str) -> None:
    locked = pins("all")
    assert {name for name, each in pins(image).items() if each.specifier != locked[name].specifier} == set()


@pytest.mark.parametrize("image", ["edge", *SERVICES])
def test_no_service_carries_a_command_line(image: str) -> None:
    assert not {"rich", "typer"} & set(pins(image))


@pytest.mark.parametrize("file", FOLDER.glob("**/*.txt"), ids=lambda file: file.stem)
def test_a_lock_names_no_host(file: Path) -> None:
    assert "://" not in file.read_text()
