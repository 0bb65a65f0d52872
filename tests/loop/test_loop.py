"""The whole loop: photos go up, a model comes back, a product that nobody knew has a name and a price."""

import asyncio
import base64
import hashlib
import io
import json
import secrets
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiomqtt
import pytest

from caravan.contracts import DEFAULT_MODEL
from caravan_cli.trace_files import Trace, of_upload, read_traces
from lab.photos import render
from support.platform import EDGE, Platform, eventually
from training.codes import REFUSED

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEMON = [render("tea-lemon", 5_000_000 + n) for n in range(5)]
GREEN = [render("tea-green", 5_000_000 + n) for n in range(5)]


async def labels(platform: Platform, photos: list[bytes]) -> list[str]:
    answers = [(await platform.detect(photo)).json() for photo in photos]
    return [answer["pricetag"] for answer in answers]


async def test_a_photo_of_a_known_product_gets_the_same_name_and_price_at_every_door(
    platform: Platform,
) -> None:
    shopper = platform.stack.url(f"shopper-{EDGE}")
    over_json = (await platform.detect(LEMON[0])).json()
    over_binary = (await platform.client.post(f"{shopper}/binary", content=LEMON[0])).json()
    async with aiomqtt.Client("127.0.0.1", platform.stack.port(f"mqtt-{EDGE}")) as client:
        await client.subscribe("response/detection/phone", qos=1)
        body = json.dumps({"image": base64.b64encode(LEMON[0]).decode()})
        await client.publish("detection/phone", body, qos=1)
        async with asyncio.timeout(60):
            over_mqtt = json.loads((await anext(client.messages)).payload)
    assert over_json["known"] == "true"
    assert over_json["pricetag"] == "Lemon Tea: 4.99"
    assert over_json["version"] == await platform.serving()
    assert over_binary == over_json == over_mqtt


async def test_tensorflow_servings_rest_door_answers_label_and_probability(platform: Platform) -> None:
    url = f"{platform.stack.url(f'model-server-{EDGE}', 'rest')}/v1/models/{DEFAULT_MODEL}:predict"
    body = {"instances": [{"b64": base64.b64encode(LEMON[0]).decode()}]}
    label, probability = (await platform.client.post(url, json=body)).json()["predictions"]
    assert label == "tea-lemon"
    assert 0.6 < float(probability) <= 1


async def test_a_product_that_nobody_knew_is_known_after_an_upload_and_nobody_saw_an_error(
    platform: Platform,
) -> None:
    assert (await labels(platform, GREEN)).count("Other: N/A") >= 4
    before = await platform.serving()
    async with answered_throughout(platform, LEMON[1]) as statuses:
        await platform.upload_until_taken(platform.archive(11, tea_green=40))
        await platform.wait_serving(before + 1)
        await eventually(lambda: known(platform), 30)
    assert set(statuses) == {200}
    assert (await labels(platform, GREEN)).count("Green Tea: 2.99") >= 4
    assert (await labels(platform, LEMON)).count("Lemon Tea: 4.99") >= 4


WORK = {
    "feeder": ("zip-upload", "receive", "check", "store", "trigger"),
    "delivery": ("trigger-pipeline",),
    "training": ("training-trigger", "training-run", "acquire", "train", "evaluate", "publish"),
    "edge-manager": ("model-sync", "until it serves"),
    "model-server": ("load",),
}
UPLOADED = {(service, name) for service, names in WORK.items() for name in names}
BROUGHT = {(service, name) for service, name in UPLOADED if service in {"edge-manager", "model-server"}}


def spans(trace: Trace | None) -> set[tuple[str, str]]:
    return {(span.service, span.name) for span in trace.spans} if trace else set()


async def test_that_upload_is_one_trace_to_the_model_that_serves(platform: Platform) -> None:
    batch = hashlib.sha256(platform.archive(11, tea_green=40).read_bytes()).hexdigest()
    folder = platform.stack.settings.home / "traces"

    def trace() -> Trace | None:
        return of_upload(read_traces(folder).values(), batch)

    async def whole() -> bool:
        return spans(trace()) >= UPLOADED

    await eventually(whole, 30)
    found = trace()
    assert found is not None
    assert spans(found) == UPLOADED
    assert [span.name for span in found.children()[None]] == ["zip-upload"]
    assert {span.facts["version"] for span in found.spans if span.name == "load"} == {
        await platform.serving()
    }


async def test_a_detection_is_part_of_its_clients_trace_down_to_the_model_server(platform: Platform) -> None:
    shopper, trace = platform.stack.url(f"shopper-{EDGE}"), secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    await platform.client.post(f"{shopper}/binary", content=LEMON[0], headers=headers)
    folder = platform.stack.settings.home / "traces"
    expected = {("shopper", "detect-binary"), ("shopper", "predict"), ("model-server", "Predict")}

    async def whole() -> bool:
        return spans(read_traces(folder).get(trace)) == expected

    await eventually(whole, 30)


async def test_photos_that_are_known_already_train_nothing(platform: Platform) -> None:
    await platform.settled()
    before = await platform.serving(), len((await platform.runs())["last"])
    answer = await platform.upload_until_taken(platform.archive(11, tea_green=40))
    assert (answer["stored"], answer["duplicates"]) == (0, 40)

    async def ran() -> bool:
        runs = await platform.runs()
        return len(runs["last"]) > before[1] or runs["last"][-1]["detail"] == "unchanged"

    await eventually(ran, 60)
    await platform.settled()
    assert await platform.serving() == before[0]


async def test_a_version_travels_with_its_report_which_is_shown_at_the_edge_at_the_hub_and_as_a_file(
    platform: Platform,
) -> None:
    version, shopper, hub = (
        await platform.serving(),
        platform.stack.url(f"shopper-{EDGE}"),
        platform.stack.url("hub"),
    )
    at_edge = (await platform.client.get(f"{shopper}/models")).json()["models"]
    at_hub = (await platform.client.get(f"{hub}/reports/{EDGE}")).json()["models"]
    (here,) = [v for m in at_edge if m["model"] == DEFAULT_MODEL for v in m["versions"][:1]]
    (there,) = [
        v for m in at_hub if m["model"] == DEFAULT_MODEL for v in m["versions"] if v["version"] == version
    ]
    assert (here["version"], here["verdict"]) == (version, "passed")
    assert here["metrics"] == there["metrics"]
    assert "tea-green" in here["classes"]

    latest = await platform.client.get(f"{shopper}/models/{DEFAULT_MODEL}/latest/report")
    assert latest.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in latest.headers["content-security-policy"]
    assert "Compared with version" in latest.text
    assert (await platform.client.get(f"{shopper}/{here['report']}")).content == latest.content
    assert (await platform.client.get(f"{hub}/{there['report']}")).content == latest.content

    words = ("caravan", "report", DEFAULT_MODEL, "--version", str(version), "--out", str(platform.folder))
    assert await platform.operator(*words) == 0
    file = platform.folder / f"{EDGE}-{DEFAULT_MODEL}-{version}.html"
    assert file.read_bytes() == latest.content


async def test_a_photo_taught_at_the_edge_becomes_training_data_at_central(platform: Platform) -> None:
    shopper = platform.stack.url(f"shopper-{EDGE}")
    photo = render("tea-licorice", 6_000_000)
    body = {"image": base64.b64encode(photo).decode(), "product": "Licorice Tea"}
    taught = await platform.client.post(f"{shopper}/ingestion", json=body)
    assert taught.json() == {"status": "done"}
    assert (await platform.client.post(f"{shopper}/zip")).json()["status"] == "done"
    keys = await platform.central(f"{EDGE}-data", "images/tea-licorice/")
    assert len(keys) == 1
    assert await platform.read("s3-central", f"{EDGE}-data", next(iter(keys))) == photo
    assert await platform.edge("data", "images/") == {}


async def test_an_operator_rolls_back_by_one_command(platform: Platform) -> None:
    await platform.settled()
    before = await platform.serving()
    code = await platform.operator("training", "rollback", "--edge", EDGE, "--to", "1")
    assert code == 0
    await platform.wait_serving(before + 1)

    async def forgotten() -> bool:
        return (await labels(platform, GREEN)).count("Other: N/A") >= 4

    await eventually(forgotten, 30)

    async def traced() -> bool:
        traces = read_traces(platform.stack.settings.home / "traces").values()
        return any(spans(trace) == {("training", "rollback"), *BROUGHT} for trace in traces)

    await eventually(traced, 30)


async def test_a_rollback_holds_through_uploads_until_one_command_releases_it(platform: Platform) -> None:
    before = await platform.serving()
    await platform.upload_until_taken(platform.archive(12, tea_lemon=3))

    async def held() -> bool:
        await platform.settled()
        last = (await platform.runs())["last"]
        return bool(last) and "an operator rolled back to version 1" in last[-1]["detail"]

    await eventually(held, 150)
    assert await platform.serving() == before
    assert await platform.operator("training", "release", "--edge", EDGE) == 0
    await platform.wait_serving(before + 1)
    assert await platform.operator("training", "release", "--edge", EDGE) == REFUSED


async def test_a_batch_is_withdrawn_by_one_command_and_a_version_without_it_serves(
    platform: Platform,
) -> None:
    await platform.settled()
    before = await platform.serving()
    content = platform.archive(12, tea_lemon=3).read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        photos = [hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()]
    assert await platform.operator("caravan", "withdraw", hashlib.sha256(content).hexdigest()) == 0
    await platform.wait_serving(before + 1)
    assert await platform.operator("caravan", "which", photos[0]) == 0
    assert await platform.operator("caravan", "which", "0" * 64) == 1


async def test_every_image_is_accounted_for(platform: Platform) -> None:
    assert await platform.operator("caravan", "account") == 0


async def known(platform: Platform) -> bool:
    return "Green Tea: 2.99" in await labels(platform, GREEN)


@asynccontextmanager
async def answered_throughout(platform: Platform, photo: bytes) -> AsyncIterator[list[int]]:
    """Ask again and again; yields the status of each answer."""
    statuses: list[int] = []

    async def ask() -> None:
        while True:
            statuses.append((await platform.detect(photo)).status_code)
            await asyncio.sleep(0.02)

    asking = asyncio.create_task(ask())
    try:
        yield statuses
        assert not asking.done(), "a request got no answer at all"
    finally:
        asking.cancel()
        await asyncio.wait([asking])
