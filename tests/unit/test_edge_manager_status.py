"""edge-manager: what central is told of how things stand, which it cannot ask."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from obstore.store import MemoryStore
from prometheus_client import REGISTRY

from caravan.errors import Transient
from caravan.testing.waiting import running, until
from edge_manager import status
from edge_manager.central import Central
from edge_manager.edge import Edge
from edge_manager.known import Known, Model, Rules
from edge_manager.model_server import ModelServer, State
from edge_manager.records import Records
from edge_manager.versions import Ref, Refused


@pytest.fixture
async def edge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edge]:
    monkeypatch.setattr(status, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr("caravan.retry.FIRST_WAIT", 0.001)
    async with httpx.AsyncClient() as client:
        yield Edge(
            central=Central(MemoryStore()),
            sinks=(),
            server=ModelServer(client),
            records=Records(MemoryStore()),
            post=lambda _: None,
            rules=Rules("edge1"),
            clock=time.monotonic,
            known=Known(models={"tea": serving(1)}, is_seen=True),
        )


def serving(version: int) -> Model:
    return Model(states={version: State("AVAILABLE")})


class Listener:
    """Central, which takes what it is told, unless the link is cut."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.tries = 0
        self.cut = False

    async def send(self, value: bytes) -> None:
        self.tries += 1
        if self.cut:
            raise Transient("the link is cut")
        self.told.append(json.loads(value))


@asynccontextmanager
async def telling(edge: Edge, central: Listener, every: float = 3600) -> AsyncIterator[None]:
    async with running(status.tell_status(edge, "edge1", central.send, every)):
        yield


async def test_central_is_told_at_the_start_and_whenever_something_changes(edge: Edge) -> None:
    central = Listener()
    async with telling(edge, central):
        await until(lambda: len(central.told) == 1)
        since = await edge.records.serve(Ref("tea", 2))
        why = await edge.records.refuse(Ref("tea", 3), "f", Refused("content", "a byte is wrong"))
        edge.known = replace(
            edge.known,
            models={"tea": serving(2)},
            served={Ref("tea", 2): since},
            refused={Ref("tea", 3): why},
        )
        await until(lambda: bool(central.told[-1]["models"]["tea"]["refused"]))
    first, last = central.told[0], central.told[-1]
    assert (first["schema"], first["edge"], first["central"]) == (1, "edge1", "ok")
    assert (first["models"]["tea"]["serving"], first["models"]["tea"]["serving_since"]) == (1, None)
    tea = last["models"]["tea"]
    assert tea["serving"] == 2
    assert tea["serving_since"] is not None
    assert [(one["version"], one["reason"]) for one in tea["refused"]] == [(3, "a byte is wrong")]


async def test_central_is_told_again_after_a_while_though_nothing_changes(edge: Edge) -> None:
    central = Listener()
    async with telling(edge, central, every=0.005):
        await until(lambda: len(central.told) >= 3)


async def test_nothing_is_told_before_the_first_look(edge: Edge) -> None:
    central = Listener()
    edge.known = replace(edge.known, is_seen=False)
    async with telling(edge, central, every=0):
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert central.told == []
        edge.known = replace(edge.known, is_seen=True)
        await until(lambda: bool(central.told))


async def test_a_cut_link_costs_nothing_and_all_is_told_once_it_is_back(edge: Edge) -> None:
    counted = "caravan_best_effort_failures_total"
    before = REGISTRY.get_sample_value(counted, {"sink": "edge-status"}) or 0
    central = Listener()
    central.cut = True
    async with telling(edge, central):
        await until(lambda: central.tries >= 2)
        edge.known = replace(edge.known, models={"tea": serving(7)})
        central.cut = False
        await until(lambda: bool(central.told))
    assert central.told[0]["models"]["tea"]["serving"] == 7
    assert (REGISTRY.get_sample_value(counted, {"sink": "edge-status"}) or 0) >= before + 2


async def test_since_when_a_version_serves_outlives_a_restart() -> None:
    store = MemoryStore()
    since = await Records(store).serve(Ref("tea", 4))
    found, _, _ = await Records(store).load()
    assert abs((found[Ref("tea", 4)] - since).total_seconds()) < 5
