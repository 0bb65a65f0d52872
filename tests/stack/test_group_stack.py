"""Edges that share a model: what one is taught all serve, but for what one of them has for itself."""

import asyncio
from pathlib import Path

import httpx
import pytest

from caravan import rollouts, s3
from caravan.contracts import DEFAULT_MODEL
from caravan.manifest import Manifest, Shared
from lab.photos import render_zip
from local_stack.stack import Stack
from support.platform import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

EDGES = ("edge1", "edge2")


async def serving(stack: Stack, client: httpx.AsyncClient, edge: str) -> int:
    address = f"{stack.url(f'model-server-{edge}', 'rest')}/v1/models/{DEFAULT_MODEL}"
    try:
        answer = await client.get(address)
    except httpx.TransportError:
        return 0
    states = answer.json().get("model_version_status", [])
    return max((int(each["version"]) for each in states if each["state"] == "AVAILABLE"), default=0)


async def test_what_one_edge_of_a_group_is_taught_comes_to_all_of_it_ring_by_ring(tmp_path: Path) -> None:
    photos = tmp_path / "photos.zip"
    await asyncio.to_thread(render_zip, photos, {"other": 12, "tea-green": 12}, 5)
    parts = ("feeder", "delivery", "training", "edge-manager")
    home, groups, rings = tmp_path / "stack", "north=edge2,edge1", {"ROLLOUT": "1,100%", "ROLLOUT_SOAK": "1"}
    async with (
        Stack(home, edges=EDGES, edge_groups=groups, parts=parts, environment=rings, lasting=False) as stack,
        httpx.AsyncClient(timeout=60) as client,
    ):
        door = f"{stack.url('feeder')}/zip"
        answer = await client.put(door, params={"edgeId": "edge1"}, content=photos.read_bytes())
        assert answer.status_code == 200

        async def both_serve() -> bool:
            last, first = [await serving(stack, client, edge) == 1 for edge in EDGES]
            assert first or not last, "the second ring serves before the first one does"
            return first and last

        await eventually(both_serve, 180)
        central = stack.s3("s3-central")
        models = s3.open_bucket(central, "north-models")

        async def is_done() -> bool:
            found, _ = await rollouts.read(models, DEFAULT_MODEL)
            return found is not None and (found.version, found.state) == (1, "done")

        await eventually(is_done, 60)
        for edge in EDGES:
            store = s3.open_bucket(central, f"{edge}-ready")
            keys = [entry["path"] for entry in await s3.listed(store, "models/")]
            assert keys == [f"models/{DEFAULT_MODEL}/1/manifest.json"]
            assert Manifest.from_json(await s3.read(store, keys[0])).shared == Shared("north", 1)


async def test_an_edge_with_a_product_of_its_own_serves_it_beside_what_its_group_is_taught(
    tmp_path: Path,
) -> None:
    shared, own = tmp_path / "shared.zip", tmp_path / "own.zip"
    await asyncio.to_thread(render_zip, shared, {"other": 12, "tea-green": 12}, 5)
    await asyncio.to_thread(render_zip, own, {"tea-earl-grey": 12}, 6)
    parts, groups = ("feeder", "delivery", "training", "edge-manager"), "north=edge1,edge2"
    async with (
        Stack(
            tmp_path / "stack",
            edges=EDGES,
            edge_groups=groups,
            edge_products="edge1=tea-earl-grey",
            parts=parts,
            lasting=False,
        ) as stack,
        httpx.AsyncClient(timeout=60) as client,
    ):
        door = f"{stack.url('feeder')}/zip"
        for edge, photos in (("edge2", shared), ("edge1", own)):
            answer = await client.put(door, params={"edgeId": edge}, content=photos.read_bytes())
            assert answer.status_code == 200
        central = stack.s3("s3-central")

        async def served(edge: str) -> tuple[str, ...]:
            number = await serving(stack, client, edge)
            if not number:
                return ()
            store = s3.open_bucket(central, f"{edge}-ready")
            key = f"models/{DEFAULT_MODEL}/{number}/manifest.json"
            manifest = Manifest.from_json(await s3.read(store, key))
            assert (manifest.shared is None) == (edge == "edge1")
            return tuple(manifest.lineage.classes)

        async def each_serves_its_own() -> bool:
            found = [await served(edge) for edge in EDGES]
            return found == [("other", "tea-earl-grey", "tea-green"), ("other", "tea-green")]

        await eventually(each_serves_its_own, 240)
