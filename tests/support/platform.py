"""The platform as its users and operators see it, for tests that run against a real stack."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from caravan import s3
from lab.photos import render_zip
from local_stack.stack import Stack

EDGE = "edge1"


class Platform:
    """The stack as a user and an operator see it."""

    def __init__(self, stack: Stack, client: httpx.AsyncClient, folder: Path) -> None:
        self.stack = stack
        self.client = client
        self.folder = folder

    # --- doors ----------------------------------------------------------------------------------

    async def upload(self, archive: Path) -> httpx.Response:
        """Send a ZIP to the feeder once."""
        url = f"{self.stack.url('feeder')}/zip"
        return await self.client.put(
            url, params={"edgeId": EDGE}, content=await asyncio.to_thread(archive.read_bytes)
        )

    async def upload_until_taken(self, archive: Path) -> dict[str, Any]:
        """Send a ZIP as a stubborn client does: again, until it is answered with success."""
        answers: list[dict[str, Any]] = []

        async def taken() -> bool:
            try:
                answer = await self.upload(archive)
            except httpx.TransportError:
                return False
            if answer.is_success:
                answers.append(answer.json())
            return answer.is_success

        await eventually(taken, 90)
        return answers[0]

    async def detect(self, photo: bytes) -> httpx.Response:
        """Ask the shopper what a photo shows."""
        body = {"image": base64.b64encode(photo).decode()}
        return await self.client.post(f"{self.stack.url(f'shopper-{EDGE}')}/detection", json=body)

    async def serving(self) -> int:
        """Return the newest version that the model server answers with; 0 if it has none."""
        try:
            answer = await self.client.get(
                f"{self.stack.url(f'model-server-{EDGE}', 'rest')}/v1/models/tea_model_b64"
            )
        except httpx.TransportError:
            return 0
        states = answer.json().get("model_version_status", [])
        return max((int(s["version"]) for s in states if s["state"] == "AVAILABLE"), default=0)

    async def wait_serving(self, version: int, seconds: float = 150) -> None:
        """Wait until a version, or a newer one, serves."""

        async def serves() -> bool:
            return await self.serving() >= version

        await eventually(serves, seconds)

    async def runs(self) -> dict[str, Any]:
        """Return the training listener's runs: `current`, `waiting`, `last`."""
        answer = await self.client.get(f"{self.stack.url('training')}/runs")
        runs: dict[str, Any] = answer.json()
        return runs

    async def settled(self, seconds: float = 150) -> None:
        """Wait until no run goes on or waits, and the edge serves the newest version that is ready."""

        async def quiet() -> bool:
            try:
                runs = await self.runs()
            except httpx.TransportError:
                return False
            keys = await self.central(f"{EDGE}-ready", "models/")
            newest = max(int(key.split("/")[2]) for key in keys)
            return not runs["current"] and not runs["waiting"] and await self.serving() == newest

        await eventually(quiet, seconds)

    async def operator(self, *words: str) -> int:
        """Run an operator's command, `python -m …`, as `make` does; return its exit code."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "local_stack", "exec", "--edge", EDGE, "--", "python", "-m", *words),
            env=os.environ | {"CARAVAN_HOME": str(self.stack.settings.home)},
        )
        return await process.wait()

    # --- stores ---------------------------------------------------------------------------------

    async def central(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """List a bucket at central: key to size."""
        return await self._list("s3-central", bucket, prefix)

    async def edge(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """List a bucket at the edge: key to size."""
        return await self._list(f"s3-{EDGE}", bucket, prefix)

    async def read(self, part: str, bucket: str, key: str) -> bytes:
        """Return an object's content; `part` is `s3-central` or `s3-<edge>`."""
        return await s3.read(s3.open_bucket(self.stack.s3(part), bucket), key)

    async def forget(self, bucket: str, prefix: str) -> None:
        """Take objects out of a bucket at the edge."""
        store = s3.open_bucket(self.stack.s3(f"s3-{EDGE}"), bucket)
        await s3.delete(store, list(await self.edge(bucket, prefix)))

    async def _list(self, part: str, bucket: str, prefix: str) -> dict[str, int]:
        store = s3.open_bucket(self.stack.s3(part), bucket)
        return {entry["path"]: entry["size"] async for entry in s3.listing(store, prefix)}

    # --- photos ---------------------------------------------------------------------------------

    def archive(self, seed: int, **classes: int) -> Path:
        """Render a ZIP, once for each seed: `archive(7, other=20, tea_lemon=20)`."""
        path = self.folder / f"{seed}.zip"
        if not path.exists():
            render_zip(path, {name.replace("_", "-"): count for name, count in classes.items()}, seed)
        return path


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Poll until it holds, or fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, f"{holds.__qualname__} did not come true in {seconds} s"
        await asyncio.sleep(0.1)
