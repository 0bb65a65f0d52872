"""shopper: training images reach central, once the link is there, and only then leave the edge."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import obstore
import pytest
from obstore.store import MemoryStore
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from caravan import s3, tracing
from caravan.errors import Permanent, Refused, Transient
from caravan.testing.stores import Requests
from caravan.testing.waiting import running, until
from shopper.storage.feeder import TIMEOUT, BrokenOff, FeederAnswer, FeederClient, RejectedImage, Unfit
from shopper.storage.push import PENDING, TrainingPush


class Central:
    """A feeder that takes what it is sent, unless told otherwise."""

    def __init__(self) -> None:
        self.up = True
        self.errors: list[Exception] = []
        self.reject: dict[str, str] = {}
        self.forget = 0
        self.passed_over: set[str] = set()
        self.unfit: set[str] = set()
        self.warnings: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.archives: list[list[str]] = []
        self.at_once = 0
        self.longest: int | None = None
        """Bytes after which the link breaks."""

    async def ping(self) -> None:
        if not self.up:
            raise Transient("link down")

    async def upload(self, archive: IO[bytes], size: int) -> FeederAnswer:
        archive.seek(0)
        content = archive.read()
        assert len(content) == size
        self.at_once += 1
        assert self.at_once == 1
        await self.gate.wait()
        self.at_once -= 1
        if self.errors:
            raise self.errors.pop(0)
        if self.longest is not None and size > self.longest:
            raise BrokenOff("the link broke")
        entries = zipfile.ZipFile(io.BytesIO(content)).infolist()
        # No clock has a say: one before 1980 has no date in a ZIP.
        assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
        names = [entry.filename for entry in entries]
        if self.unfit & set(names):
            raise Unfit("central refused it: 413 too large")
        self.archives.append(names)
        rejected = [
            RejectedImage(name=name, reason=self.reject[name]) for name in names if name in self.reject
        ]
        ignored = len(self.passed_over & set(names))
        stored = len(names) - len(rejected) - self.forget - ignored
        return FeederAnswer(
            stored=stored, duplicates=0, ignored=ignored, rejected=rejected, warnings=self.warnings
        )


class Edge:
    """The bucket, the feeder, the events, and the push between them."""

    def __init__(self, scratch: Path, max_bytes: int = 10**6, max_images: int = 100) -> None:
        self.store = MemoryStore()
        self.central = Central()
        self.events: list[dict[str, Any]] = []
        self.push = TrainingPush(
            self.store,
            self.central,
            self.events.append,
            scratch=scratch,
            max_bytes=max_bytes,
            max_images=max_images,
        )

    def add(self, *keys: str, content: bytes = b"image") -> None:
        for key in keys:
            obstore.put(self.store, key, content)

    def keys(self) -> list[str]:
        return sorted(entry["path"] for page in obstore.list(self.store) for entry in page)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with running(self.push.run()):
            yield


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path)


A, B, C = (f"images/tea-green/{name}.jpg" for name in "abc")


async def test_what_central_says_of_the_photos_is_handed_on(edge: Edge) -> None:
    edge.central.warnings = ["all 5 photos of tea-green were taken within a minute: take some elsewhere"]
    edge.add(A)
    async with edge.running():
        assert (await edge.push())["warnings"] == edge.central.warnings
        assert "warnings" not in await edge.push(), "there was nothing to send"


async def test_images_are_sent_and_then_leave_the_bucket(edge: Edge) -> None:
    edge.add(A, B)
    async with edge.running():
        account = await edge.push()
    assert (account["status"], account["files"], account["stored"]) == ("done", 2, 2)
    assert edge.central.archives == [[A, B]]
    assert edge.keys() == []
    assert edge.events == [{"name": "zipdata", "files": "2"}, {"name": "zipsend", "files": "2"}]


async def test_nothing_to_send_is_said_and_the_feeder_left_alone(edge: Edge) -> None:
    async with edge.running():
        assert (await edge.push())["status"] == "empty"
    assert (edge.central.archives, edge.events, edge.keys()) == ([], [], [])


@pytest.mark.parametrize(("max_bytes", "max_images"), [(10**6, 2), (11, 100)])
async def test_many_images_go_in_several_zips(tmp_path: Path, max_bytes: int, max_images: int) -> None:
    edge = Edge(tmp_path, max_bytes, max_images)
    edge.add(A, B, C)
    async with edge.running():
        account = await edge.push()
    assert (account["files"], account["zips"]) == (3, 2)
    assert edge.central.archives == [[A, B], [C]]
    assert edge.keys() == []


async def test_what_is_no_training_image_stays(edge: Edge) -> None:
    edge.add("images/loose.jpg", "images/a/b/c.jpg", "images/tea-green/note.txt", "elsewhere/a.jpg")
    edge.add("images/tea-green/large.jpg", content=bytes(10**6 + 1))
    before = edge.keys()
    async with edge.running():
        account = await edge.push()
    assert (account["status"], account["left"]) == ("empty", 4)
    assert edge.keys() == before


@pytest.mark.parametrize("how", ["unfit", "passed_over"])
async def test_an_image_that_keeps_central_from_taking_others_is_found_and_move_to_rejected(
    edge: Edge, how: str
) -> None:
    edge.add(*(f"images/tea-green/{number:02}.jpg" for number in range(20)))
    bad = "images/tea-green/07.jpg"
    setattr(edge.central, how, {bad})
    async with edge.running():
        account = await edge.push()
        assert (await edge.push())["status"] == "empty"
    assert (account["status"], account["files"]) == ("done", 20)
    assert [each["name"] for each in account["rejected"]] == [bad]
    assert edge.keys() == [f"rejected/{bad}"]


async def test_what_central_refuses_of_every_image_is_not_the_images_fault(edge: Edge) -> None:
    keys = {f"images/tea-green/{number:02}.jpg" for number in range(50)}
    edge.add(*keys)
    edge.central.unfit = keys
    async with edge.running():
        with pytest.raises(Permanent, match="20 images"):
            await edge.push()
    left = edge.keys()
    assert sum(key.startswith("images/") for key in left) == 30


async def test_a_rejected_image_is_move_to_rejected_with_the_reason(edge: Edge) -> None:
    edge.add(A, B)
    edge.central.reject = {A: "damaged: ½ of it"}
    async with edge.running():
        account = await edge.push()
    assert account["rejected"] == [{"name": A, "reason": "damaged: ½ of it"}]
    assert edge.keys() == [f"rejected/{A}"]
    assert obstore.get(edge.store, f"rejected/{A}").attributes["reason"] == "damaged: %C2%BD of it"


async def test_an_image_that_the_feeder_does_not_account_for_stays(edge: Edge) -> None:
    edge.add(A, B)
    edge.central.forget = 1
    async with edge.running():
        with pytest.raises(Permanent, match="1 of 2"):
            await edge.push()
    assert edge.keys() == [A, B]


async def test_a_feeder_that_accounts_for_more_than_it_was_sent_is_not_believed(edge: Edge) -> None:
    edge.add(A, B)
    edge.central.forget = -1
    async with edge.running():
        with pytest.raises(Permanent, match="3 of 2"):
            await edge.push()
    assert edge.keys() == [A, B]


async def test_an_image_that_cannot_be_read_stays_and_holds_back_no_other(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Requests(monkeypatch, s3, "read")
    reads.fail(Transient("S3 answers 500"), where=lambda key: key == B)
    edge.add(A, B, C)
    async with edge.running():
        account = await edge.push()
    assert (account["status"], account["files"], account["left"]) == ("done", 2, 1)
    assert edge.keys() == [B]


async def test_a_disk_without_room_to_pack_puts_the_push_off(edge: Edge, tmp_path: Path) -> None:
    edge.add(A)
    scratch = tmp_path / "scratch"
    edge.push = TrainingPush(
        edge.store, edge.central, edge.events.append, scratch=scratch, max_bytes=100, max_images=10
    )
    async with edge.running():
        assert await edge.push() == {"status": "queued"}
        scratch.mkdir()
        async with asyncio.timeout(20):
            while edge.keys():
                await asyncio.sleep(0.02)
    assert edge.central.archives == [[A]]


async def test_with_the_link_down_the_wish_is_kept_and_fulfilled_without_help(edge: Edge) -> None:
    edge.add(A)
    edge.central.up = False
    async with edge.running():
        assert await edge.push() == {"status": "queued"}
        assert edge.keys() == [A, PENDING]
        assert edge.events == []
        edge.central.up = True
        async with asyncio.timeout(20):
            while edge.keys():
                await asyncio.sleep(0.02)
    assert edge.central.archives == [[A]]


async def test_a_wish_outlives_the_process(edge: Edge, tmp_path: Path) -> None:
    edge.add(A)
    edge.central.up = False
    async with edge.running():
        await edge.push()
    later = Edge(tmp_path)
    later.push = TrainingPush(
        edge.store, later.central, later.events.append, scratch=tmp_path, max_bytes=100, max_images=10
    )
    async with later.running(), asyncio.timeout(20):
        while edge.keys():
            await asyncio.sleep(0.02)
    assert later.central.archives == [[A]]


async def test_a_link_that_breaks_during_the_upload_costs_nothing(edge: Edge) -> None:
    edge.add(A)
    edge.central.errors = [Transient("broken pipe")]
    async with edge.running():
        assert await edge.push() == {"status": "queued"}
        async with asyncio.timeout(20):
            while edge.keys():
                await asyncio.sleep(0.02)
    assert edge.central.archives == [[A]]


async def test_a_refusal_reaches_the_caller_and_the_images_stay(edge: Edge) -> None:
    edge.add(A)
    edge.central.errors = [Refused("404 edge 'edge1' is not configured here")]
    async with edge.running():
        with pytest.raises(Refused, match="not configured"):
            await edge.push()
    assert edge.keys() == [A]


async def test_calls_during_a_push_share_the_next_one(edge: Edge) -> None:
    edge.add(A)
    edge.central.gate.clear()
    async with edge.running():
        first = asyncio.create_task(edge.push())
        await until(lambda: edge.central.at_once)
        edge.add(B)
        others = [asyncio.create_task(edge.push()) for _ in range(3)]
        await asyncio.sleep(0)
        edge.central.gate.set()
        accounts = await asyncio.gather(first, *others)
    assert [account["files"] for account in accounts] == [1, 1, 1, 1]
    assert edge.central.archives == [[A], [B]]
    assert edge.keys() == []


async def test_a_push_is_part_of_its_callers_trace_up_to_the_feeder(
    edge: Edge, spans: InMemorySpanExporter
) -> None:
    carried: list[dict[str, str]] = []
    upload = edge.central.upload

    async def noting(archive: IO[bytes], size: int) -> FeederAnswer:
        carried.append(tracing.headers())
        return await upload(archive, size)

    edge.central.upload = noting  # type: ignore[method-assign] # to look in
    edge.add(A)
    async with edge.running():
        with tracing.span("push-training-data"):
            here = tracing.headers()["traceparent"]
            await edge.push()
        edge.add(B)
        await edge.push()
    push = spans.get_finished_spans()[0]
    assert push.name == "push"
    assert carried[0]["traceparent"][:52] == f"{here[:36]}{push.context.span_id:016x}"
    assert carried[1]["traceparent"][3:35] != here[3:35]


async def test_where_uploads_break_less_is_sent_at_once_until_it_arrives(tmp_path: Path) -> None:
    edge = Edge(tmp_path, max_bytes=10**8)
    keys = [f"images/tea-green/{number}.jpg" for number in range(8)]
    edge.add(*keys, content=bytes(1_000_000))
    edge.central.longest = 3_500_000
    async with edge.running():
        assert (await edge.push())["status"] == "queued"
        await until(lambda: not edge.keys(), seconds=30)
        assert [len(names) for names in edge.central.archives] == [2, 2, 2, 2]
        edge.central.longest = None
        edge.add(*keys, content=bytes(1_000_000))
        await edge.push()
    assert len(edge.central.archives[-1]) == 8, "the next push tries with all of them"


async def test_a_feeder_that_is_busy_is_not_sent_more_and_smaller_zips(edge: Edge) -> None:
    edge.add(A, B, C)
    edge.central.errors = [Transient("the feeder answers 503")] * 2
    async with edge.running():
        await edge.push()
        await until(lambda: not edge.keys(), seconds=30)
    assert edge.central.archives == [[A, B, C]]


# --- the feeder's client ------------------------------------------------------------------------------


def feeder(answer: httpx.Response | Exception, seen: list[httpx.Request] | None = None) -> FeederClient:
    async def handle(request: httpx.Request) -> httpx.Response:
        await request.aread()
        if seen is not None:
            seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    return FeederClient(client, "http://feeder:8081/", "edge2", within=5)


async def test_an_upload_is_a_put_in_the_name_of_the_edge_with_its_trace(
    spans: InMemorySpanExporter,
) -> None:
    seen: list[httpx.Request] = []
    done = {
        "status": "done",
        "edge": "edge2",
        "batch": "b",
        "stored": 1,
        "duplicates": 2,
        "ignored": 0,
        "rejected": [],
    }
    with tracing.span("push"):
        trace = tracing.headers()["traceparent"]
        report = await feeder(httpx.Response(200, json=done), seen).upload(io.BytesIO(b"a zip"), 5)
    assert (report.stored, report.duplicates, report.rejected) == (1, 2, [])
    (request,) = seen
    assert request.headers["traceparent"] == trace
    assert len(spans.get_finished_spans()) == 1
    assert (request.method, str(request.url)) == ("PUT", "http://feeder:8081/zip?edgeId=edge2")
    assert request.content == b"a zip"
    assert request.headers["content-length"] == "5"
    assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.Response(503),
        httpx.Response(429),
        httpx.Response(302),
        httpx.Response(200, text="<html>log in to the wireless network</html>"),
        httpx.Response(200, json={"status": "ok"}),
    ],
)
async def test_what_may_pass_is_transient(answer: httpx.Response | Exception) -> None:
    with pytest.raises(Transient):
        await feeder(answer).upload(io.BytesIO(b"a zip"), 5)


async def test_a_refusal_carries_its_reason() -> None:
    answer = httpx.Response(404, json={"title": "Not Found", "detail": "edge 'edge2' is not configured here"})
    with pytest.raises(Refused, match="404 edge 'edge2' is not configured"):
        await feeder(answer).upload(io.BytesIO(b"a zip"), 5)


async def test_an_upload_whose_every_image_is_rejected_is_accounted_for() -> None:
    answer = httpx.Response(
        422, json={"detail": "nothing to store", "rejected": [{"name": A, "reason": "damaged"}]}
    )
    report = await feeder(answer).upload(io.BytesIO(b"a zip"), 5)
    assert (report.stored, [each.name for each in report.rejected]) == (0, [A])


async def test_ping_asks_whether_the_link_is_up() -> None:
    await feeder(httpx.Response(200, text=json.dumps({"status": "ok"}))).ping()
    with pytest.raises(Transient):
        await feeder(httpx.ConnectError("refused")).ping()
    with pytest.raises(Transient):
        await feeder(httpx.Response(502)).ping()


class Sizes(httpx.AsyncBaseTransport):
    """Takes a request, and notes what is written at once."""

    def __init__(self) -> None:
        self.found: list[int] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self.found += [len(content) async for content in request.stream]
        return httpx.Response(200, json={"stored": 1, "duplicates": 0})


async def test_what_is_written_at_once_comes_over_a_phones_line_within_the_time_for_writing() -> None:
    sizes, content = Sizes(), bytes(3 * 2**20)
    async with httpx.AsyncClient(transport=sizes) as client:
        uploaded = FeederClient(client, "http://feeder:8081", "edge2", within=5)
        await uploaded.upload(io.BytesIO(content), len(content))
    assert sum(sizes.found) == len(content)
    assert max(sizes.found) <= 8_000 * (TIMEOUT.write or 0) / 2, "8,000 bytes a second are 64 kbit/s"
