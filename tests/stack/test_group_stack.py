"""Two edges that share a model: what one of them is taught, both serve."""

import asyncio
from pathlib import Path

import httpx
import pytest

from caravan import s3
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


async def test_what_one_edge_of_a_group_is_taught_all_of_it_serve(tmp_path: Path) -> None:
    photos = tmp_path / "photos.zip"
    await asyncio.to_thread(render_zip, photos, {"other": 12, "tea-green": 12}, 5)
    parts = ("feeder", "delivery", "training", "edge-manager")
    home, groups = tmp_path / "stack", "north=edge1,edge2"
    async with (
        Stack(home, edges=EDGES, edge_groups=groups, parts=parts, lasting=False) as stack,
        httpx.AsyncClient(timeout=60) as client,
    ):
        door = f"{stack.url('feeder')}/zip"
        answer = await client.put(door, params={"edgeId": "edge1"}, content=photos.read_bytes())
        assert answer.status_code == 200

        async def both_serve() -> bool:
            return all([await serving(stack, client, edge) == 1 for edge in EDGES])

        await eventually(both_serve, 180)
        central = stack.s3("s3-central")
        for edge in EDGES:
            store = s3.open_bucket(central, f"{edge}-ready")
            keys = [entry["path"] for entry in await s3.listed(store, "models/")]
            assert keys == [f"models/{DEFAULT_MODEL}/1/manifest.json"]
            assert Manifest.from_json(await s3.read(store, keys[0])).shared == Shared("north", 1)
