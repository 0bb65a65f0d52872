"""The feeder's buckets and topics: made edge by edge, made again, and what `/readyz` tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from caravan import kafka_topics, s3
from caravan.errors import Refused, Transient
from caravan.settings import S3Address
from caravan.testing.waiting import running, until
from feeder import preparation as preparing
from feeder.preparation import Preparation
from feeder.settings import FeederSettings

EDGES = ("edge1", "edge2")


class Central:
    """S3 and Kafka at the centre: what was made, by edge, and which edges' buckets hang or refuse."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self.refusing: set[str] = set()
        self.is_answering = dict.fromkeys(EDGES, True)
        self.changed = asyncio.Condition()
        patch.setattr(s3, "ensure_buckets", self._ensure_buckets)
        patch.setattr(kafka_topics, "ensure_topics", self._ensure_topics)

    async def answer(self, edge: str) -> None:
        async with self.changed:
            self.is_answering[edge] = True
            self.changed.notify_all()

    async def _ensure_buckets(self, _: S3Address, names: Collection[str]) -> None:
        edge = next(iter(names)).split("-")[0]
        async with self.changed:
            await self.changed.wait_for(lambda: self.is_answering[edge])
        if edge in self.refusing:
            raise Refused(f"{edge} refuses")
        self.made.append(edge)

    async def _ensure_topics(self, _: FeederSettings, names: Collection[str]) -> None:
        pass


@pytest.fixture
def central(monkeypatch: pytest.MonkeyPatch) -> Central:
    return Central(monkeypatch)


async def is_ready(preparation: Preparation) -> bool:
    try:
        await preparation.check()
    except Transient:
        return False
    return True


async def until_ready(preparation: Preparation) -> None:
    async with asyncio.timeout(20):
        while not await is_ready(preparation):
            await asyncio.sleep(0.001)


async def test_it_is_ready_once_the_buckets_of_each_edge_are_made_or_refused(central: Central) -> None:
    preparation = Preparation(FeederSettings(edges=EDGES))
    central.refusing = {"edge1"}
    central.is_answering = dict.fromkeys(EDGES, False)
    async with running(preparation.run()):
        assert not await is_ready(preparation)
        await central.answer("edge2")
        await until(lambda: central.made == ["edge2"])
        assert not await is_ready(preparation), "an upload to edge1 could come too early"
        await central.answer("edge1")
        await until_ready(preparation)
        assert {edge for edge, missing in preparation.missing.items() if missing.is_set()} == {"edge1"}


async def test_an_edge_whose_buckets_hang_is_not_waited_for_without_end(
    central: Central, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "HANG_SECONDS", 0.01)
    preparation = Preparation(FeederSettings(edges=EDGES))
    central.is_answering["edge1"] = False
    async with running(preparation.run()):
        await until_ready(preparation)
    assert central.made == ["edge2"]


async def test_it_is_not_ready_where_all_refuse(central: Central) -> None:
    preparation = Preparation(FeederSettings(edges=EDGES))
    central.refusing = set(EDGES)
    async with running(preparation.run()):
        for _ in range(20):
            await asyncio.sleep(0)
        assert not await is_ready(preparation)
        central.refusing = {"edge1"}
        await until_ready(preparation)


async def test_buckets_that_are_found_to_be_gone_are_made_again_at_once(central: Central) -> None:
    preparation = Preparation(FeederSettings(edges=EDGES))
    async with running(preparation.run()):
        await until_ready(preparation)
        preparation.missing["edge2"].set()
        await until(lambda: not preparation.missing["edge2"].is_set())
    assert central.made == ["edge1", "edge2", "edge2"]
