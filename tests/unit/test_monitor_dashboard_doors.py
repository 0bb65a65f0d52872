"""monitor: the dashboard's doors: who may come in, what may be sent again, the account."""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from obstore.store import MemoryStore

import monitor
from caravan import http, s3
from caravan.receipts import ImageReceipt, Receipt, receipt_key
from caravan.settings import KafkaSettings
from monitor.app import wire
from monitor.dashboard.accounts import Accounts
from monitor.dashboard.dead_letter_topics import DeadLetterTopics
from monitor.dashboard.dead_letters import DeadLetters, Topic
from monitor.dashboard.state import Dashboard
from monitor.doors import dashboard
from monitor.hub_feed import Feed
from monitor.settings import MonitorSettings

TOKEN = "for-the-wall-alone"
JSON = {"Content-Type": "Application/JSON; charset=utf-8"}


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point every address at a port where nobody listens."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setenv("S3_CENTRAL_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("ROUTES", "hub,dashboard")


@asynccontextmanager
async def service() -> AsyncIterator[httpx.AsyncClient]:
    async with wire(MonitorSettings()) as wired:
        transport = httpx.ASGITransport(wired.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://hub:8086") as client:
            yield client


@asynccontextmanager
async def doors(
    letters: DeadLetters, stores: Mapping[str, MemoryStore] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    state = Dashboard(("edge1",), Feed(), letters.as_json, lambda: 0.0)
    dashboard.install(app, state, letters, DeadLetterTopics(KafkaSettings(), letters), Accounts(stores or {}))
    http.install(app, {})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub") as client:
        yield client


# --- tokens -------------------------------------------------------------------------------------


async def test_with_tokens_set_nothing_that_is_known_can_be_read_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKENS", f"wall:{TOKEN}")
    shown = {"Authorization": f"Bearer {TOKEN}"}
    async with service() as client:
        for path in ("dashboard/state", "dashboard/dead-letters", "dashboard/events", "hub", "hub/uncertain"):
            assert (path, (await client.get(path)).status_code) == (path, 401)
        for path in (
            "reports/edge1",
            "quarantine/edge1",
            "hub/events",
            "dashboard/account/edge1",
            "hub/uncertain/a.jpg",
        ):
            assert (path, (await client.get(path)).status_code) == (path, 401)
        assert (await client.post("dashboard/dead-letters/trigger/replay", headers=JSON)).status_code == 401
        assert (await client.get("dashboard/state", headers=shown)).status_code == 200
        assert (await client.get("dashboard/access")).json() == {"needed": True, "holder": None}
        for path in ("", "login", "dashboard.js", "style.css", "healthz", "metrics"):
            assert (path, (await client.get(path)).status_code) == (path, 200)


async def test_a_session_opens_the_doors_for_our_own_page_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENS", f"wall:{TOKEN}")
    async with service() as client:
        assert (await client.post("login", json={"token": "wrong-wrong"})).status_code == 401
        assert (await client.post("login", json={"token": TOKEN})).status_code == 204
        own = {"Sec-Fetch-Site": "same-origin"}
        assert (await client.get("dashboard/state", headers=own)).status_code == 200
        assert (
            await client.get("dashboard/state", headers={"Sec-Fetch-Site": "cross-site"})
        ).status_code == 401
        assert (await client.get("dashboard/access", headers=own)).json()["holder"] == "wall"


async def test_without_tokens_all_is_open() -> None:
    async with service() as client:
        assert (await client.get("dashboard/state")).json()["letters"] == []
        assert (await client.get("dashboard/access")).json() == {"needed": False, "holder": "anyone"}


async def test_the_page_may_load_nothing_from_elsewhere_and_runs_nothing_inline() -> None:
    async with service() as client:
        page = await client.get("")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for address in re.findall(r'(?:href|src)="([^"#]+)"', page.text):
            assert (address, (await client.get(address)).status_code) == (address, 200)


async def test_the_first_page_asks_for_all_its_modules_at_once() -> None:
    folder = Path(monitor.__file__).parent / "dashboard" / "web"
    modules = {path.name for path in folder.glob("*.js")} | {"dom.js"}
    async with service() as client:
        preloaded = set(re.findall(r'rel="modulepreload" href="([^"]+)"', (await client.get("")).text))
    assert preloaded == modules - {"dashboard.js"}


async def test_every_module_that_a_page_imports_is_there() -> None:
    folder = Path(monitor.__file__).parent / "dashboard" / "web"
    async with service() as client:
        for module in folder.glob("*.js"):
            for name in re.findall(r'from "\./([^"]+)"', module.read_text()):
                assert (module.name, name, (await client.get(name)).status_code) == (module.name, name, 200)


# --- sending again ------------------------------------------------------------------------------


def waiting() -> DeadLetters:
    letters = DeadLetters()
    letters.topics["trigger"] = Topic("trigger", next={0: 2}, sent={0: 0})
    return letters


async def test_letters_are_asked_to_be_sent_again_once() -> None:
    letters = waiting()
    async with doors(letters) as client:
        for _ in range(2):
            answer = await client.post("dashboard/dead-letters/trigger/replay", headers=JSON)
            assert (answer.status_code, answer.json()) == (202, {"topic": "trigger", "replaying": True})
        (topic,) = (await client.get("dashboard/dead-letters")).json()["topics"]
    assert (topic["replaying"], topic["count"]) == (True, 2)


@pytest.mark.parametrize(
    ("topic", "headers", "status"),
    [("edge1", JSON, 404), ("trigger", {"Content-Type": "text/plain"}, 415), ("trigger", {}, 415)],
)
async def test_nothing_is_sent_again_by_accident(topic: str, headers: dict[str, str], status: int) -> None:
    letters = waiting()
    async with doors(letters) as client:
        answer = await client.post(f"dashboard/dead-letters/{topic}/replay", headers=headers)
    assert answer.status_code == status
    assert not letters.topics["trigger"].replaying


@pytest.mark.parametrize(
    "foreign", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://elsewhere.example"}]
)
async def test_a_page_of_another_site_may_not_have_letters_sent(foreign: dict[str, str]) -> None:
    async with service() as client:
        answer = await client.post("dashboard/dead-letters/trigger/replay", headers=JSON | foreign)
        assert answer.status_code == 403
        own = {"Origin": "http://hub:8086"}
        answer = await client.post("dashboard/dead-letters/trigger/replay", headers=JSON | own)
        assert answer.status_code == 404, "let in; there are no letters"


# --- the account --------------------------------------------------------------------------------


async def a_batch(store: MemoryStore) -> None:
    images = (
        ImageReceipt("a", "stored", "images/tea/a.jpg", hashlib.sha256(b"a").hexdigest()),
        ImageReceipt("b", "rejected", reason="no"),
    )
    receipt = Receipt("done", "edge1", "b1", 9, 0, 1, "x", "x", images)
    await s3.write(store, receipt_key("b1"), receipt.to_json())


async def test_the_account_says_what_is_missing_and_is_kept_for_a_while() -> None:
    store = MemoryStore()
    await a_batch(store)
    async with doors(DeadLetters(), {"edge1": store}) as client:
        account = (await client.get("dashboard/account/edge1")).json()
        assert (account["captured"], account["rejected"], account["adds_up"]) == (2, 1, False)
        assert account["missing"] == {"count": 1, "keys": ["images/tea/a.jpg"]}
        await s3.write(store, "images/tea/a.jpg", b"a")
        assert (await client.get("dashboard/account/edge1")).json() == account
    async with doors(DeadLetters(), {"edge1": store}) as client:
        account = (await client.get("dashboard/account/edge1")).json()
        assert (account["stored"], account["adds_up"], account["missing"]["count"]) == (1, True, 0)


@pytest.mark.parametrize(("edge", "status"), [("edge9", 404), ("Edge 9", 400)])
async def test_there_is_no_account_of_an_edge_that_is_not_shown(edge: str, status: int) -> None:
    async with doors(DeadLetters(), {"edge1": MemoryStore()}) as client:
        assert (await client.get(f"dashboard/account/{edge}")).status_code == status
