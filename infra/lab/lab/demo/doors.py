"""The doors that the demo knocks at: feeder, shopper, model server, and the manifest of a version."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from caravan import s3, strict_json
from caravan.contracts import DEFAULT_MODEL, MANIFEST, ready_bucket, version_prefix
from caravan.manifest import Manifest
from caravan.settings import S3Address
from lab.demo.errors import BadAnswer

CHUNK = 2**16
UPLOAD_SECONDS = 300.0
ANSWER_SECONDS = 15.0
OK = 200


@dataclass(frozen=True, slots=True)
class Price:
    """What the catalogue says of an item."""

    label: str
    price: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the shopper says of a photo; `guess` is the model's own choice where it is not known."""

    known: bool
    item: str
    label: str
    price: str
    pricetag: str
    score: float
    version: int

    @classmethod
    def parse(cls, reply: Any) -> Self:
        """Read a reply of `POST /detection`.

        Raises:
            BadAnswer: if it is none.

        """
        try:
            if reply["known"] not in ("true", "false"):
                raise BadAnswer(f"known is {reply['known']!r}")
            return cls(
                reply["known"] == "true",
                str(reply["item"]),
                str(reply["label"]),
                str(reply["price"]),
                str(reply["pricetag"]),
                float(reply["score"]),
                int(reply["version"]),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise BadAnswer(f"the shopper's reply lacks {exc}") from exc


@dataclass(frozen=True, slots=True)
class Doors:
    """Where they are; every call has a deadline and raises `BadAnswer` for anything but success."""

    http: httpx.AsyncClient
    edge: str
    feeder: str
    shopper: str
    model_server: str
    central: S3Address

    async def upload(self, path: Path, on_bytes: Callable[[int, int], None]) -> dict[str, Any]:
        """Send a ZIP as `curl -T` does; return the feeder's account. `on_bytes` is told sent and total."""
        size = (await asyncio.to_thread(path.stat)).st_size
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                response = await self.http.put(
                    f"{self.feeder}/zip",
                    params={"edgeId": self.edge},
                    content=_pieces(path, size, on_bytes),
                    headers={"content-length": str(size), "content-type": "application/zip"},
                    timeout=UPLOAD_SECONDS,
                )
        except TimeoutError as exc:
            raise BadAnswer(f"the feeder did not answer within {UPLOAD_SECONDS:.0f} s") from exc
        except httpx.HTTPError as exc:
            raise BadAnswer(f"the feeder: {exc!r}") from exc
        account = _decoded(response, "the feeder")
        if not isinstance(account, dict) or account.get("status") != "done":
            raise BadAnswer(f"the feeder answered {account}")
        return account

    async def detect(self, photo: bytes) -> Answer:
        """Ask the shopper what is on a photo, and what it costs."""
        body = {"image": base64.b64encode(photo).decode()}
        return Answer.parse(await self._ask("the shopper", "POST", f"{self.shopper}/detection", json=body))

    async def price(self, item: str) -> Price:
        """Ask the shopper for an item's label and price."""
        reply = await self._ask("the shopper", "GET", f"{self.shopper}/price", headers={"item": item})
        try:
            return Price(str(reply["label"]), str(reply["price"]))
        except (KeyError, TypeError) as exc:
            raise BadAnswer(f"the price of {item} lacks {exc}") from exc

    async def available(self) -> list[int]:
        """Ask the model server which versions it serves."""
        reply = await self._ask("the model server", "GET", f"{self.model_server}/v1/models/{DEFAULT_MODEL}")
        try:
            return [int(v["version"]) for v in reply["model_version_status"] if v["state"] == "AVAILABLE"]
        except (KeyError, TypeError, ValueError) as exc:
            raise BadAnswer(f"the model server's status lacks {exc}") from exc

    async def manifest(self, version: int) -> Manifest:
        """Read a version's manifest out of the bucket from which the edge took it."""
        store = s3.open_bucket(self.central, ready_bucket(self.edge))
        key = version_prefix(DEFAULT_MODEL, version) + MANIFEST
        try:
            return Manifest.from_json(await s3.read(store, key))
        except FileNotFoundError as exc:
            raise BadAnswer(f"there is no {key} in {ready_bucket(self.edge)}") from exc

    async def _ask(self, whom: str, method: str, url: str, **options: Any) -> Any:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return _decoded(await self.http.request(method, url, timeout=ANSWER_SECONDS, **options), whom)
        except TimeoutError as exc:
            raise BadAnswer(f"{whom} did not answer within {ANSWER_SECONDS:.0f} s") from exc
        except httpx.HTTPError as exc:
            raise BadAnswer(f"{whom}: {exc!r}") from exc


def _decoded(response: httpx.Response, whom: str) -> Any:
    if response.status_code != OK:
        raise BadAnswer(f"{whom} answered {response.status_code}: {response.text[:300]}")
    try:
        return strict_json.loads(response.content)
    except ValueError as exc:
        raise BadAnswer(f"{whom} did not answer with JSON: {response.text[:300]}") from exc


async def _pieces(path: Path, size: int, on_bytes: Callable[[int, int], None]) -> AsyncIterator[bytes]:
    sent = 0
    with await asyncio.to_thread(path.open, "rb") as source:
        while piece := await asyncio.to_thread(source.read, CHUNK):
            yield piece
            sent += len(piece)
            on_bytes(sent, size)
