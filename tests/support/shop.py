"""What people at central and at the edge do and see, through the doors of both sites."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from xml.etree import ElementTree as ET

import aiomqtt
import httpx

from caravan.contracts import DEFAULT_MODEL
from caravan.manifest import Manifest
from lab.photos import render_zip
from support.platform import eventually
from support.sites import Site, Sites

EDGE = "edge1"
MODEL = f"models/{DEFAULT_MODEL}/"
DOORS = {
    "central": ("S3_CENTRAL_PORT", "TRAINING_PORT", "HUB_PORT"),
    "edge": ("SHOPPER_PORT", "TFSERVING_REST_PORT", "S3_EDGE_PORT", "EDGE_MANAGER_PORT", "MONITOR_PORT"),
}
_S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Shop:
    """Both sites, as their people see them. `answered` counts the detections with an answer."""

    def __init__(self, sites: Sites, folder: Path) -> None:
        self.sites = sites
        self.central = sites.central
        self.edge = sites.edge
        self.folder = folder
        self.answered = 0
        self.events: list[bytes] = []
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._mqtt: aiomqtt.Client

    @classmethod
    @asynccontextmanager
    async def open(cls, sites: Sites, folder: Path) -> AsyncIterator[Self]:
        """Look into both sites; from here on every event at the edge is heard."""
        shop = cls(sites, folder)
        async with AsyncExitStack() as stack:
            for site in (sites.central, sites.edge):
                for door in DOORS[site.name]:
                    shop._clients[door] = await stack.enter_async_context(site.client(door))
            listener = await stack.enter_async_context(shop._mqtt_client())
            await listener.subscribe("monitor", qos=1)
            shop._mqtt = await stack.enter_async_context(shop._mqtt_client())
            await shop._mqtt.subscribe("response/detection/till", qos=1)
            listening = asyncio.create_task(shop._listen(listener))
            try:
                yield shop
                assert not listening.done(), "the edge's broker hung up"
            finally:
                listening.cancel()
                await asyncio.wait([listening])

    def _mqtt_client(self) -> aiomqtt.Client:
        return aiomqtt.Client(str(self.edge.window("MQTT_PORT")), transport="unix", timeout=60)

    async def _listen(self, listener: aiomqtt.Client) -> None:
        async for message in listener.messages:
            assert isinstance(message.payload, bytes)
            self.events.append(message.payload)

    async def get(self, door: str, path: str) -> httpx.Response:
        """Ask a door: `await shop.get("HUB_PORT", "/hub")`."""
        return await self._clients[door].get(path)

    async def checks(self, door: str) -> dict[str, str]:
        """Return what a service of the edge says of what it needs."""
        checks: dict[str, str] = (await self.get(door, "/readyz")).json()["checks"]
        return checks

    # --- at central -------------------------------------------------------------------------------

    async def upload(self, seed: int, **classes: int) -> dict[str, Any]:
        """Render photos and send them as a ZIP with curl, at central; return the feeder's answer."""
        archive = self.folder / f"{seed}.zip"
        counts = {name.replace("_", "-"): count for name, count in classes.items()}
        await asyncio.to_thread(render_zip, archive, counts, seed)
        url = f"http://127.0.0.1:8081/zip?edgeId={EDGE}"
        code, said = await self.central.run("curl", "--silent", "--fail-with-body", "-T", str(archive), url)
        assert code == 0, said
        answer: dict[str, Any] = json.loads(said)
        return answer

    async def offered(self) -> list[int]:
        """Return the versions that central has ready, in order."""
        keys = await self.keys("S3_CENTRAL_PORT", f"{EDGE}-ready", MODEL)
        return sorted(int(key.split("/")[2]) for key in keys if key.endswith("/manifest.json"))

    async def at_rest(self) -> bool:
        """Tell whether nothing is trained, or waits for it."""
        runs = (await self.get("TRAINING_PORT", "/runs")).json()
        return not runs["current"] and not runs["waiting"]

    async def counted(self) -> int:
        """Return how many detections of the edge the hub has counted."""
        cameras = (await self.get("HUB_PORT", "/hub")).json()["cameras"]
        return sum(
            sum(camera["totals"][kind].values())
            for camera in cameras
            if camera["edge"] == EDGE
            for kind in ("certain", "uncertain")
        )

    async def topic(self, name: str) -> list[str]:
        """Return all messages of a Kafka topic."""
        code, said = await self.central.run("python", "-m", "support.topic", "read", name)
        assert code == 0, said
        return [json.loads(line) for line in said.splitlines()]

    # --- at the edge ------------------------------------------------------------------------------

    async def detect(self, photo: bytes) -> dict[str, Any]:
        """Ask the shopper what a photo shows, over HTTP."""
        answer = await self._clients["SHOPPER_PORT"].post("/binary", content=photo)
        assert answer.status_code == 200, answer.text
        self.answered += 1
        found: dict[str, Any] = answer.json()
        return found

    async def detect_by_mqtt(self, photo: bytes) -> dict[str, Any]:
        """Ask it over MQTT; one at a time."""
        body = json.dumps({"image": base64.b64encode(photo).decode()})
        await self._mqtt.publish("detection/till", body, qos=1)
        async with asyncio.timeout(60):
            found: dict[str, Any] = json.loads((await anext(self._mqtt.messages)).payload)
        assert "known" in found, found
        self.answered += 1
        return found

    async def teach(self, photos: Sequence[bytes], product: str) -> None:
        """Ingest photos of a product."""
        for photo in photos:
            body = {"image": base64.b64encode(photo).decode(), "product": product}
            answer = await self._clients["SHOPPER_PORT"].post("/ingestion", json=body)
            assert answer.json() == {"status": "done"}

    async def push(self) -> str:
        """Have the taught photos sent to central; return what is said of it."""
        status: str = (await self._clients["SHOPPER_PORT"].post("/zip")).json()["status"]
        return status

    async def serving(self) -> int:
        """Return the newest version that serves; 0 if none does."""
        answer = (await self.get("TFSERVING_REST_PORT", f"/v1/models/{DEFAULT_MODEL}")).json()
        states = answer.get("model_version_status", [])
        return max((int(s["version"]) for s in states if s["state"] == "AVAILABLE"), default=0)

    async def wait_serving(self, version: int, seconds: float = 120) -> None:
        """Wait until a version, or a newer one, serves."""

        async def serves() -> bool:
            return await self.serving() >= version

        await eventually(serves, seconds)

    async def copying(self) -> bool:
        """Tell whether a version is on its way into the edge's store."""
        metrics = (await self.get("EDGE_MANAGER_PORT", "/metrics")).text
        return 'caravan_exchanges_in_flight{route="model-sync"} 1.0' in metrics

    async def assert_versions_are_whole(self) -> None:
        """Every version that the model server would load has all the files of its manifest."""
        keys = await self.keys("S3_EDGE_PORT", "production", MODEL)
        for key in [key for key in keys if key.endswith("/saved_model.pb")]:
            prefix = key.removesuffix("saved_model.pb")
            raw = (await self.get("S3_EDGE_PORT", f"/production/{prefix}manifest.json")).content
            wanted = {f"{prefix}{file.path}": file.size for file in Manifest.from_json(raw).files}
            assert wanted.items() <= keys.items()

    async def unheard(self) -> Counter[str]:
        """Return the events of Kafka that did not come to MQTT, with how many are missing of each."""
        sent = Counter(await self.topic(EDGE))
        return sent - Counter(event.decode() for event in self.events)

    # --- stores -----------------------------------------------------------------------------------

    async def keys(self, door: str, bucket: str, prefix: str) -> dict[str, int]:
        """List a bucket of less than a thousand objects: key to size."""
        query = f"list-type=2&max-keys=1000&prefix={quote(prefix, safe='')}"
        answer = (await self.get(door, f"/{bucket}?{query}")).raise_for_status()
        root = ET.fromstring(answer.content)
        entries = root.iter(f"{_S3}Contents")
        return {entry.findtext(f"{_S3}Key", ""): int(entry.findtext(f"{_S3}Size", "0")) for entry in entries}

    async def images_at_central(self) -> int:
        """Return how many training images central has."""
        return len(await self.keys("S3_CENTRAL_PORT", f"{EDGE}-data", "images/"))

    async def waiting_at_the_edge(self) -> int:
        """Return how many training images are still to be sent."""
        return len(await self.keys("S3_EDGE_PORT", "data", "images/"))


def ports(site: Site) -> dict[str, int]:
    """Every port that a site listens on, by part and name."""
    return {f"{part.name} {name}": port for part in site.state.parts for name, port in part.ports.items()}
