"""The ways from a camera to the shopper: HTTP, MQTT with JSON, MQTT with msgpack tensors.

A line sends an image and returns the answer, or raises one of three errors, which differ in what may be
done next: `NotSent` may be sent again, `ImageRefused` was counted nowhere, `NoAnswer` leaves it open.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Protocol

import aiomqtt
import httpx
import msgpack
import numpy as np
from PIL import Image

from caravan import strict_json
from caravan.contracts import to_json
from caravan.errors import CaravanError, Transient
from caravan.mqtt import Mqtt
from caravan.settings import MqttSettings
from lab.cameras.pictures import Picture
from lab.cameras.tally import Answer
from local_stack.errors import StackError

CONNECT_SECONDS = 15.0
IDLE_SECONDS = 4.0
"""An HTTP connection idle for longer is not used again: the server might be closing it just then."""
BUSY = 503
REPLIES = "response/detection/"
UNNUMBERED = 0

Late = Callable[[str, Answer], None]
"""Told the camera of an answer that nobody waits for any more."""


class NotSent(CaravanError):
    """The image has not left, or was turned away for now: it may be sent again."""


class ImageRefused(CaravanError):
    """The shopper refused the image, and says why."""


class NoAnswer(CaravanError):
    """The image was sent, and what became of it is not known."""


class Line(Protocol):
    """A way to the shopper."""

    async def ask(self, camera: str, picture: Picture, seconds: float) -> Answer:
        """Send an image and wait for its answer, for so long."""
        ...


def answer_of(reply: Mapping[str, Any]) -> Answer:
    """Read a reply: the model's first choice, which is in `guess` where it was not good enough.

    Raises:
        NotSent: if the shopper is too busy.
        ImageRefused: if it is a problem document, or no answer at all.

    """
    if "known" not in reply:
        detail = f"{reply.get('status', '')} {reply.get('detail', reply)}".strip()
        raise NotSent(detail) if reply.get("status") == BUSY else ImageRefused(detail)
    try:
        return Answer(str(reply.get("guess", reply["item"])), float(reply["score"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise ImageRefused(f"the reply lacks {exc}") from exc


# --- HTTP -------------------------------------------------------------------------------------------


class HttpLine:
    """`POST /binary`, the camera's name in a header; connections are kept."""

    def __init__(self, client: httpx.AsyncClient, url: str, model: str, token: str) -> None:
        self._client = client
        self._url = httpx.URL(f"{url}/binary", params={"model": model} if model else {})
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    async def ask(self, camera: str, picture: Picture, seconds: float) -> Answer:
        """Send an image and wait for its answer, for so long."""
        headers = {**self._headers, "camera": camera, "content-type": "application/octet-stream"}
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.post(self._url, content=picture.data, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise NotSent(f"no connection to the shopper: {exc or type(exc).__name__}") from exc
        except (httpx.HTTPError, TimeoutError) as exc:
            raise NoAnswer(f"no answer from the shopper: {exc or type(exc).__name__}") from exc
        try:
            reply = strict_json.loads(response.content)
        except ValueError as exc:
            raise ImageRefused(f"{response.status_code}: no JSON") from exc
        return answer_of(reply if isinstance(reply, dict) else {})


@asynccontextmanager
async def http_line(url: str, cameras: int, model: str, token: str) -> AsyncIterator[HttpLine]:
    """Open a line that has a connection for each camera."""
    limits = httpx.Limits(
        max_connections=cameras, max_keepalive_connections=cameras, keepalive_expiry=IDLE_SECONDS
    )
    # The time of a request is bounded as a whole; loopback needs no proxy.
    async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:  # noqa: S113
        yield HttpLine(client, url, model, token)


# --- MQTT -------------------------------------------------------------------------------------------


class Format(Protocol):
    """What is spoken over MQTT, and on which topics."""

    numbered: bool
    """Whether a reply tells which request it answers; without, a camera asks one thing at a time."""

    def replies(self, camera: str) -> str:
        """Return the topic on which a camera is answered."""
        ...

    def request(self, camera: str, number: int, picture: Picture) -> tuple[str, bytes]:
        """Return topic and payload of a request."""
        ...

    def reply(self, topic: str, payload: bytes) -> tuple[str, int, Mapping[str, Any]]:
        """Return whose answer it is, the number of its request, and what it says."""
        ...


class Json:
    """`{"image": "<base64>"}` on `detection/<camera>`; the topic of the reply tells whose it is."""

    numbered = False

    def __init__(self, model: str) -> None:
        self._model = {"model": model} if model else {}
        self._encoded: dict[int, bytes] = {}

    def replies(self, camera: str) -> str:
        """Return the topic on which a camera is answered."""
        return f"{REPLIES}{camera}"

    def request(self, camera: str, _number: int, picture: Picture) -> tuple[str, bytes]:
        """Return topic and payload; an image is encoded once."""
        payload = self._encoded.get(id(picture))
        if payload is None:
            payload = to_json({"image": base64.b64encode(picture.data).decode(), **self._model})
            self._encoded[id(picture)] = payload
        return f"detection/{camera}", payload

    def reply(self, topic: str, payload: bytes) -> tuple[str, int, Mapping[str, Any]]:
        """Read a reply."""
        return topic.removeprefix(REPLIES), UNNUMBERED, strict_json.loads(payload)


class Tensor:
    """A msgpack map with the pixels, on one topic for all; replies carry camera and number."""

    numbered = True

    def __init__(self, topic: str, replies: str, model: str) -> None:
        self._topic = topic
        self._replies = replies
        self._model = {"model": model} if model else {}
        self._encoded: dict[int, dict[str, Any]] = {}

    def replies(self, _camera: str) -> str:
        """Return the topic on which all are answered."""
        return self._replies

    def request(self, camera: str, number: int, picture: Picture) -> tuple[str, bytes]:
        """Return topic and payload; an image is decoded once."""
        pixels = self._encoded.get(id(picture))
        if pixels is None:
            pixels = self._encoded[id(picture)] = pixels_of(picture)
        message = {**pixels, **self._model, "camera": camera, "id": number}
        return self._topic, bytes(msgpack.packb(message))

    def reply(self, _topic: str, payload: bytes) -> tuple[str, int, Mapping[str, Any]]:
        """Read a reply."""
        reply = msgpack.unpackb(payload)
        return str(reply["camera"]), int(reply["id"]), reply


def pixels_of(picture: Picture) -> dict[str, Any]:
    """Return an image as a tensor camera sends it: uint8, grey or RGB."""
    with Image.open(io.BytesIO(picture.data)) as image:
        grey = image.mode in ("1", "L", "I", "I;16")
        pixels = np.asarray(image.convert("L" if grey else "RGB"))
    height, width = pixels.shape[:2]
    shape = {"height": height, "width": width, "channels": 1 if grey else 3}
    return {"image": pixels.tobytes(), "dtype": "uint8", **shape}


class MqttLine:
    """Cameras on one connection; each waits for one answer at a time, or for many where they are numbered."""

    def __init__(self, settings: MqttSettings, language: Format, cameras: Iterable[str], late: Late) -> None:
        self._format = language
        self._late = late
        self._numbers = count(1)
        self._waiting: dict[tuple[str, int], asyncio.Future[Mapping[str, Any]]] = {}
        topics = sorted({language.replies(camera) for camera in cameras})
        self._mqtt = Mqtt(settings, topics, self._receive)
        self._where = f"{settings.mqtt_host}:{settings.mqtt_port}"

    async def run(self) -> None:
        """Keep the connection; to be run as a task."""
        await self._mqtt.run()

    async def connected(self) -> None:
        """Wait for the connection.

        Raises:
            StackError: if there is none in time.

        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                while True:
                    try:
                        return await self._mqtt.ping()
                    except Transient:
                        await asyncio.sleep(0.02)
        except TimeoutError as exc:
            raise StackError(f"no MQTT connection to {self._where}: see the warnings above") from exc

    async def ask(self, camera: str, picture: Picture, seconds: float) -> Answer:
        """Send an image and wait for its answer, for so long."""
        number = next(self._numbers) if self._format.numbered else UNNUMBERED
        answered: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[camera, number] = answered
        try:
            async with asyncio.timeout(seconds):
                await self._mqtt.publish(*self._format.request(camera, number, picture))
                return answer_of(await answered)
        except (Transient, TimeoutError) as exc:
            # Not acknowledged is not the same as not sent.
            raise NoAnswer(f"no answer over MQTT: {exc or type(exc).__name__}") from exc
        finally:
            self._waiting.pop((camera, number), None)

    async def _receive(self, message: aiomqtt.Message) -> None:
        try:
            camera, number, reply = self._format.reply(message.topic.value, bytes(message.payload))
        except (ValueError, TypeError, LookupError, msgpack.UnpackException):
            return  # somebody else's
        waiting = self._waiting.get((camera, number))
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)
        elif "known" in reply:
            self._late(camera, answer_of(reply))


@asynccontextmanager
async def connected(lines: Sequence[MqttLine]) -> AsyncIterator[None]:
    """Keep the connections of some lines, once all are there.

    Raises:
        ExceptionGroup: with a StackError, if one does not come about in time.

    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(line.run(), name="mqtt") for line in lines]
        try:
            await asyncio.gather(*(line.connected() for line in lines))
            yield
        finally:
            for task in tasks:
                task.cancel()


class MqttLines:
    """A connection for each camera."""

    def __init__(self, lines: Mapping[str, MqttLine]) -> None:
        self._lines = lines

    async def ask(self, camera: str, picture: Picture, seconds: float) -> Answer:
        """Send an image and wait for its answer, for so long."""
        return await self._lines[camera].ask(camera, picture, seconds)
