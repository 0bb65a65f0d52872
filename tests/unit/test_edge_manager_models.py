"""Several models at one edge: SavedModels and ONNX, and how the model server comes to know of them."""

import asyncio
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from fastapi import FastAPI
from obstore.store import LocalStore, MemoryStore, ObjectStore

from caravan.contracts import Event, to_json, trusted_event
from caravan.manifest import File, Manifest
from edge_manager.central import Central
from edge_manager.doors.versions import install
from edge_manager.edge import Edge
from edge_manager.known import Known, Rules
from edge_manager.model_server import ModelServer
from edge_manager.records import Records
from edge_manager.routes import one_round
from edge_manager.sinks import Sink
from edge_manager.sinks.bucket import BucketSink
from edge_manager.sinks.directory import DirectorySink
from model_server.config_file import parse
from model_server.configs import model_configs
from model_server.versions import Latest, Policy, Specific

TEA, FASHION, DIGITS = "tea_model_b64", "fashion_classifier", "digits"


class Site:
    """Central, an edge with one sink, and a model server that reads its config from there."""

    def __init__(self, root: Path, kind: str, served: int = 1) -> None:
        self.central = MemoryStore()
        self.production: ObjectStore
        self.kind = kind
        if kind == "bucket":
            self.production = MemoryStore()
            self.base, self.config = "s3://production/models", "models/models.config"
            sink: Sink = BucketSink(self.production, _fine, _fine, served=served)
        else:
            self.production = LocalStore(root / "models", mkdir=True)
            self.base, self.config = "/srv/models", "models.config"
            sink = DirectorySink(root / "models", "/srv/models", served)
        self.reads_config = True
        self.served: list[frozenset[int]] = []
        self.writes = 0
        self.now = 0.0
        self.events: list[dict[str, Any]] = []
        client = httpx.AsyncClient(base_url="http://server", transport=httpx.MockTransport(self._answer))
        self.edge = Edge(
            central=Central(self.central),
            sinks=(sink,),
            server=ModelServer(client),
            records=Records(MemoryStore()),
            post=lambda event: self.events.append(dict(event)),
            rules=Rules("edge1"),
            clock=lambda: self.now,
        )

    def restart(self, rules: Rules | None = None) -> None:
        """Begin a new life, with the records and sinks of the one before."""
        self.edge = replace(
            self.edge, known=Known(), inbox=asyncio.Queue(), is_open=False, rules=rules or self.edge.rules
        )

    def hear(self, event: Event) -> None:
        """Let the edge-manager hear an event of the edge."""
        self.edge.hear(to_json(event))
        self.edge.catch_up()

    def _answer(self, request: httpx.Request) -> httpx.Response:
        model = request.url.path.rsplit("/", 1)[1]
        found = self.versions(model) if self.reads_config and model in self.configured() else set()
        if not found:
            return httpx.Response(404, json={"error": f"Could not find any versions of model {model}"})
        served = self.policy(model).choose(found)
        self.served.append(served)
        states: list[dict[str, Any]] = [
            {"version": str(v), "state": "AVAILABLE" if v in served else "END", "status": {}} for v in found
        ]
        return httpx.Response(200, json={"model_version_status": states})

    def keys(self) -> set[str]:
        prefix = "" if self.kind == "bucket" else "models/"
        listed = obstore.list(self.production).collect()
        return {prefix + entry["path"] for entry in listed if ".staging" not in entry["path"]}

    def versions(self, model: str) -> set[int]:
        pattern = re.compile(rf"models/{model}/(\d+)/(saved_model\.pb|model\.onnx)")
        return {int(match[1]) for key in self.keys() if (match := pattern.fullmatch(key))}

    def policy(self, model: str) -> Policy:
        """Return which versions the model server is told to serve."""
        return model_configs(parse(self.text().encode()))[model].policy

    def text(self) -> str:
        return bytes(obstore.get(self.production, self.config).bytes()).decode()

    def configured(self) -> dict[str, str]:
        try:
            text = self.text()
        except FileNotFoundError:
            return {}
        return dict(re.findall(r'config \{\s+name: "(.+)"\s+base_path: "(.+)"', text))

    def publish(self, model: str, version: int, files: dict[str, bytes], *, vouched: bool = True) -> None:
        listed = tuple(File(p, len(c), hashlib.sha256(c).hexdigest()) for p, c in files.items())
        whole = dict(files)
        if vouched:
            whole["manifest.json"] = Manifest(model, version, listed).to_json()
        for path, content in whole.items():
            obstore.put(self.central, f"models/{model}/{version}/{path}", content)

    async def rounds(self, count: int = 3) -> None:
        await self.edge.open()
        for _ in range(count):
            self.edge.learn(await self.edge.look())
            # What was brought is news, and has another round come at once.
            is_news = True
            while is_news:
                async with asyncio.TaskGroup() as tasks:
                    await one_round(self.edge, tasks)
                is_news = self.edge.catch_up()
            self.now += 15

    def told(self, name: str) -> list[tuple[str, int]]:
        return [(event["model"], event["version"]) for event in self.events if event["name"] == name]


async def _fine() -> None:
    pass


@pytest.fixture(params=["bucket", "directory"])
def comparing(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Return an edge whose shopper compares versions, and which keeps two."""
    site = Site(tmp_path, request.param, served=2)
    site.edge.rules = Rules("edge1", keep_versions=2, compares=True)
    return site


@pytest.fixture(params=["bucket", "directory"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(tmp_path, request.param)


async def test_a_model_is_configured_with_its_first_version_and_not_before(site: Site) -> None:
    await site.rounds(1)
    assert site.configured() == {}
    site.publish(TEA, 1, {"saved_model.pb": b"tea"})
    await site.rounds(1)
    assert site.configured() == {TEA: f"{site.base}/{TEA}"}


async def test_models_of_both_kinds_serve_side_by_side(site: Site) -> None:
    site.publish(TEA, 1, {"saved_model.pb": b"tea", "variables/variables.index": b"x"})
    site.publish(FASHION, 4, {"model.onnx": b"onnx"})
    site.publish(DIGITS, 2, {"model.onnx": b"onnx"}, vouched=False)
    await site.rounds()
    assert set(site.configured()) == {TEA, FASHION, DIGITS}
    assert sorted(site.told("pushmodel")) == [(DIGITS, 2), (FASHION, 4), (TEA, 1)]
    assert {name: model.serving for name, model in site.edge.known.models.items()} == {
        DIGITS: 2,
        FASHION: 4,
        TEA: 1,
    }


@pytest.mark.parametrize("kind", ["bucket", "directory"])
async def test_where_versions_are_compared_the_config_asks_for_the_version_before_too(
    kind: str, tmp_path: Path
) -> None:
    for name, served, latest in (("alone", 1, None), ("beside", 2, 2)):
        site = Site(tmp_path / name, kind, served)
        site.publish(TEA, 1, {"saved_model.pb": b"tea"})
        await site.rounds(1)
        (config,) = model_configs(parse(site.text().encode())).values()
        assert (config.name, config.policy) == (TEA, Latest(latest or 1))
        assert ("model_version_policy" in site.text()) == (latest is not None)


async def test_the_version_that_the_shopper_trusts_is_served_beside_the_newest_however_many_come(
    comparing: Site,
) -> None:
    site = comparing
    for version in (1, 2):
        site.publish(TEA, version, {"saved_model.pb": b"tea %d" % version})
        await site.rounds(1)
    assert site.policy(TEA) == Latest(2)
    site.hear(trusted_event(TEA, 1))  # the second one is compared with it, or was stopped
    for version in (3, 4, 5):
        site.publish(TEA, version, {"saved_model.pb": b"tea %d" % version})
        await site.rounds(2)
        assert site.policy(TEA) == Specific(frozenset({1, version}))
    assert all(1 in served for served in site.served), "it answers all the while"
    assert site.versions(TEA) == {1, 4, 5}, "beside the two that are kept"

    site.restart()
    site.served.clear()
    site.publish(TEA, 6, {"saved_model.pb": b"tea 6"})
    await site.rounds(2)
    assert site.policy(TEA) == Specific(frozenset({1, 6}))
    assert all(1 in served for served in site.served), "nobody has said it again yet"

    site.hear(trusted_event(TEA, 6))
    await site.rounds(1)
    assert site.policy(TEA) == Specific(frozenset({6}))
    site.publish(TEA, 7, {"saved_model.pb": b"tea 7"})
    await site.rounds(2)
    assert site.policy(TEA) == Specific(frozenset({6, 7}))
    assert site.versions(TEA) == {6, 7}


@pytest.mark.parametrize(
    "event",
    [
        trusted_event(TEA, 9),
        trusted_event("another", 1),
        trusted_event(TEA, 1) | {"name": "detection", "item": "trusted"},
        trusted_event(TEA, 1) | {"version": "1"},
        trusted_event(TEA, 1) | {"version": True},
        trusted_event(TEA, 1) | {"model": ["trusted"]},
    ],
)
async def test_a_version_that_is_not_here_is_trusted_by_nobody(comparing: Site, event: Event) -> None:
    comparing.publish(TEA, 1, {"saved_model.pb": b"tea"})
    await comparing.rounds(1)
    comparing.hear(event)
    await comparing.rounds(1)
    assert comparing.policy(TEA) == Latest(2)
    comparing.edge.hear(b'no JSON with "trusted"')


async def test_who_asks_is_told_which_version_the_shopper_trusts_where_versions_are_compared(
    comparing: Site,
) -> None:
    comparing.publish(TEA, 1, {"saved_model.pb": b"tea"})
    await comparing.rounds(1)
    assert await trusted_at_the_door(comparing) is None
    comparing.hear(trusted_event(TEA, 1))
    await comparing.rounds(1)
    assert await trusted_at_the_door(comparing) == 1
    comparing.restart()
    await comparing.rounds(1)
    assert await trusted_at_the_door(comparing) == 1
    comparing.restart(Rules("edge1"))
    await comparing.rounds(1)
    assert await trusted_at_the_door(comparing) is None


async def trusted_at_the_door(site: Site) -> int | None:
    app = FastAPI()
    install(app, site.edge, "edge1")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client:
        answer = (await client.get("/versions")).json()
    found: int | None = answer["models"][TEA]["trusted"]
    return found


async def test_where_no_versions_are_compared_any_more_the_newest_serves_alone(
    comparing: Site, tmp_path: Path
) -> None:
    comparing.publish(TEA, 1, {"saved_model.pb": b"tea"})
    await comparing.rounds(1)
    comparing.hear(trusted_event(TEA, 1))
    await comparing.rounds(1)
    comparing.restart(Rules("edge1"))
    await comparing.rounds(1)
    assert not isinstance(comparing.policy(TEA), Specific)


async def test_the_config_is_written_only_when_the_models_change(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[frozenset[str]] = []
    (sink,) = site.edge.sinks
    real = sink.configure

    async def configure(models: Any) -> None:
        written.append(frozenset(models))
        await real(models)

    monkeypatch.setattr(sink, "configure", configure)
    await site.rounds()
    site.publish(FASHION, 1, {"model.onnx": b"onnx"})
    await site.rounds()
    site.publish(FASHION, 2, {"model.onnx": b"onnx 2"})
    await site.rounds()
    assert written == [frozenset(), {FASHION}]


async def test_a_restart_leaves_a_config_that_says_the_same_untouched(site: Site) -> None:
    await site.rounds(1)
    before = obstore.head(site.production, site.config)
    site.edge.known = replace(site.edge.known, configured={})
    await site.rounds(1)
    assert obstore.head(site.production, site.config) == before


async def test_a_version_that_names_two_models_is_refused(site: Site) -> None:
    site.publish(FASHION, 1, {"model.onnx": b"onnx", "saved_model.pb": b"graph"})
    await site.rounds()
    assert site.told("model-rejected") == [(FASHION, 1)]
    assert site.versions(FASHION) == set()


async def test_a_model_that_the_server_never_picks_up_is_waited_for_and_said(site: Site) -> None:
    site.reads_config = False
    site.publish(FASHION, 1, {"model.onnx": b"onnx"})
    await site.rounds(12)
    assert site.told("model-rejected") == []
    assert site.versions(FASHION) == {1}
    fault = str(site.edge.known.models[FASHION].fault)
    assert f"--model_config_file={site.base}/models.config" in fault
    assert "MODEL_SERVER_BASE_PATH" in fault
    site.reads_config = True
    await site.rounds(1)
    assert site.edge.known.models[FASHION].fault is None
    assert site.told("pushmodel") == [(FASHION, 1)]
