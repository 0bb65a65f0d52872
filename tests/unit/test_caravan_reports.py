"""What a bucket's versions say of themselves, and the report beside each."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from typer.testing import CliRunner

from caravan import pages, reports, s3
from caravan.errors import BadInput, Transient
from caravan.manifest import File, Lineage, Manifest
from caravan.testing.stores import Requests
from caravan_cli.__main__ import commands

LINEAGE = Lineage(
    data_digest="d" * 64,
    classes=("other", "tea-green"),
    metrics={"accuracy": 0.98, "f1": {"other": 0.9}},
    created="2026-11-21T12:00:00+00:00",
)


async def publish(
    store: MemoryStore,
    version: int,
    *,
    page: bytes | None = b"<p>report</p>",
    lineage: Lineage | None = LINEAGE,
    model: str = "tea",
    entry: str = "saved_model.pb",
) -> None:
    prefix = f"models/{model}/{version}/"
    if page is not None:
        await s3.write(store, f"{prefix}report/index.html", page)
    if entry:
        await s3.write(store, prefix + entry, b"model")
    if lineage is not None:
        manifest = Manifest(model, version, (File("saved_model.pb", 5, "0" * 64),), lineage)
        await s3.write(store, f"{prefix}manifest.json", manifest.to_json())


def address(model: str, version: int) -> str:
    return f"reports/{model}/{version}"


async def listed(store: MemoryStore) -> list[dict[str, Any]]:
    return await reports.Reports(store).list_models(address)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def refusal(store: MemoryStore, model: str, version: str) -> str:
    with pytest.raises(BadInput) as caught:
        await reports.Reports(store).read_report(model, version)
    assert caught.value.status == 404
    return caught.value.detail


async def test_versions_are_listed_newest_first_with_what_their_manifests_say(store: MemoryStore) -> None:
    await publish(store, 2)
    await publish(store, 10, lineage=replace(LINEAGE, parent=2, rejected="worse than version 2"))
    await publish(store, 1, page=None, model="digits", lineage=replace(LINEAGE, upload="a" * 64))
    digits, tea = await listed(store)
    assert (digits["model"], tea["model"]) == ("digits", "tea")
    assert tea["versions"][1] == {
        "version": 2,
        "verdict": "passed",
        "rejected": None,
        "created": "2026-11-21T12:00:00+00:00",
        "data_digest": "d" * 64,
        "parent": None,
        "rollback_of": None,
        "upload": None,
        "classes": ["other", "tea-green"],
        "metrics": {"accuracy": 0.98, "f1": {"other": 0.9}},
        "report": "reports/tea/2",
    }
    newest = tea["versions"][0]
    assert (newest["version"], newest["verdict"], newest["parent"]) == (10, "rejected", 2)
    assert newest["rejected"] == "worse than version 2"
    assert digits["versions"][0]["report"] is None
    assert digits["versions"][0]["upload"] == "a" * 64


async def test_a_version_without_a_manifest_or_with_a_damaged_one_is_listed_by_its_number(
    store: MemoryStore,
) -> None:
    await publish(store, 1, page=None, lineage=None)
    await publish(store, 2, page=None, lineage=None)
    await s3.write(store, "models/tea/2/manifest.json", b"{")
    (tea,) = await listed(store)
    assert tea["versions"] == [
        {"version": 2, "verdict": None, "report": None},
        {"version": 1, "verdict": None, "report": None},
    ]


async def test_a_version_on_its_way_and_what_is_none_are_passed_over(store: MemoryStore) -> None:
    assert await listed(store) == []
    await publish(store, 1, entry="", lineage=None)
    await s3.write(store, "models/models.config", b"config")
    await s3.write(store, "models/tea/notes.txt", b"notes")
    await s3.write(store, "uploads/tea/1.zip", b"zip")
    assert await listed(store) == []
    assert "no version of a model" in await refusal(store, "tea", "1")
    await publish(store, 3, entry="model.onnx")
    (tea,) = await listed(store)
    assert [version["version"] for version in tea["versions"]] == [3]


async def test_of_many_versions_the_newest_are_listed_and_the_rest_counted(store: MemoryStore) -> None:
    for version in range(1, reports.MOST_VERSIONS + 4):
        await publish(store, version, page=None, lineage=None)
    (tea,) = await listed(store)
    assert len(tea["versions"]) == reports.MOST_VERSIONS
    assert tea["versions"][0]["version"] == reports.MOST_VERSIONS + 3
    assert tea["older"] == 3


async def test_a_list_costs_the_manifests_that_are_new(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in range(1, 201):
        await publish(store, version)
    found, read, listed = reports.Reports(store), list[str](), list[str]()
    real_read, real_listing = s3.read_changed, s3.listing

    async def read_changed(*arguments: Any, **options: Any) -> Any:
        answer = await real_read(*arguments, **options)
        read.extend([] if answer is None else [arguments[1]])
        return answer

    def listing(store: Any, prefix: str) -> Any:
        listed.append(prefix)
        return real_listing(store, prefix)

    monkeypatch.setattr(s3, "read_changed", read_changed)
    monkeypatch.setattr(s3, "listing", listing)
    first = await found.list_models(address)
    assert len(read) == len(listed) == reports.MOST_VERSIONS
    read.clear()
    listed.clear()
    assert await found.list_models(address) == first
    assert read == listed == []
    await publish(store, 201, lineage=replace(LINEAGE, rejected="worse"))
    await publish(store, 180, lineage=replace(LINEAGE, rejected="withdrawn"))
    (tea,) = await found.list_models(address)
    assert sorted(read) == [f"models/tea/{version}/manifest.json" for version in (180, 201)]
    assert {v["version"] for v in tea["versions"] if v["verdict"] == "rejected"} == {201, 180}
    await s3.delete(store, [f"models/tea/201/{path}" for path in ("manifest.json", "saved_model.pb")])
    (tea,) = await found.list_models(address)
    assert tea["versions"][0]["version"] == 200


async def test_a_version_that_cannot_be_read_keeps_no_other_from_the_list(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(store, 1)
    await publish(store, 2)
    reads = Requests(monkeypatch, s3, "read_changed")
    reads.fail(Transient("500 Internal Server Error"), where=lambda key: "/2/" in key)
    (tea,) = await listed(store)
    assert [(one["version"], one["verdict"]) for one in tea["versions"]] == [(2, None), (1, "passed")]


async def test_a_report_costs_its_version_and_no_other(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in range(1, 11):
        await publish(store, version, page=b"%d" % version)
    listings = Requests(monkeypatch, s3, "listing")
    assert (await reports.Reports(store).read_report("tea", "3")).content == b"3"
    assert (await reports.Reports(store).read_report("tea", "latest")).content == b"10"
    assert listings.keys == ["models/tea/3/", "models/tea/10/"]


async def test_a_report_is_found_by_its_version_or_as_the_latest(store: MemoryStore) -> None:
    await publish(store, 9, page=b"nine")
    await publish(store, 10, page=b"ten")
    await publish(store, 11, page=b"one of another", model="tea2")
    assert await reports.Reports(store).read_report("tea", "9") == reports.Report("tea", 9, b"nine")
    assert await reports.Reports(store).read_report("tea", "latest") == reports.Report("tea", 10, b"ten")


async def test_who_asks_for_what_is_not_there_is_told_what_is(store: MemoryStore) -> None:
    assert "no version of a model 'tea'" in await refusal(store, "tea", "latest")
    for version in range(1, 9):
        await publish(store, version, page=b"page" if version in (2, 4) else None)
    assert "no version 12 of tea here, but 8, 7, 6, 5, 4 and older ones" in await refusal(store, "tea", "12")
    assert "version 8 of tea came without a report" in await refusal(store, "tea", "latest")
    assert "4, 2 have one" in await refusal(store, "tea", "latest")
    for text in ("0", "-1", "07", "1.5", "newest", "9" * 30, "²"):
        assert "whole number, or latest" in await refusal(store, "tea", text)
    for model in ("", "..", "a/b", "models.config", "x" * 200):
        assert "no version of a model" in await refusal(store, model, "1")


async def test_a_model_of_which_no_version_has_a_report_says_so(store: MemoryStore) -> None:
    await publish(store, 1, page=None)
    assert "no version of tea has a report" in await refusal(store, "tea", "1")


async def test_a_page_that_is_too_large_is_not_read_into_memory(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MOST_BYTES", 10)
    await publish(store, 1, page=b"x" * 11)
    assert "fetch models/tea/1/report/index.html from the bucket" in await refusal(store, "tea", "1")
    (tea,) = await listed(store)
    assert tea["versions"][0]["verdict"] is None


def test_a_page_is_shown_so_that_it_can_do_nothing_else() -> None:
    answer = pages.show(b"<p>")
    assert answer.body == b"<p>"
    assert answer.media_type == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_where_a_report_cannot_be_written_the_command_says_why_in_a_line(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(publish(store, 1))
    monkeypatch.setattr(s3, "open_bucket", lambda *_: store)
    monkeypatch.setenv("EDGE", "edge1")
    file = tmp_path / "file"
    file.touch()
    result = CliRunner().invoke(commands, ["report", "tea", "--out", str(file / "below")])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "Not a directory" in result.output
