"""shopper: what its app's pages ask for."""

import asyncio
import gzip
import json
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from obstore.store import MemoryStore

from caravan import http
from caravan.errors import BadInput, Transient, Unavailable
from caravan.sessions import Sessions
from caravan.tokens import Tokens
from shopper.catalogue import slug
from shopper.catalogue_file import CatalogueFile
from shopper.doors import page as page_api
from shopper.doors.idempotency import IdempotencyCache, IdempotentRequest
from shopper.doors.relay import EventRelay
from shopper.doors.web import PageSettings
from shopper.storage.counts import TrainingCounts

WEB = Path(__file__).parents[2] / "services/shopper/shopper/web"

TOKENS = Tokens({"ann": "a-token-of-ann"})


class Pages:
    """The pages with their ports, and a client before them."""

    def __init__(self, page: PageSettings | None = None, tokens: Tokens | None = None) -> None:
        self.relay = EventRelay()
        self.store = MemoryStore()
        app = FastAPI()
        http.install(app, {})
        page_api.install(
            app,
            page=page or PageSettings(),
            sessions=Sessions(tokens or Tokens({}), "shopper"),
            relay=self.relay,
            count=TrainingCounts(self.store),
            catalogue_file=CatalogueFile(),
        )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://shop")

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=headers)

    async def paths(self) -> list[str]:
        """Return the paths of all files, as the service worker knows them."""
        worker = (await self.get("/sw.js")).text
        shell = json.loads(worker.splitlines()[0].removeprefix("const SHELL = ").removesuffix(";"))
        return list(shell["files"])


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    pages = Pages()
    async with pages.client:
        yield pages


# --- the files ----------------------------------------------------------------------------------


async def test_every_file_that_a_page_names_is_there_and_named_relatively(pages: Pages) -> None:
    files = await pages.paths()
    assert {"", "login", "app.js", "style.css", "sprite.svg", "manifest.webmanifest"} <= set(files)
    named: set[str] = set()
    for file in files:
        answer = await pages.get(f"/{file}")
        assert answer.status_code == 200
        if answer.headers["content-type"].startswith(("text/", "application/")):
            assert not re.search(r"https?://(?!www\.w3\.org|localhost:)", answer.text), file
            named |= set(re.findall(r'(?:(?:href|src)="(?!#)|from "\./)([^"$]+)"', answer.text))
    links = {link.split("#")[0] for link in named}
    assert links - set(files) - {"vendor/mqtt.js", "./", ""} == set()
    assert not [link for link in links if link.startswith("/")]


async def test_the_first_page_asks_for_all_its_modules_at_once_the_first_view_last(pages: Pages) -> None:
    async def needed(*wanted: str) -> set[str]:
        found: set[str] = set()
        left = set(wanted)
        while left:
            name = left.pop()
            found.add(name)
            text = (await pages.get(f"/{name}")).text
            left |= set(re.findall(r'^import .*"\./([^"]+)";$', text, flags=re.MULTILINE)) - found
        return found

    start, first_view = await needed("app.js"), await needed("scan.js")
    page = (await pages.get("/")).text
    preloaded = set(re.findall(r'rel="modulepreload" href="([^"]+)">', page))
    preloaded_last = set(re.findall(r'rel="modulepreload" href="([^"]+)" fetchpriority="low">', page))
    assert (preloaded, preloaded_last) == (start - {"app.js"}, first_view - start)


async def test_pages_forbid_what_is_inline_or_from_elsewhere(pages: Pages) -> None:
    answers = [await pages.get(f"/{path}") for path in await pages.paths()]
    shown = [answer for answer in answers if answer.headers["content-type"].startswith("text/html")]
    assert len(shown) >= 2
    for answer in shown:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", answer.text)


async def test_the_policy_names_the_broker_that_browsers_may_speak_to(tmp_path: Path) -> None:
    module = tmp_path / "mqtt.esm.js"
    module.write_text("export default 1")
    pages = Pages(PageSettings("wss://broker.example:9001/mqtt", module))
    answer = await pages.get("/")
    assert "connect-src 'self' wss://broker.example:9001;" in answer.headers["content-security-policy"]
    facts = (await pages.get("/app.json")).json()
    assert facts["mqtt"] == {"url": "wss://broker.example:9001/mqtt", "module": True}
    assert (await pages.get("/vendor/mqtt.js")).text == "export default 1"


async def test_without_the_mqtt_package_its_switch_is_told(pages: Pages) -> None:
    assert (await pages.get("/app.json")).json()["mqtt"] == {"url": "", "module": False}
    assert (await pages.get("/vendor/mqtt.js")).status_code == 404


async def test_files_travel_packed_and_only_when_they_changed(pages: Pages) -> None:
    plain = await pages.client.get("/app.js", headers={"accept-encoding": "identity"})
    async with pages.client.stream("GET", "/app.js", headers={"accept-encoding": "gzip"}) as packed:
        raw = b"".join([chunk async for chunk in packed.aiter_raw()])
    assert gzip.decompress(raw) == plain.content
    again = await pages.get("/app.js", **{"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("br, GZIP;q=0.8", "gzip"), ("gzip;q=0, identity", None), ("gzip; q=0.0", None), ("", None)],
)
async def test_a_file_is_packed_for_who_takes_that_and_not_sent_to_who_has_it_among_others(
    pages: Pages, accepted: str, coding: str | None
) -> None:
    answer = await pages.get("/app.js", **{"accept-encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    tags = f'"another", W/{answer.headers["etag"]}'
    assert (await pages.get("/app.js", **{"if-none-match": tags})).status_code == 304


@pytest.mark.parametrize("path", ["/", "/login", "/app.js"])
async def test_head_of_a_page_is_answered(pages: Pages, path: str) -> None:
    assert (await pages.client.head(path)).status_code == 200


async def test_pages_are_open_and_what_they_read_is_not() -> None:
    pages = Pages(tokens=TOKENS)
    for path in ("/", "/login", "/app.js"):
        assert (await pages.get(path)).status_code == 200
    for path in ("/events", "/ingestion/counts"):
        assert (await pages.get(path)).status_code == 401
    assert (await pages.get("/app.json")).json()["access"] == {"needed": True, "holder": None}
    facts = await pages.get("/app.json", authorization="Bearer a-token-of-ann")
    assert facts.json()["access"] == {"needed": True, "holder": "ann"}


# --- events -------------------------------------------------------------------------------------


def event(name: str, **facts: Any) -> bytes:
    return json.dumps({"name": name, **facts}).encode()


async def read(stream: AsyncIterator[bytes], events: int) -> list[tuple[str, Any]]:
    """Read so many events of a stream: id and content."""
    text = ""
    async with asyncio.timeout(5):
        while len(found := re.findall(r"^id: (.*)\ndata: (.*)\n\n", text, re.MULTILINE)) < events:
            text += (await anext(stream)).decode()
    return [(number, json.loads(data)) for number, data in found]


async def started(relay: EventRelay, **options: Any) -> AsyncGenerator[bytes]:
    stream = relay.listen(**options)
    assert (await anext(stream)).startswith(b"retry:")
    return stream


async def test_a_page_hears_the_events_it_asked_for_in_order() -> None:
    relay = EventRelay()
    stream = await started(relay, names=["training", "pushmodel"])
    relay.receive(event("detection"))
    relay.receive(event("training", progress=0.4))
    relay.receive(b"no json")
    relay.receive(b'["no", "event"]')
    relay.receive(rb'{"name":"training","stage":"\ud800"}')
    relay.receive(b"[" * 500)
    relay.receive(event("pushmodel", version=2))
    heard = [content for _, content in await read(stream, 2)]
    assert heard == [{"name": "training", "progress": 0.4}, {"name": "pushmodel", "version": 2}]


@pytest.mark.parametrize(
    "query", ["names=training,pushmodel", "names=training,%20pushmodel", "names=training&names=pushmodel"]
)
async def test_a_page_names_events_in_one_list_or_several(
    pages: Pages, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    async def stream() -> AsyncGenerator[bytes]:
        yield b""

    def listen(names: list[str], _last: str) -> AsyncGenerator[bytes]:
        asked.append(names)
        return stream()

    monkeypatch.setattr(pages.relay, "listen", listen)
    await pages.get(f"/events?{query}")
    assert asked == [["training", "pushmodel"]]


async def test_a_page_that_comes_back_catches_up() -> None:
    relay = EventRelay()
    stream = await started(relay)
    relay.receive(event("a"))
    ((last, _),) = await read(stream, 1)
    relay.receive(event("b"))
    relay.receive(event("c"))
    again = await started(relay, last=last)
    assert [content["name"] for _, content in await read(again, 2)] == ["b", "c"]
    other_life = await started(EventRelay(), last=last)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(other_life), 0.05)


async def test_events_are_sent_here_while_there_are_pages_and_a_while_longer() -> None:
    relay, told = EventRelay(), asyncio.Queue[str]()

    async def hear() -> None:
        await told.put("hear")

    async def rest() -> None:
        await told.put("rest")

    following = asyncio.create_task(relay.follow(hear, rest, linger=0.2))
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        one = await started(relay)
        two = await started(relay)
        assert told.get_nowait() == "hear"
        await one.aclose()
        await two.aclose()
        again = await started(relay)
        await asyncio.sleep(0.4)
        assert told.empty()
        await again.aclose()
        assert await told.get() == "rest"
        assert told.empty()
        relay.receive(event("unheard"))
        later = await started(relay)
        assert await told.get() == "hear"
        relay.receive(event("heard"))
        assert [content["name"] for _, content in await read(later, 1)] == ["heard"]
    following.cancel()


async def test_a_page_is_served_though_the_broker_is_away() -> None:
    relay = EventRelay()

    async def hear() -> None:
        raise Unavailable("no broker")

    following = asyncio.create_task(relay.follow(hear, hear))
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        stream = await started(relay)
        relay.receive(event("heard"))
        assert len(await read(stream, 1)) == 1
    following.cancel()


async def test_a_slow_page_loses_the_oldest_and_holds_nobody_up() -> None:
    relay = EventRelay(waiting=2)
    stream = await started(relay)
    for number in range(5):
        relay.receive(event("detection", number=number))
    assert [content["number"] for _, content in await read(stream, 2)] == [3, 4]


async def test_so_many_pages_listen_and_no_more_and_all_end_with_the_process() -> None:
    relay = EventRelay(listeners=1)
    stream = await started(relay)
    with pytest.raises(Unavailable, match="too many"):
        relay.listen()
    relay.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(stream), 5)
    with pytest.raises(Unavailable):
        relay.listen()


# --- counts -------------------------------------------------------------------------------------


async def test_training_images_are_counted_by_product(pages: Pages) -> None:
    for key in ("images/tea-green/1.jpg", "images/tea-green/2.jpg", "images/bali-tea/1.jpg", "push/x.json"):
        await pages.store.put_async(key, b"x")
    assert (await pages.get("/ingestion/counts")).json() == {
        "images": 3,
        "products": [
            {"item": "tea-green", "label": "Green Tea", "images": 2},
            {"item": "bali-tea", "label": "bali-tea", "images": 1},
        ],
    }


async def test_a_count_is_good_for_a_moment() -> None:
    now = [0.0]
    store = MemoryStore()
    count = TrainingCounts(store, lambda: now[0])
    assert (await count()).total() == 0
    await store.put_async("images/a/1.jpg", b"x")
    assert (await count()).total() == 0
    now[0] = 1.5
    assert (await count()).total() == 1


# --- once ---------------------------------------------------------------------------------------


class Act:
    """Counts how often it is done; fails as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.done = 0
        self.failures = failures
        self.may = asyncio.Event()

    async def __call__(self) -> dict[str, Any]:
        await self.may.wait()
        self.done += 1
        if self.done <= self.failures:
            raise Transient("not now")
        return {"number": self.done}


def asked(
    key: str, holder: str = "till", path: str = "/binary", digest: bytes = b"photo"
) -> IdempotentRequest:
    return IdempotentRequest(holder, path, key, digest)


def number(answer: bytes) -> int:
    found: int = json.loads(answer)["number"]
    return found


async def test_requests_with_one_key_are_done_once_at_the_same_time_or_later() -> None:
    cache, act = IdempotencyCache(), Act()
    first, second = (asyncio.create_task(cache(asked("k"), act)) for _ in range(2))
    await asyncio.sleep(0)
    act.may.set()
    assert number(await first) == number(await second) == 1
    assert number(await cache(asked("k"), act)) == 1
    assert number(await cache(asked("other"), act)) == 2
    assert number(await cache(asked(""), act)) == 3


async def test_a_key_is_its_holders_and_of_one_door() -> None:
    cache, act = IdempotencyCache(), Act()
    act.may.set()
    for one in (asked("1"), asked("1", holder="phone"), asked("1", path="/ingestion")):
        await cache(one, act)
    assert act.done == 3


async def test_a_key_is_of_one_request_also_while_that_is_served() -> None:
    cache, act = IdempotencyCache(), Act()
    first = asyncio.create_task(cache(asked("1"), act))
    await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises(BadInput, match="another request") as refused:
            await cache(asked("1", digest=b"another photo"), act)
        assert refused.value.status == 422
        act.may.set()
        assert number(await first) == 1


async def test_a_sender_that_goes_away_takes_the_answer_from_nobody() -> None:
    cache, act = IdempotencyCache(), Act()
    first = asyncio.create_task(cache(asked("k"), act))
    await asyncio.sleep(0)
    first.cancel()
    act.may.set()
    assert number(await cache(asked("k"), act)) == 1


async def test_what_failed_may_be_tried_again() -> None:
    cache, act = IdempotencyCache(), Act(failures=1)
    act.may.set()
    with pytest.raises(Transient):
        await cache(asked("k"), act)
    assert number(await cache(asked("k"), act)) == 2


@pytest.mark.parametrize("bounds", [{"remembered": 2}, {"remembered_bytes": 30}])
async def test_only_the_last_answers_are_remembered(bounds: dict[str, int]) -> None:
    cache, act = IdempotencyCache(**bounds), Act()
    act.may.set()
    for key in "abc":
        await cache(asked(key), act)
    assert number(await cache(asked("c"), act)) == 3
    assert number(await cache(asked("a"), act)) == 4


# --- new products -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("Bali Tea", "bali-tea"),
        ("  Bali -- Tea!  ", "bali-tea"),
        ("../../etc/passwd", "etc-passwd"),
        ("Grüner Tee", "grüner-tee"),
        ("緑茶", "緑茶"),
        ("Nº 5", "no-5"),
        ("हरी चाय", "हरी-चाय"),
        ("ชาเขียว", "ชาเขียว"),
        ("\N{HOT BEVERAGE}\N{VARIATION SELECTOR-16} Tea", "tea"),
        ("چای\N{ZERO WIDTH NON-JOINER}سبز", "چای\N{ZERO WIDTH NON-JOINER}سبز"),
        ("茶" * 90, ""),
        ("...", ""),
        ("", ""),
        ("a" * 101, ""),
    ],
)
def test_an_item_is_made_of_a_name(name: str, item: str) -> None:
    assert slug(name) == item


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here: apt-get install nodejs")
def test_the_page_makes_the_same_items_of_names() -> None:
    """Else it lists a product twice, as it was typed and as it is kept."""
    names = ["Bali Tea", "Grüner  Tee!", "Süßholz, 250 g", "ΤΣΆΪ ΒΟΥΝΟΎ ΟΔΌΣ", "شاي أخضر", "हरी चाय", "Nº 5"]
    script = f"""
        const {{ slug }} = await import("{(WEB / "item.js").as_uri()}");
        console.log(JSON.stringify({json.dumps(names)}.map(slug)));
    """
    command = ["node", "--input-type=module", "--eval", script]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(run.stdout) == [slug(name) for name in names]


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("दाल", "दिल"),
        (
            "Loose leaf tea of the first flush, hand-picked, tin of 100 g",
            "Loose leaf tea of the first flush, hand-picked, tin of 100 oz",
        ),
    ],
)
def test_two_products_have_two_items_whatever_their_script_and_length(one: str, another: str) -> None:
    assert slug(one) != slug(another)
