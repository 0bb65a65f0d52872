"""A running stack for the tests, and clients to look at it through its doors.

`stack` is the whole platform with two edges, started once, and last; a test must leave it as it found it. A
test that kills or stops something takes a stack of its own from `private_stack`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import aioboto3
import aiomqtt
import httpx
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from botocore.config import Config

from local_stack.keys import PASSWORD, USER
from local_stack.stack import Stack

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let those who share a stack come last, so that it is not there, at work, while others run theirs."""
    places = [place for place, item in enumerate(items) if item.path.is_relative_to(HERE)]
    ordered = sorted(
        (items[place] for place in places), key=lambda item: "stack" in getattr(item, "fixturenames", ())
    )
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


class PrivateStack(Protocol):
    """Starts a stack that the test may do anything to; it is stopped at the end."""

    async def __call__(
        self,
        *parts: str,
        edges: Sequence[str] = ("edge1",),
        environment: Mapping[str, str] | None = None,
        home: Path | None = None,
    ) -> Stack: ...


class Eventually(Protocol):
    """Asks again and again until the answer is true, and returns it."""

    async def __call__(
        self, question: Callable[[], Any], seconds: float = 90.0, every: float = 0.1
    ) -> Any: ...


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with Stack(tmp_path_factory.mktemp("stack"), edges=("edge1", "edge2"), lasting=False) as running:
        yield running


@pytest_asyncio.fixture
async def private_stack(tmp_path: Path) -> AsyncIterator[PrivateStack]:
    async with AsyncExitStack() as exits:

        async def start(
            *parts: str,
            edges: Sequence[str] = ("edge1",),
            environment: Mapping[str, str] | None = None,
            home: Path | None = None,
        ) -> Stack:
            private = Stack(
                home or tmp_path / "private", edges=edges, parts=parts, environment=environment, lasting=False
            )
            return await exits.enter_async_context(private)

        yield start


@pytest.fixture
def eventually() -> Eventually:
    async def ask(question: Callable[[], Any], seconds: float = 90.0, every: float = 0.1) -> Any:
        """Wait until `question` answers something true; an assertion that fails counts as no."""
        deadline = time.monotonic() + seconds
        while True:
            last: object
            try:
                answer = question()
                if isinstance(answer, Awaitable):
                    answer = await answer
                if answer:
                    return answer
                last = answer
            except AssertionError as exc:
                last = exc
            if time.monotonic() > deadline:
                pytest.fail(f"still not after {seconds} s; the last answer was {last!r}")
            await asyncio.sleep(every)

    return ask


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture
async def s3() -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """Make aioboto3 clients by address: `client = await s3(stack.url("s3-central"))`."""
    async with AsyncExitStack() as exits:

        async def connect(endpoint: str) -> Any:
            client = aioboto3.Session().client(
                "s3",
                endpoint_url=endpoint,
                region_name="us-east-1",
                aws_access_key_id=USER,
                aws_secret_access_key=PASSWORD,
                config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=30),
            )
            return await exits.enter_async_context(client)

        yield connect


@pytest_asyncio.fixture
async def consumer() -> AsyncIterator[Callable[..., Awaitable[AIOKafkaConsumer]]]:
    """Make consumers: `await consumer(stack.kafka, "edge1")` reads a topic whole, or as a `group`."""
    async with AsyncExitStack() as exits:

        async def connect(kafka: str, *topics: str, group: str | None = None) -> AIOKafkaConsumer:
            reader = AIOKafkaConsumer(
                *topics,
                bootstrap_servers=kafka,
                group_id=group,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                metadata_max_age_ms=1000,
            )
            await reader.start()
            exits.push_async_callback(reader.stop)
            return reader

        yield connect


@pytest_asyncio.fixture
async def producer() -> AsyncIterator[Callable[[str], Awaitable[AIOKafkaProducer]]]:
    """Make producers: `await producer(stack.kafka)`."""
    async with AsyncExitStack() as exits:

        async def connect(kafka: str) -> AIOKafkaProducer:
            writer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", max_request_size=20 * 2**20)
            await writer.start()
            exits.push_async_callback(writer.stop)
            return writer

        yield connect


@pytest_asyncio.fixture
async def mqtt() -> AsyncIterator[Callable[..., Awaitable[aiomqtt.Client]]]:
    """Make MQTT clients: `client = await mqtt(stack.port("mqtt-edge1"), "monitor")` is subscribed already."""
    async with AsyncExitStack() as exits:

        async def connect(port: int, *topics: str, transport: str = "tcp") -> aiomqtt.Client:
            client = aiomqtt.Client("127.0.0.1", port, timeout=10, transport=transport)  # type: ignore[arg-type]
            await exits.enter_async_context(client)
            for topic in topics:
                await client.subscribe(topic, qos=1)
            return client

        yield connect
