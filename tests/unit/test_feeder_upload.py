"""feeder: ZIPs through the HTTP door, with the object store in memory and Kafka played."""

import asyncio
import hashlib
import io
import json
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from obstore.store import MemoryStore, ObjectStore
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image
from pydantic import SecretStr

from caravan import s3
from caravan.account import read_account
from caravan.contracts import key_by_content
from caravan.decoding import Decoding
from caravan.errors import Transient
from caravan.receipts import Account, Receipt, account, receipt_key
from caravan.settings import S3Address
from caravan.testing.kafka import Kafka, Sent
from caravan.testing.stores import Requests
from caravan_cli.withdraw import withdraw
from feeder.app import make_app
from feeder.archive import Limits
from feeder.checks import BatchBounds, Checks
from feeder.settings import FeederSettings
from support.files import as_file

MEBI = 2**20


@dataclass
class Door:
    """A feeder to send to, and what is behind it."""

    http: httpx.AsyncClient
    stores: dict[str, ObjectStore]
    kafka: Kafka
    missing: asyncio.Event

    async def put(self, content: bytes, edge: str = "edge1") -> httpx.Response:
        return await self.http.put("/zip", params={"edgeId": edge}, content=content)

    async def keys(self, edge: str = "edge1") -> list[str]:
        return sorted([entry["path"] async for entry in s3.listing(self.stores[edge])])

    async def images(self, edge: str = "edge1") -> list[str]:
        return [key for key in await self.keys(edge) if key.startswith("images/")]

    async def receipt(self, batch: str, edge: str = "edge1") -> Receipt:
        return Receipt.from_json(await s3.read(self.stores[edge], receipt_key(batch)))

    async def account(self, edge: str = "edge1") -> Account:
        keys = await self.keys(edge)
        raws = [await s3.read(self.stores[edge], key) for key in keys if key.startswith("uploads/")]
        return account((Receipt.from_json(raw) for raw in raws), keys)


Doors = Callable[..., Any]


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    @asynccontextmanager
    async def make(
        stores: dict[str, ObjectStore] | None = None,
        models: dict[str, ObjectStore] | None = None,
        **limits: Any,
    ) -> AsyncIterator[Door]:
        chosen: dict[str, Any] = {"edges": ("edge1", "edge2"), "spool_dir": tmp_path, "retry_seconds": 0.05}
        settings = FeederSettings(**chosen | limits)
        stores = stores or {edge: MemoryStore() for edge in settings.edges}
        kafka, missing = Kafka(), asyncio.Event()
        with ThreadPoolExecutor(2) as pool:
            models = models or {edge: MemoryStore() for edge in settings.edges}
            app = make_app(
                settings,
                stores,
                models,
                kafka,
                missing=dict.fromkeys(stores, missing),
                pool=pool,
                checks={},
            )
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://feeder") as client:
                yield Door(client, stores, kafka, missing)

    return make


@pytest.fixture
async def door(doors: Doors) -> AsyncIterator[Door]:
    async with doors() as one:
        yield one


def photo(seed: int, kind: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    return as_file(Image.new("RGB", size, (seed % 256, seed // 256 % 256, 99)), kind)


def zipped(*entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: the constructor would tidy it up
            info.compress_type = method
            archive.writestr(info, content)
    return target.getvalue()


def two_teas() -> bytes:
    return zipped(("images/tea/a.jpg", photo(1)), ("images/tea/b.jpg", photo(2)))


# --- what is taken ------------------------------------------------------------------------------


async def test_every_image_is_stored_and_training_is_triggered(door: Door) -> None:
    answer = await door.put(two_teas())

    body = answer.json()
    assert answer.status_code == 200
    assert len(body.pop("batch")) == 64
    assert body == {
        "status": "done",
        "edge": "edge1",
        "stored": 2,
        "duplicates": 0,
        "ignored": 0,
        "rejected": [],
    }
    assert await s3.read(door.stores["edge1"], "images/tea/a.jpg") == photo(1)
    assert await s3.read(door.stores["edge1"], "images/tea/b.jpg") == photo(2)
    assert await door.keys("edge2") == []


async def test_photos_of_one_moment_are_warned_of_while_the_product_is_at_hand(door: Door) -> None:
    burst = [(f"images/tea/IMG_20260803_12443{n}.jpg", photo(n)) for n in range(5)]
    body = (await door.put(zipped(*burst))).json()
    assert body["warnings"] == ["all 5 photos of tea were taken within a minute: take some elsewhere"]


async def test_an_upload_goes_on_with_its_senders_trace_in_a_few_spans(
    door: Door, spans: InMemorySpanExporter
) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    photos = zipped(*((f"images/tea/{n}.jpg", photo(n)) for n in range(40)))
    answer = await door.http.put(
        "/zip", params={"edgeId": "edge1"}, content=photos, headers={"traceparent": parent}
    )
    found = {span.name: span for span in spans.get_finished_spans()}
    assert set(found) == {"zip-upload", "receive", "check", "store", "trigger"}
    assert len(spans.get_finished_spans()) == len(found)
    assert {f"{span.context.trace_id:032x}" for span in found.values()} == {parent[3:35]}
    whole = found.pop("zip-upload")
    assert {span.parent.span_id for span in found.values() if span.parent} == {whole.context.span_id}
    facts = dict(whole.attributes or {})
    assert (facts["edge"], facts["batch"], facts["stored"]) == ("edge1", answer.json()["batch"], 40)


async def test_events_come_in_order_and_the_trigger_carries_its_facts(door: Door) -> None:
    batch = (await door.put(two_teas())).json()["batch"]

    facts = {"batch": batch, "stored": "2", "duplicates": "0", "files": "2"}
    assert door.kafka.sent == [
        Sent("edge1", b'{"name":"zipfile"}'),
        Sent("edge1", b'{"name":"zipfile"}'),
        Sent("trigger", b"edge1", facts),
        Sent("edge1", b'{"name":"pipeline","files":"2"}'),
    ]


async def test_the_edge_may_be_named_by_a_header_and_the_method_may_be_post(door: Door) -> None:
    answer = await door.http.post("/zip", headers={"edgeId": "edge2"}, content=two_teas())

    assert answer.json()["edge"] == "edge2"
    assert await door.images("edge2") == ["images/tea/a.jpg", "images/tea/b.jpg"]


async def test_all_formats_letter_cases_and_ways_to_write_a_path_are_taken(door: Door) -> None:
    content = zipped(
        ("Images/Tea/A.JPG", photo(1)),
        ("images/tea/b.jpeg", photo(2)),
        ("./images/tea/c.PNG", photo(3, "PNG")),
        ("images\\tea\\d.webp", photo(4, "WEBP")),
        ("images/th\N{LATIN SMALL LETTER E WITH ACUTE} vert/e (1).jpg", photo(5)),
    )

    answer = await door.put(content)

    assert answer.json()["stored"] == 5
    assert await door.images() == [
        "images/Tea/A.JPG",
        "images/tea/b.jpeg",
        "images/tea/c.PNG",
        "images/tea/d.webp",
        "images/th\N{LATIN SMALL LETTER E WITH ACUTE} vert/e (1).jpg",
    ]


async def test_what_is_no_image_by_its_name_is_ignored_and_counted(door: Door) -> None:
    names = ["README", "images/", "images/tea/", "images/tea/notes.txt", "images/tea/._a.jpg", "images/b.jpg"]
    names += ["__MACOSX/images/tea/._a.jpg", "other/tea/c.jpg", "images/tea/deeper/d.jpg", "images/.DS_Store"]
    content = zipped(("images/tea/a.jpg", photo(1)), *((name, b"x" * (name[-1] != "/")) for name in names))

    body = (await door.put(content)).json()

    assert (body["stored"], body["ignored"], body["rejected"]) == (1, len(names), [])
    assert await door.images() == ["images/tea/a.jpg"]


@pytest.mark.parametrize("name", ["images/tea/deeper/d.jpg", "old/images/tea/b.jpg", "c.png"])
async def test_images_that_are_passed_over_beside_others_are_warned_of(door: Door, name: str) -> None:
    body = (await door.put(zipped(("images/tea/a.jpg", photo(1)), (name, photo(2))))).json()

    assert (body["stored"], body["ignored"]) == (1, 1)
    (warning,) = body["warnings"]
    assert f"not {name!r}" in warning


async def test_classes_that_differ_in_letter_case_alone_are_warned_of(door: Door) -> None:
    names = ("images/Tea/a.jpg", "images/tea/b.jpg", "images/tea/c.jpg")
    body = (await door.put(zipped(*((name, photo(seed)) for seed, name in enumerate(names))))).json()

    assert body["stored"] == 3
    (warning,) = body["warnings"]
    assert "Tea and tea are two classes" in warning


async def test_the_blanks_of_screenshots_and_the_joiners_of_words_are_part_of_names(door: Door) -> None:
    joined = "چای\N{ZERO WIDTH NON-JOINER}سبز"
    body = (
        await door.put(
            zipped(
                ("images/tea/Screenshot at 3.04\N{NARROW NO-BREAK SPACE}PM.png", photo(1, "PNG")),
                ("images/th\N{LATIN SMALL LETTER E WITH ACUTE}\N{NO-BREAK SPACE}vert/a.jpg", photo(2)),
                (f"images/{joined}/a.jpg", photo(3)),
            )
        )
    ).json()

    assert (body["stored"], body["rejected"]) == (3, [])
    assert await door.images() == [
        "images/tea/Screenshot at 3.04 PM.png",
        "images/th\N{LATIN SMALL LETTER E WITH ACUTE} vert/a.jpg",
        f"images/{joined}/a.jpg",
    ]


async def test_things_that_are_no_product_are_so_in_any_letter_case(door: Door) -> None:
    entries = (
        ("images/Other/a.jpg", photo(1)),
        ("images/OTHER/b.jpg", photo(2)),
        ("images/Tea/a.jpg", photo(3)),
    )
    assert (await door.put(zipped(*entries))).json()["stored"] == 3
    assert await door.images() == ["images/Tea/a.jpg", "images/other/a.jpg", "images/other/b.jpg"]


async def test_images_in_a_format_that_is_not_taken_are_named(door: Door) -> None:
    names = ["images/tea/a.HEIC", "images/tea/b.avif", "images/tea/c.gif", "images/tea/notes.txt"]
    names.append("images/tea/d.jfif")
    body = (await door.put(zipped(("images/tea/a.jpg", photo(1)), *((n, b"x") for n in names)))).json()

    assert (body["stored"], body["ignored"]) == (1, 1)
    assert {entry["name"]: entry["reason"].partition(":")[0] for entry in body["rejected"]} == {
        "images/tea/a.HEIC": "HEIC is not taken",
        "images/tea/b.avif": "AVIF is not taken",
        "images/tea/c.gif": "GIF is not taken",
        "images/tea/d.jfif": "a JPEG's name ends in .jpg or .jpeg here, not in .jfif",
    }


async def test_a_folder_that_all_was_packed_in_is_passed_over(door: Door) -> None:
    content = zipped(
        ("mine/", b""),
        ("mine/images/tea/a.jpg", photo(1)),
        ("mine/images/lemon/b.jpg", photo(2)),
        ("mine/README", b"x"),
        ("__MACOSX/mine/images/tea/._a.jpg", b"x"),
    )
    body = (await door.put(content)).json()

    assert (body["stored"], body["ignored"], body["rejected"]) == (2, 3, [])
    assert await door.images() == ["images/lemon/b.jpg", "images/tea/a.jpg"]


@pytest.mark.parametrize(
    "names",
    [
        ("tea/a.jpg", "README"),
        ("one/images/tea/a.jpg", "two/images/tea/b.jpg"),
        ("__MACOSX/images/tea/._a.jpg", "a.jpg"),
    ],
)
async def test_where_no_image_is_in_its_place_one_is_named(door: Door, names: tuple[str, ...]) -> None:
    answer = await door.put(zipped(*((name, photo(1)) for name in names)))

    assert answer.status_code == 422
    named = [name for name in names if f"not {name!r}" in answer.json()["detail"]]
    assert named == [name for name in names if name.endswith(".jpg") and "/._" not in name][:1]


def in_code_page(name: str, code_page: str, *, with_field: bool = False, crc: int | None = None) -> bytes:
    """Return a ZIP whose entry has a name in a code page, and perhaps that in UTF-8 in the field 0x7075."""
    local = name.encode(code_page)
    info = zipfile.ZipInfo("X" * len(local))
    if with_field:
        checksum = zlib.crc32(local) if crc is None else crc
        field = struct.pack("<BL", 1, checksum) + name.encode()
        info.extra = struct.pack("<HHB", 0x1234, 1, 0) + struct.pack("<HH", 0x7075, len(field)) + field
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(info, photo(1))
    return target.getvalue().replace(b"X" * len(local), local)


@pytest.mark.parametrize(
    "content",
    [
        in_code_page("images/绿茶/a.jpg", "gbk", with_field=True),
        in_code_page("images/绿茶/a.jpg", "utf-8"),
        zipped(("images/绿茶/a.jpg", photo(1))),
    ],
)
async def test_a_name_is_read_wherever_the_zip_has_it_in_utf8(door: Door, content: bytes) -> None:
    assert (await door.put(content)).json()["stored"] == 1
    assert await door.images() == ["images/绿茶/a.jpg"]


@pytest.mark.parametrize(
    "content",
    [
        in_code_page("images/绿茶/a.jpg", "gbk"),
        in_code_page("images/お茶/a.jpg", "shift_jis"),
        in_code_page("images/绿茶/a.jpg", "gbk", with_field=True, crc=7),
    ],
)
async def test_a_name_in_a_code_page_that_nobody_tells_makes_no_class(door: Door, content: bytes) -> None:
    answer = await door.put(content)

    assert answer.status_code == 422
    (rejected,) = answer.json()["rejected"]
    assert "code page" in rejected["reason"]
    assert await door.keys() == []


@pytest.mark.parametrize("name", ["../images/tea/a.jpg", "/images/tea/a.jpg"])
async def test_a_name_that_leads_out_is_refused_in_the_field_too(door: Door, name: str) -> None:
    answer = await door.put(in_code_page(name, "ascii", with_field=True))

    assert (answer.status_code, "refused" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    "content",
    [
        zipped(("images/tea/a.jpg", photo(1))) + zipped(("images/tea/b.jpg", photo(2))),
        zipped(("images/tea/a.jpg", photo(1))) + zipped(("images/tea/b.jpg", photo(2)))[:-30],
    ],
)
async def test_zips_that_were_put_together_are_refused_and_not_half_taken(door: Door, content: bytes) -> None:
    answer = await door.put(content)

    assert answer.status_code == 422
    assert "several" in answer.json()["detail"]
    assert await door.keys() == []


@pytest.mark.parametrize("around", [(b"#!/bin/sh\n", b""), (b"", b"\n")])
async def test_what_else_is_around_a_zip_does_no_harm(door: Door, around: tuple[bytes, bytes]) -> None:
    content = around[0] + zipped(("images/tea/a.jpg", photo(1))) + around[1]
    assert (await door.put(content)).json()["stored"] == 1


async def test_images_that_are_not_taken_are_named_with_their_reason(doors: Doors) -> None:
    content = zipped(
        ("images/tea/good.jpg", photo(1)),
        ("images/tea/text.jpg", b"this is no image"),
        ("images/tea/empty.jpg", b""),
        ("images/tea/cut.jpg", photo(2, size=(300, 300))[:-400]),
        ("images/tea/large.png", photo(3, "PNG", size=(1000, 1001))),
        ("images/.hidden/a.jpg", photo(4)),
        ("images/tea/line\nbreak.jpg", photo(5)),
    )
    async with doors(max_pixels=1_000_000) as door:
        body = (await door.put(content)).json()

        reasons = {entry["name"]: entry["reason"] for entry in body["rejected"]}
        assert body["stored"] == 1
        assert len(reasons) == 6
        assert reasons["images/tea/text.jpg"].startswith("not an image")
        assert reasons["images/tea/empty.jpg"] == "the image is empty"
        assert "damaged" in reasons["images/tea/cut.jpg"]
        assert "1000 x 1001 pixels" in reasons["images/tea/large.png"]
        assert "class" in reasons["images/.hidden/a.jpg"]
        assert any("unprintable" in reason for reason in reasons.values())
        assert await door.images() == ["images/tea/good.jpg"]
        assert (await door.account()).rejected == 6


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"max_batch_pixels": 2399}, "more than 2399 pixels"),
        ({"max_pixels": 1200, "max_pixels_per_byte": 1}, "more than 2400 pixels"),
        ({"check_seconds": 1e-9}, "takes more than"),
    ],
)
async def test_a_zip_that_costs_more_than_it_may_is_refused_whole(
    doors: Doors, limits: dict[str, Any], told: str
) -> None:
    content = zipped(*((f"images/tea/{seed}.jpg", photo(seed)) for seed in range(3)))
    async with doors(**limits) as door:
        answer = await door.put(content)

        assert answer.status_code == 413
        assert told in answer.json()["detail"]
        assert await door.keys() == []
        assert door.kafka.sent == []


async def test_archives_beyond_the_entries_in_memory_are_checked_one_after_the_other() -> None:
    archive = zipped(*((f"images/tea/{name}.jpg", photo(1)) for name in range(3)))
    with ThreadPoolExecutor(2) as pool:
        bounds = BatchBounds(10**9, 10**9, 60)
        limits = Limits(3, 10**6, 10**7)
        checks = Checks(pool, Decoding(2), 2, limits=limits, bounds=bounds, buffer_bytes=10**6)
        checked: list[str] = []

        async def check(name: str, may_leave: asyncio.Event) -> None:
            async with checks.sorted_out(io.BytesIO(archive), name, len(archive)) as batch:
                checked.append(batch.id)
                await may_leave.wait()

        first, others = asyncio.Event(), asyncio.Event()
        others.set()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(check("first", first))
            group.create_task(check("second", first))
            while len(checked) < 2:
                await asyncio.sleep(0.01)
            group.create_task(check("third", others))
            await asyncio.sleep(0.05)
            assert sorted(checked) == ["first", "second"]
            first.set()
        assert checked[2:] == ["third"]


async def test_an_entry_that_does_not_match_its_checksum_is_rejected(door: Door) -> None:
    content = zipped(
        ("images/tea/a.jpg", photo(1)), ("images/tea/b.jpg", photo(2)), method=zipfile.ZIP_STORED
    )
    damaged = content.replace(photo(2), photo(2)[:-1] + b"?")

    body = (await door.put(damaged)).json()

    assert body["stored"] == 1
    assert [entry["name"] for entry in body["rejected"]] == ["images/tea/b.jpg"]
    assert "damaged in the ZIP" in body["rejected"][0]["reason"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_an_entry_whose_decompressor_has_no_bounds_is_rejected(door: Door, method: int) -> None:
    answer = await door.put(zipped(("images/tea/a.jpg", photo(1)), method=method))

    assert answer.status_code == 422
    assert f"method {method}" in answer.json()["rejected"][0]["reason"]


async def test_an_entry_that_inflates_to_more_than_it_declares_is_rejected(door: Door) -> None:
    honest = zipped(("images/tea/lie.jpg", photo(1) + bytes(8 * MEBI)), ("images/tea/a.jpg", photo(2)))
    lying = honest.replace(struct.pack("<L", len(photo(1)) + 8 * MEBI), struct.pack("<L", 1000))

    body = (await door.put(lying)).json()

    assert body["stored"] == 1
    assert [entry["name"] for entry in body["rejected"]] == ["images/tea/lie.jpg"]


# --- repeats and names that meet ----------------------------------------------------------------


async def test_the_same_zip_again_stores_nothing_and_still_triggers(door: Door) -> None:
    batch = (await door.put(two_teas())).json()["batch"]
    body = (await door.put(two_teas())).json()

    assert (body["stored"], body["duplicates"], body["batch"]) == (0, 2, batch)
    assert len(door.kafka.to("trigger")) == 2
    assert door.kafka.sent[-1] == Sent("edge1", b'{"name":"pipeline","files":"2"}')
    receipt = await door.receipt(batch)
    assert (receipt.uploads, [image.outcome for image in receipt.images]) == (2, ["stored", "stored"])
    total = await door.account()
    assert (total.captured, total.stored, total.adds_up) == (2, 2, True)


async def test_an_image_twice_in_one_zip_is_one_image(door: Door) -> None:
    body = (await door.put(zipped(("images/tea/a.jpg", photo(1)), ("Images/tea/a.jpg", photo(1))))).json()

    assert (body["stored"], body["duplicates"]) == (1, 1)
    assert await door.images() == ["images/tea/a.jpg"]
    assert (await door.account()).adds_up


async def test_other_content_of_the_same_name_is_kept_beside_the_first(door: Door) -> None:
    await door.put(zipped(("images/tea/a.jpg", photo(1))))
    other = zipped(("images/tea/a.jpg", photo(2)))

    assert (await door.put(other)).json()["stored"] == 1
    assert (await door.put(other)).json()["duplicates"] == 1

    assert len(await door.images()) == 2
    assert await s3.read(door.stores["edge1"], "images/tea/a.jpg") == photo(1)
    total = await door.account()
    assert (total.captured, total.stored, total.adds_up) == (2, 2, True)


async def test_uploads_for_different_edges_at_once_do_not_mix(door: Door) -> None:
    ones = zipped(*((f"images/one/{n}.jpg", photo(n)) for n in range(40)))
    twos = zipped(*((f"images/two/{n}.jpg", photo(n + 40)) for n in range(40)))

    answers = await asyncio.gather(door.put(ones, "edge1"), door.put(twos, "edge2"))

    assert [answer.json()["stored"] for answer in answers] == [40, 40]
    assert {key.split("/")[1] for key in await door.images("edge1")} == {"one"}
    assert {key.split("/")[1] for key in await door.images("edge2")} == {"two"}
    triggers = [(message.value, message.headers["files"]) for message in door.kafka.to("trigger")]
    assert sorted(triggers) == [(b"edge1", "40"), (b"edge2", "40")]


async def test_the_same_zip_many_times_at_once_is_stored_once(door: Door) -> None:
    content = zipped(*((f"images/tea/{n}.jpg", photo(n)) for n in range(30)))

    answers = [answer.json() for answer in await asyncio.gather(*(door.put(content) for _ in range(6)))]

    assert sum(body["stored"] for body in answers) == 30
    assert all(body["stored"] + body["duplicates"] == 30 for body in answers)
    assert len(await door.images()) == 30
    receipt = await door.receipt(answers[0]["batch"])
    assert (receipt.state, receipt.uploads) == ("done", 6)
    total = await door.account()
    assert (total.captured, total.stored, total.pending, total.adds_up) == (30, 30, 0, True)


# --- what is refused whole ----------------------------------------------------------------------


def linked() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("images/tea/a.jpg", photo(1))
        info = zipfile.ZipInfo("images/tea/b.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return target.getvalue()


def encrypted() -> bytes:
    content = bytearray(two_teas())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    return bytes(content)


def with_image(name: str, content: bytes = b"x") -> bytes:
    return zipped(("images/tea/a.jpg", photo(1)), (name, content))


def of_many_entries(number: int) -> bytes:
    """An archive with so many nameless entries in its directory, and nothing else."""
    entry = b"PK\x01\x02" + bytes(42)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, number * len(entry), 0, 0)
    return entry * number + end


REFUSED: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "truncated": (lambda: two_teas()[:-30], 400, "not a whole ZIP"),
    "cut in its directory": (lambda: two_teas()[:-60] + two_teas()[-22:], 400, "not a whole ZIP"),
    "not a ZIP": (lambda: b"not a ZIP at all, however long it may be", 400, "not a whole ZIP"),
    "empty": (lambda: b"", 400, "empty"),
    "without entries": (zipped, 422, "no image to store"),
    "without images": (lambda: zipped(("README", b"hello")), 422, "no image to store"),
    "only a text file named .jpg": (lambda: zipped(("images/tea/a.jpg", b"text")), 422, "no image to store"),
    "a name with ../": (lambda: with_image("images/../../evil.jpg"), 422, "leads out"),
    "a name with ..\\": (lambda: with_image("images\\..\\evil.jpg"), 422, "leads out"),
    "an absolute name": (lambda: with_image("/etc/evil.jpg"), 422, "absolute"),
    "an absolute name of Windows": (lambda: with_image("C:\\images\\tea\\evil.jpg"), 422, "absolute"),
    "a name on a Windows share": (lambda: with_image("\\\\host\\share\\evil.jpg"), 422, "absolute"),
    "a symbolic link": (linked, 422, "symbolic link"),
    "encrypted": (encrypted, 422, "encrypted"),
    "a 100 MB entry of zeros": (
        lambda: with_image("images/tea/bomb.jpg", bytes(100_000_000)),
        413,
        "bomb.jpg",
    ),
    "a 100 MB entry of zeros, not even an image": (
        lambda: with_image("bomb.bin", bytes(100_000_000)),
        413,
        "bomb.bin",
    ),
    "an image that shrinks as no image does": (
        lambda: with_image("images/tea/bomb.jpg", bytes(6_000_000)),
        413,
        "bomb.jpg",
    ),
    "more in all than allowed": (
        lambda: zipped(*((f"images/tea/{n}.jpg", photo(n) * 4000) for n in range(60))),
        413,
        "unpack to",
    ),
    "too many entries": (lambda: of_many_entries(1001), 413, "more than 1000 entries"),
    "too large a directory": (lambda: of_many_entries(200_000), 413, "directory"),
    "more bytes than allowed": (lambda: bytes(21 * MEBI), 413, "larger than"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_it_is_refused_whole_and_the_service_goes_on(doors: Doors, case: str) -> None:
    make, status, words = REFUSED[case]
    limits = {"max_unpacked_bytes": 120 * MEBI, "max_entries": 1000, "max_upload_bytes": 20 * MEBI}
    async with doors(**limits) as door:
        answer = await door.put(make())

        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert words in answer.json()["detail"]
        assert await door.keys() == []
        assert door.kafka.sent == []
        assert (await door.put(two_teas())).json()["stored"] == 2


async def test_an_upload_with_nothing_to_store_says_what_it_had(door: Door) -> None:
    body = (await door.put(zipped(("README", b"x"), ("images/tea/a.jpg", b"text")))).json()

    assert body["ignored"] == 1
    assert [entry["name"] for entry in body["rejected"]] == ["images/tea/a.jpg"]


@pytest.mark.parametrize(
    ("query", "header", "status"),
    [
        ("", None, 400),
        ("?edgeId=", None, 400),
        ("?edgeId=Edge_1", None, 400),
        ("?edgeId=-edge1", None, 400),
        ("?edgeId=" + "e" * 64, None, 400),
        ("", "../edge1", 400),
        ("?edgeId=edge1", "edge2", 400),
        ("?edgeId=edge1&edgeId=edge2", None, 400),
        ("?edgeId=edge9", None, 404),
        ("", "edge9", 404),
    ],
)
async def test_a_wrong_edge_id_is_refused_and_nothing_is_stored(
    door: Door, query: str, header: str | None, status: int
) -> None:
    headers = {"edgeId": header} if header else {}
    answer = await door.http.put(f"/zip{query}", headers=headers, content=two_teas())

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert "edge" in answer.json()["detail"]
    assert [await door.keys("edge1"), await door.keys("edge2"), door.kafka.sent] == [[], [], []]


async def test_a_form_and_an_encoded_body_are_refused_with_advice(door: Door) -> None:
    form = await door.http.post("/zip?edgeId=edge1", files={"file": two_teas()})
    packed = await door.http.put("/zip?edgeId=edge1", content=b"x", headers={"Content-Encoding": "gzip"})

    assert (form.status_code, packed.status_code) == (415, 415)
    assert "curl -T" in form.json()["detail"]


# --- one name, one content ----------------------------------------------------------------------


async def test_a_file_with_the_name_that_other_content_would_get_is_no_duplicate(door: Door) -> None:
    first, second, third = (photo(n) for n in range(3))
    odd = key_by_content("images/tea/a.jpg", hashlib.sha256(second).hexdigest())
    await door.put(zipped(("images/tea/a.jpg", first), (odd, third)))

    answer = (await door.put(zipped(("images/tea/a.jpg", second)))).json()

    assert (answer["stored"], answer["duplicates"]) == (1, 0)
    contents = [await s3.read(door.stores["edge1"], key) for key in await door.images()]
    assert sorted(contents) == sorted([first, second, third])
    assert (await read_account(door.stores["edge1"])).adds_up


async def test_a_receipt_that_is_done_is_never_pending_again_whichever_feeder_is_late(door: Door) -> None:
    content = zipped(("images/tea/a.jpg", photo(1)))
    batch = hashlib.sha256(content).hexdigest()
    await asyncio.gather(*(door.put(content) for _ in range(2)))
    store, here = door.stores["edge1"], await door.receipt(batch)
    late = replace(here, state="pending", uploads=0, completed="")

    assert not await s3.replace(store, receipt_key(batch), late.to_json(), None)

    assert (await door.receipt(batch)).state == "done"
    assert (await door.receipt(batch)).uploads == 2


@pytest.mark.parametrize("raw", [b"", b'{"schema": 1, "images": {}}'])
async def test_what_is_no_receipt_gives_way_to_the_one_of_the_upload(door: Door, raw: bytes) -> None:
    batch = hashlib.sha256(two_teas()).hexdigest()
    await s3.write(door.stores["edge1"], receipt_key(batch), raw)

    assert (await door.put(two_teas())).json()["stored"] == 2
    assert (await door.receipt(batch)).state == "done"
    assert (await door.account()).adds_up


async def test_a_withdrawn_image_is_rejected_with_the_reason_and_the_rest_is_stored(door: Door) -> None:
    face, tea = photo(1), photo(2)
    content = zipped(("images/tea/face.jpg", face), ("images/tea/a.jpg", tea))
    await door.put(content)
    await withdraw(door.stores["edge1"], "images/tea/face.jpg", reason="a face", label_only=False)

    for name in ("images/tea/face.jpg", "images/coffee/other.jpg"):
        again = await door.put(zipped((name, face)))
        assert (again.status_code, again.json()["rejected"][0]["name"]) == (422, name)
        assert "withdrawn" in again.json()["rejected"][0]["reason"]
        assert again.json()["detail"] == f"there is no image to store: {name!r}: withdrawn by an operator"
    body = (await door.put(content)).json()

    assert (body["stored"], body["duplicates"], len(body["rejected"])) == (0, 1, 1)
    assert await door.images() == ["images/tea/a.jpg"]
    total = await read_account(door.stores["edge1"])
    assert total.adds_up
    assert await read_account(door.stores["edge1"]) == total


async def test_a_withdrawn_batch_that_is_sent_again_by_mistake_stays_out(door: Door) -> None:
    kept, bad = (
        zipped(("images/tea/a.jpg", photo(1))),
        zipped(
            ("images/tea/a.jpg", photo(1)), ("images/tea/b.jpg", photo(2)), ("images/tea/c.jpg", photo(3))
        ),
    )
    await door.put(kept)
    batch = (await door.put(bad)).json()["batch"]
    await withdraw(door.stores["edge1"], batch, reason="wrong", label_only=False)
    assert await door.images() == ["images/tea/a.jpg"]
    body = (await door.put(bad)).json()
    assert (body["stored"], body["duplicates"], len(body["rejected"])) == (0, 1, 2)
    other = await door.put(zipped(("images/coffee/b.jpg", photo(2))))
    assert (other.status_code, other.json()["rejected"][0]["name"]) == (422, "images/coffee/b.jpg")
    assert await door.images() == ["images/tea/a.jpg"]
    assert (await read_account(door.stores["edge1"])).adds_up


async def test_an_image_that_the_store_does_not_take_is_rejected_and_the_rest_is_stored(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts = Requests(monkeypatch, s3, "put_new")
    puts.fail(s3.Unstorable("S3 does not take it: KeyTooLongError"), where=lambda key: "long" in key)

    content = zipped(("images/tea/long.jpg", photo(1)), ("images/tea/a.jpg", photo(2)))
    body = (await door.put(content)).json()

    assert (body["stored"], [each["name"] for each in body["rejected"]]) == (1, ["images/tea/long.jpg"])
    assert (await read_account(door.stores["edge1"])).adds_up


async def test_a_bucket_that_vanishes_is_asked_for_again_and_the_sender_may_come_back(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts = Requests(monkeypatch, s3, "put_new")
    puts.fail(s3.BucketMissing("S3 could not create it: the bucket is missing"))

    assert (await door.put(zipped(("images/tea/a.jpg", photo(1))))).status_code == 503
    assert door.missing.is_set()


# --- when something behind the feeder is away ---------------------------------------------------


async def test_an_object_store_that_fails_midway_leaves_an_account_that_a_repeat_completes(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = zipped(*((f"images/tea/{n}.jpg", photo(n)) for n in range(20)), ("images/tea/x.jpg", b"text"))
    puts = Requests(monkeypatch, s3, "put_new")
    puts.fail(Transient("the object store went away"), after=7)
    failed = await door.put(content)
    puts.mend()

    assert failed.status_code == 503
    assert int(failed.headers["retry-after"]) > 0
    assert door.kafka.to("trigger") == []
    total = await door.account()
    assert (total.captured, total.rejected, total.pending, total.adds_up) == (21, 1, 20, True)

    body = (await door.put(content)).json()

    assert (body["stored"], body["duplicates"], len(body["rejected"])) == (13, 7, 1)
    total = await door.account()
    assert (total.captured, total.stored, total.rejected, total.pending) == (21, 20, 1, 0)
    assert total.adds_up


async def test_no_success_is_told_before_kafka_has_the_trigger(door: Door) -> None:
    door.kafka.fail(Transient("away"), where=lambda message: message.topic == "trigger")
    failed = await door.put(two_teas())
    pending = await door.account()
    door.kafka.mend()
    answer = await door.put(two_teas())

    assert failed.status_code == 503
    assert (pending.pending, pending.adds_up) == (2, True)
    assert (answer.status_code, answer.json()["duplicates"]) == (200, 2)
    assert (await door.account()).pending == 0


async def test_events_are_best_effort(door: Door) -> None:
    door.kafka.fail(Transient("away"), where=lambda message: message.topic == "edge1")

    assert (await door.put(two_teas())).status_code == 200
    assert [message.topic for message in door.kafka.sent] == ["trigger"]


async def test_an_object_store_that_is_away_is_a_503(doors: Doors) -> None:
    nowhere = S3Address("http://127.0.0.1:1", SecretStr("k"), SecretStr("s"), "us-east-1", None)
    async with doors({"edge1": s3.open_bucket(nowhere, "edge1-data")}, edges=("edge1",)) as door:
        answer = await door.put(two_teas())

    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert "127.0.0.1" not in answer.text


async def test_nothing_is_taken_before_the_buckets_are_made(door: Door) -> None:
    door.missing.set()
    assert (await door.put(two_teas())).status_code == 503
    assert await door.keys() == []

    door.missing.clear()
    assert (await door.put(two_teas())).status_code == 200


# --- bounds -------------------------------------------------------------------------------------


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 2**16):
        yield content[start : start + 2**16]


@contextmanager
def peak_of_memory() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


async def test_memory_stays_bounded_whatever_the_size_of_the_zip(doors: Doors) -> None:
    images = ((f"images/tea/{n}.jpg", photo(n) + bytes(2 * MEBI)) for n in range(60))
    content = zipped(*images, method=zipfile.ZIP_STORED)
    assert len(content) > 120 * MEBI

    async with doors(store_buffer_bytes=8 * MEBI) as door:
        # The store in memory keeps what it was given, so it is the repeat whose memory is the feeder's own.
        await door.http.put("/zip?edgeId=edge1", content=chunks(content))
        with peak_of_memory() as peak:
            answer = await door.http.put("/zip?edgeId=edge1", content=chunks(content))
            assert peak() < 24 * MEBI

    assert answer.json()["duplicates"] == 60


async def test_a_directory_that_claims_millions_of_entries_costs_no_memory(doors: Doors) -> None:
    content = of_many_entries(500_000)
    async with doors(max_entries=1000) as door:
        with peak_of_memory() as peak:
            answer = await door.http.put("/zip?edgeId=edge1", content=chunks(content))
            assert peak() < 6 * MEBI

    assert answer.status_code == 413


async def test_a_method_or_a_path_that_is_not_taken_is_told_what_is(door: Door) -> None:
    answer = await door.http.delete("/zip?edgeId=edge1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, PUT")
    answer = await door.http.put("/zip/?edgeId=edge1", content=two_teas())
    assert (answer.status_code, "slash" in answer.json()["detail"]) == (404, True)
    answer = await door.http.get("/healthz/?a=1")
    behind_a_proxy = httpx.URL("https://shop.example/feeder/healthz/?a=1").join(answer.headers["location"])
    assert (answer.status_code, str(behind_a_proxy)) == (307, "https://shop.example/feeder/healthz?a=1")


@pytest.mark.parametrize(
    ("path", "location"),
    [("//", "../"), ("/zip//", "../../zip"), ("//example.org/", "../example.org"), ("/a%3Ab/", "../a:b")],
)
async def test_slashes_at_the_end_of_an_odd_path_lead_out_of_neither_a_proxys_path_nor_the_host(
    door: Door, path: str, location: str
) -> None:
    answer = await door.http.get(f"http://feeder{path}")
    assert (answer.status_code, answer.headers["location"]) == (307, location)


async def test_the_door_gives_help_and_says_that_it_lives(door: Door) -> None:
    assert "curl -T" in (await door.http.get("/")).text
    assert (await door.http.get("/healthz")).json() == {"status": "ok"}
    assert json.loads((await door.http.get("/zip")).text)["status"] == 405
    await door.put(two_teas())
    assert (
        'caravan_exchanges_total{outcome="done",route="zip-upload"}' in (await door.http.get("/metrics")).text
    )
