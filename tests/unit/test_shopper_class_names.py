"""shopper: what classes are called where the model only counts them."""

import asyncio
from typing import Any

import pytest
import structlog

from caravan.errors import Transient
from caravan.manifest import Lineage, Manifest
from shopper.model import class_names
from shopper.model.class_names import ClassNames

CLASSES = ("shirt", "bag", "boot")


class Bucket:
    """The edge's bucket `production`, or what is left of it."""

    def __init__(self, *classes: str) -> None:
        self.manifest: bytes | Exception = Manifest("m", 3, (), Lineage(classes=classes)).to_json()
        self.reads: list[str] = []

    async def read(self, key: str) -> bytes:
        self.reads.append(key)
        await asyncio.sleep(0)
        if isinstance(self.manifest, Exception):
            raise self.manifest
        return self.manifest


async def test_the_manifest_of_the_version_names_them_and_is_read_once() -> None:
    bucket = Bucket(*CLASSES)
    names = ClassNames(bucket.read, {"m": ("a", "b", "c")})
    answers = await asyncio.gather(*(names.of("m", 3, 3) for _ in range(10)))
    assert set(answers) == {CLASSES}
    assert bucket.reads == ["models/m/3/manifest.json"]


@pytest.mark.parametrize(
    "fault", [FileNotFoundError("none"), Transient("away"), TimeoutError(), b"{", b'{"schema": 99}']
)
async def test_without_a_manifest_the_setting_names_them(fault: Any) -> None:
    bucket = Bucket()
    bucket.manifest = fault
    names = ClassNames(bucket.read, {"m": CLASSES})
    assert await names.of("m", 3, 3) == CLASSES
    assert await names.of("other", 3, 2) == ("0", "1")
    await names.of("m", 3, 3)
    assert len(bucket.reads) == 2  # it is not asked for with every image


async def test_a_manifest_that_comes_later_is_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_names, "ASK_AGAIN_SECONDS", 0.0)
    bucket = Bucket(*CLASSES)
    whole, bucket.manifest = bucket.manifest, FileNotFoundError("not yet")
    names = ClassNames(bucket.read, {})
    assert await names.of("m", 3, 3) == ("0", "1", "2")
    bucket.manifest = whole
    assert await names.of("m", 3, 3) == CLASSES


async def test_where_the_server_names_no_version_the_setting_names_them() -> None:
    bucket = Bucket(*CLASSES)
    assert await ClassNames(bucket.read, {"m": CLASSES}).of("m", 0, 3) == CLASSES
    assert bucket.reads == []


@pytest.mark.parametrize("classes", [("shirt", "bag"), ("shirt", "bag", "bag")])
async def test_names_that_do_not_fit_are_not_used_and_said_once(classes: tuple[str, ...]) -> None:
    names = ClassNames(Bucket(*classes).read, {})
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            assert await names.of("m", 3, 3) == ("0", "1", "2")
    assert [line["event"] for line in lines] == ["class names do not fit"]
