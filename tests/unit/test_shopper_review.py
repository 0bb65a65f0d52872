"""shopper: people say what images show, and each image goes where they say, once."""

import io
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import obstore
import pytest
from fastapi import FastAPI
from obstore.store import MemoryStore
from PIL import Image

from caravan import http
from caravan.contracts import Event
from caravan.decoding import Decoding
from caravan.errors import BadInput
from caravan.sessions import Sessions
from caravan.testing.stores import Requests
from caravan.tokens import Tokens
from shopper.canary.comparing import Said
from shopper.catalogue_file import CatalogueFile
from shopper.doors import review as review_api
from shopper.doors.cors import Cors
from shopper.images.budget import MemoryBudget
from shopper.images.limits import ImageLimits
from shopper.quality.notes import Audit
from shopper.review import review_queue
from shopper.review.decisions import RecordedOpinion, Ref, why
from shopper.review.review_queue import ReviewQueue
from support.files import as_file

MODEL = "tea_model_b64"
UNKNOWN = "unclassified/images/other/2026-11-21_09-05-03-007.jpg"
UNSURE = "valid/images/tea-green/2026-11-21_09-05-04-000.jpg"
SURE = "valid/images/tea-green/2026-11-21_09-05-05-000.jpg"
OPEN = Tokens({})
ANN = Tokens({"ann": "a-token-of-ann"})

AWAY = obstore.exceptions.GenericError("connection refused")


def photo(size: tuple[int, int] = (640, 480), colour: str = "green", **options: Any) -> bytes:
    return as_file(Image.new("RGB", size, colour), "JPEG", **options)


def opinion(label: str, score: float, **facts: str) -> dict[str, str]:
    return {"label": label, "score": f"{score:.6f}", "model": MODEL, "version": "3", **facts}


class Audits:
    """Audits that were drawn, and what was said of them."""

    def __init__(self) -> None:
        self.drawn: list[Audit] = []
        self.heard: dict[str, str] = {}

    async def audits(self) -> list[Audit]:
        return [audit for audit in self.drawn if audit.image not in self.heard]

    async def said(self, image: str, item: str) -> None:
        self.heard[image] = item


class Shop:
    """The review's doors before stores in memory."""

    def __init__(self, tokens: Tokens = OPEN) -> None:
        self.stores = {name: MemoryStore() for name in ("data", "valid", "unclassified")}
        self.events: list[Event] = []
        self.audits = Audits()
        app = FastAPI()
        http.install(app, {})
        app.add_middleware(Cors)
        review_api.install(
            app,
            sessions=Sessions(tokens, "shopper"),
            queue=ReviewQueue(self.stores, MODEL, 0.8, self.audits),
            catalogue_file=CatalogueFile(),
            limits=ImageLimits(Decoding(2), MemoryBudget(10**9)),
            post=self.events.append,
        )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://shop")

    def lay(self, name: str, facts: Mapping[str, str], content: bytes | None = None) -> bytes:
        bucket, _, key = name.partition("/")
        content = content or photo(colour="green" if "green" in name else "white")
        obstore.put(self.stores[bucket], key, content, attributes={"Content-Type": "image/jpeg", **facts})
        return content

    def names(self, bucket: str) -> list[str]:
        pages = obstore.list(self.stores[bucket])
        return sorted(str(entry["path"]) for page in pages for entry in page)

    def facts(self, bucket: str, key: str) -> dict[str, str]:
        return {str(k): str(v) for k, v in obstore.get(self.stores[bucket], key).attributes.items()}

    async def page(self, **query: Any) -> dict[str, Any]:
        answer = await self.client.get("/review", params=query)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    async def say(self, *decisions: dict[str, Any], **headers: str) -> httpx.Response:
        return await self.client.post("/review", json={"decisions": decisions}, headers=headers)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    async with shop.client:
        yield shop


# --- what waits -----------------------------------------------------------------------------------


async def test_unknown_and_unsure_images_wait_with_the_models_opinion(shop: Shop) -> None:
    shop.lay(UNKNOWN, opinion("tea-lemon", 0.41, camera="shop/till-3"))
    shop.lay(UNSURE, opinion("tea-green", 0.7))
    shop.lay(SURE, opinion("tea-green", 0.8))
    page = await shop.page()
    assert [(each["image"], each["why"]) for each in page["images"]] == [
        (UNKNOWN, "unknown"),
        (UNSURE, "uncertain"),
    ]
    first = page["images"][0]
    assert first["guess"] == "tea-lemon"
    assert first["guess_label"] == "Lemon Tea"
    assert (first["score"], first["model"], first["version"]) == (0.41, MODEL, "3")
    assert first["camera"] == "shop/till-3"
    assert datetime.fromisoformat(first["at"]).tzinfo is not None
    assert page["next"] is None


async def test_an_image_that_someone_laid_there_without_an_opinion_waits_too(shop: Shop) -> None:
    shop.lay(UNKNOWN, {})
    (each,) = (await shop.page())["images"]
    assert (each["guess"], each["guess_label"], each["score"]) == ("", "", None)


async def test_what_another_model_was_asked_is_no_lesson_for_this_one(shop: Shop) -> None:
    shop.lay(UNKNOWN, opinion("7", 0.3) | {"model": "digits"})
    assert (await shop.page())["images"] == []


async def test_what_is_no_image_is_left_out(shop: Shop) -> None:
    shop.lay("unclassified/images/other/notes.txt", {})
    shop.lay("unclassified/rejected/images/other/a.jpg", {})
    assert (await shop.page())["images"] == []


async def test_pages_follow_each_other_through_both_buckets(shop: Shop) -> None:
    unknown = [f"unclassified/images/other/{number:03}.jpg" for number in range(50)]
    unsure = [f"valid/images/tea-green/{number:03}.jpg" for number in range(30)]
    for name in unknown:
        shop.lay(name, opinion("tea-lemon", 0.3))
    for name in unsure:
        shop.lay(name, opinion("tea-green", 0.61))
    seen: list[str] = []
    after = ""
    while after is not None:
        page = await shop.page(after=after, most=7)
        assert len(page["images"]) <= 7
        seen += [each["image"] for each in page["images"]]
        after = page["next"]
    assert seen == unknown + unsure


async def test_a_page_looks_at_so_many_images_and_names_the_next(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_queue, "MOST_LOOKED_AT", 64)
    for number in range(150):
        shop.lay(f"valid/images/tea-green/{number:03}.jpg", opinion("tea-green", 0.95))
    shop.lay("valid/images/tea-lemon/000.jpg", opinion("tea-lemon", 0.7))
    first = await shop.page()
    assert first["images"] == []
    assert first["next"]
    # Those that need no look are not looked at again: all of them fit into one page now.
    second = await shop.page(after=first["next"])
    third = await shop.page(after=second["next"])
    assert [each["image"] for each in third["images"]] == ["valid/images/tea-lemon/000.jpg"]
    assert [each["image"] for each in (await shop.page())["images"]] == ["valid/images/tea-lemon/000.jpg"]


@pytest.mark.parametrize("query", [{"most": 0}, {"most": 201}, {"after": "data/images/a/b.jpg"}])
async def test_a_page_that_cannot_be_is_refused(shop: Shop, query: dict[str, Any]) -> None:
    assert (await shop.client.get("/review", params=query)).status_code in {400, 422}


# --- pictures -------------------------------------------------------------------------------------


async def test_a_picture_is_small_and_a_jpeg_whatever_was_kept(shop: Shop) -> None:
    png = io.BytesIO()
    Image.new("RGBA", (900, 500), "red").save(png, "PNG")
    shop.lay(UNKNOWN, {"Content-Type": "text/html"}, png.getvalue())
    answer = await shop.client.get(f"/review/{UNKNOWN}")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, max-age=86400, immutable"
    assert "sandbox" in answer.headers["content-security-policy"]
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.format, picture.size) == ("JPEG", (320, 178))
    whole = await shop.client.get(f"/review/{UNKNOWN}", params={"whole": "true"})
    assert Image.open(io.BytesIO(whole.content)).size == (900, 500)


async def test_a_picture_is_upright(shop: Shop) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    shop.lay(UNKNOWN, {}, photo(exif=exif))
    answer = await shop.client.get(f"/review/{UNKNOWN}")
    assert Image.open(io.BytesIO(answer.content)).size == (240, 320)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (UNKNOWN, 404),
        ("data/images/tea-green/a.jpg", 422),
        ("valid/secret.json", 422),
        ("valid/images/../secret.jpg", 422),
    ],
)
async def test_nothing_else_of_a_bucket_is_shown(shop: Shop, path: str, status: int) -> None:
    shop.lay("data/images/tea-green/a.jpg", {})
    assert (await shop.client.get(f"/review/{path}".replace("..", "%2E%2E"))).status_code == status


async def test_what_only_calls_itself_an_image_is_refused(shop: Shop) -> None:
    shop.lay(UNKNOWN, {}, b"<script>alert(1)</script>")
    for query in ({}, {"whole": "true"}):
        answer = await shop.client.get(f"/review/{UNKNOWN}", params=query)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"


async def test_photos_are_not_shown_to_pages_of_other_sites(shop: Shop) -> None:
    shop.lay(UNKNOWN, {})
    for path in ("/review", f"/review/{UNKNOWN}"):
        foreign = await shop.client.get(path, headers={"Origin": "http://elsewhere.example"})
        assert foreign.status_code == 403
        own = await shop.client.get(path, headers={"Sec-Fetch-Site": "same-origin"})
        assert own.status_code == 200
        assert "access-control-allow-origin" not in own.headers


# --- decisions ------------------------------------------------------------------------------------


async def test_a_decision_lands_in_data_with_who_when_and_the_models_opinion() -> None:
    shop = Shop(ANN)
    async with shop.client:
        content = shop.lay(UNKNOWN, opinion("tea-lemon", 0.41, camera="shop/till-3", origin="mqtt"))
        before = datetime.now(UTC).replace(microsecond=0)
        answer = await shop.say(
            {"image": UNKNOWN, "product": "Green Tea"}, authorization="Bearer a-token-of-ann"
        )
    assert answer.json() == {"decisions": [{"image": UNKNOWN, "outcome": "taught"}]}
    assert shop.names("unclassified") == []
    (key,) = shop.names("data")
    assert key == "images/tea-green/2026-11-21_09-05-03-007.jpg"
    assert bytes(obstore.get(shop.stores["data"], key).bytes()) == content
    facts = shop.facts("data", key)
    assert before <= datetime.fromisoformat(facts.pop("reviewed-at")) <= datetime.now(UTC)
    assert facts == {
        "Content-Type": "image/jpeg",
        "label": "tea-green",
        "reviewed-by": "ann",
        "source": UNKNOWN,
        "origin": "mqtt",
        "camera": "shop/till-3",
        "model-label": "tea-lemon",
        "model-score": "0.410000",
        "model": MODEL,
        "version": "3",
    }
    (event,) = shop.events
    assert (event["name"], event["item"]) == ("ingestion", "Green Tea")


async def test_many_are_decided_at_once_each_its_own_way(shop: Shop) -> None:
    names = [f"unclassified/images/other/{number:03}.jpg" for number in range(6)]
    for name in names:
        shop.lay(name, opinion("tea-lemon", 0.3))
    shop.lay(UNSURE, opinion("tea-green", 0.7))
    answer = await shop.say(
        *({"image": name, "product": "tea-lemon"} for name in names[:3]),
        {"image": names[3], "product": "Bali Tea", "new": True},
        {"image": names[4], "discard": True},
        {"image": UNSURE, "discard": True},
    )
    assert [each["outcome"] for each in answer.json()["decisions"]] == [*["taught"] * 4, *["discarded"] * 2]
    assert shop.names("data") == [
        "images/bali-tea/003.jpg",
        *(f"images/tea-lemon/{number:03}.jpg" for number in range(3)),
    ]
    # What shows no product stays, aside, with the reason: it is accounted for, and asked about no more.
    rejected = "rejected/images/tea-green/2026-11-21_09-05-04-000.jpg"
    assert shop.names("unclassified") == [
        "images/other/005.jpg",
        rejected.replace("tea-green/2026-11-21_09-05-04-000", "other/004"),
        rejected,
    ]
    assert shop.facts("unclassified", rejected)["reason"] == "not a product"
    assert shop.facts("unclassified", rejected)["reviewed-by"] == "anyone"
    assert shop.names("valid") == []
    assert [each["image"] for each in (await shop.page())["images"]] == [names[5]]


async def test_a_decision_that_comes_twice_changes_nothing(shop: Shop) -> None:
    shop.lay(UNKNOWN, opinion("tea-lemon", 0.41))
    await shop.say({"image": UNKNOWN, "product": "Green Tea"})
    again = await shop.say({"image": UNKNOWN, "product": "Lemon Tea"})
    assert again.json()["decisions"][0]["outcome"] == "gone"
    assert shop.names("data") == ["images/tea-green/2026-11-21_09-05-03-007.jpg"]


async def test_killed_before_the_image_left_its_bucket_it_is_decided_again_without_a_second_copy(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.lay(UNKNOWN, opinion("tea-lemon", 0.41))
    deletions = Requests(monkeypatch, obstore, "delete_async")
    deletions.fail(AWAY)
    assert (await shop.say({"image": UNKNOWN, "product": "Green Tea"})).status_code == 503
    assert shop.names("data") == ["images/tea-green/2026-11-21_09-05-03-007.jpg"]
    assert [each["image"] for each in (await shop.page())["images"]] == [UNKNOWN]
    deletions.mend()
    answer = await shop.say({"image": UNKNOWN, "product": "Green Tea"})
    assert answer.json()["decisions"][0]["outcome"] == "taught"
    assert shop.names("data") == ["images/tea-green/2026-11-21_09-05-03-007.jpg"]
    assert shop.names("unclassified") == []


async def test_an_image_that_cannot_be_written_stays_where_it_is(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.lay(UNKNOWN, opinion("tea-lemon", 0.41))
    Requests(monkeypatch, obstore, "put_async").fail(AWAY)
    assert (await shop.say({"image": UNKNOWN, "product": "Green Tea"})).status_code == 503
    assert shop.names("unclassified") == [UNKNOWN.removeprefix("unclassified/")]


async def test_two_people_at_one_image_are_one_after_the_other(shop: Shop) -> None:
    shop.lay(UNKNOWN, opinion("tea-lemon", 0.41))
    answer = await shop.say(
        {"image": UNKNOWN, "product": "Green Tea"}, {"image": UNKNOWN, "product": "Lemon Tea"}
    )
    assert [each["outcome"] for each in answer.json()["decisions"]] == ["taught", "gone"]
    assert len(shop.names("data")) == 1


@pytest.mark.parametrize(
    "said",
    [
        {"image": UNKNOWN},
        {"image": UNKNOWN, "product": "Green Tea", "discard": True},
        {"image": UNKNOWN, "product": "Grene Tea"},
        {"image": "data/images/tea-green/a.jpg", "product": "Green Tea"},
        {"image": "valid/images/../../x.jpg", "discard": True},
        {"product": "Green Tea"},
    ],
)
async def test_a_decision_that_cannot_be_is_refused_whole(shop: Shop, said: dict[str, Any]) -> None:
    shop.lay(UNKNOWN, opinion("tea-lemon", 0.41))
    answer = await shop.say({"image": UNKNOWN, "product": "Lemon Tea"}, said)
    assert answer.status_code == 422
    assert shop.names("data") == []


async def test_too_many_decisions_or_none_are_refused(shop: Shop) -> None:
    for count in (0, 201):
        decisions = [{"image": UNKNOWN, "discard": True}] * count
        assert (await shop.say(*decisions)).status_code == 422


async def test_without_a_token_nothing_is_shown_and_nothing_decided() -> None:
    shop = Shop(ANN)
    async with shop.client:
        shop.lay(UNKNOWN, opinion("tea-lemon", 0.41))
        assert (await shop.client.get("/review")).status_code == 401
        assert (await shop.client.get(f"/review/{UNKNOWN}")).status_code == 401
        assert (await shop.say({"image": UNKNOWN, "product": "Green Tea"})).status_code == 401
        assert shop.names("data") == []


# --- pure -----------------------------------------------------------------------------------------


def test_names_in_any_letters_come_back_as_they_were() -> None:
    opinion = RecordedOpinion.of({"label": "caf%C3%A9", "score": "0.25", "camera": "T%C3%BCr/1"})
    assert (opinion.label, opinion.score, opinion.camera) == ("café", 0.25, "Tür/1")
    assert str(Ref.parse("valid/images/café au lait/ü.JPG")) == "valid/images/café au lait/ü.JPG"


@pytest.mark.parametrize("score", ["", "much", "nan", "2", "-1"])
def test_a_score_that_is_none_is_not_known(score: str) -> None:
    assert RecordedOpinion.of({"score": score}).score is None


@pytest.mark.parametrize("name", ["", "valid", "valid/", "valid/images/a.jpg", "valid/images/a/b/c.jpg"])
def test_a_reference_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        Ref.parse(name)


def test_a_known_image_without_a_score_needs_no_look() -> None:
    assert why(Ref.parse(UNSURE), RecordedOpinion(), MODEL, 0.8) is None


async def test_an_audit_comes_first_and_tells_nothing_of_what_the_model_said(shop: Shop) -> None:
    shop.lay(UNKNOWN, opinion("tea-lemon", 0.4))
    shop.lay(UNSURE, opinion("tea-green", 0.7))
    shop.lay(SURE, opinion("tea-green", 0.99, camera="till-3"))
    shop.audits.drawn = [
        Audit("valid/images/tea-green/on-its-way.jpg", 5.0),
        Audit(SURE, 7.0),
        Audit(UNSURE, 9.0),
    ]
    images = (await shop.client.get("/review")).json()["images"]
    assert [(each["image"], each["why"]) for each in images] == [
        (SURE, "audit"),
        (UNSURE, "audit"),
        (UNKNOWN, "unknown"),
    ]
    assert images[0] | {"at": "", "image": ""} == {
        **dict.fromkeys(("image", "at", "guess", "guess_label", "model", "version"), ""),
        "why": "audit",
        "score": None,
        "camera": "till-3",
    }


async def test_where_two_versions_differ_both_answers_are_told_and_no_more(shop: Shop) -> None:
    shop.lay(SURE, opinion("tea-green", 0.99))
    answers = Said(7, "tea-green", 0.99), Said(8, "tea-lemon", 0.9)
    shop.audits.drawn = [Audit(SURE, 7.0, "differing", answers)]
    (image,) = (await shop.client.get("/review")).json()["images"]
    assert (image["why"], image["guess"], image["score"], image["version"]) == ("differing", "", None, "")
    assert image["answers"] == [
        {"version": 7, "item": "tea-green", "label": "Green Tea", "score": 0.99},
        {"version": 8, "item": "tea-lemon", "label": "Lemon Tea", "score": 0.9},
    ]


async def test_what_is_said_of_an_image_is_heard_where_audits_are_noted(shop: Shop) -> None:
    for name in (SURE, UNSURE):
        shop.lay(name, opinion("tea-green", 0.99))
    shop.audits.drawn = [Audit(SURE, 7.0), Audit(UNSURE, 9.0)]
    decisions = [{"image": SURE, "product": "Lemon Tea"}, {"image": UNSURE, "discard": True}]
    await shop.client.post("/review", json={"decisions": decisions})
    assert shop.audits.heard == {SURE: "tea-lemon", UNSURE: "other"}
    assert (await shop.client.get("/review")).json()["images"] == []
