"""The route `model-sync`, over stores in memory, a directory, and a model server that is watched."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import obstore
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import LocalStore, MemoryStore, ObjectStore
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

import edge_manager.sinks.bucket
import edge_manager.streams
from caravan import model_index, model_signature
from caravan.contracts import SIGNATURE, model_ready_event
from caravan.errors import Transient
from caravan.manifest import File, Lineage, Manifest, Shared
from caravan.pieces import PIECES, to_json
from caravan.provenance import Provenance
from caravan.signatures import PrivateKey, PublicKeys, digests_of, sign
from caravan.testing.waiting import running, until
from edge_manager import bringing, plan
from edge_manager.central import Central, CentralAway
from edge_manager.doors.versions import install
from edge_manager.edge import Edge
from edge_manager.known import Rules
from edge_manager.model_server import ModelServer
from edge_manager.records import Records
from edge_manager.routes import model_sync, one_round, rounds
from edge_manager.sinks import Sink
from edge_manager.sinks.bucket import BucketSink
from edge_manager.sinks.directory import DirectorySink
from edge_manager.status import versions
from edge_manager.versions import Complete, Listed, Offer, Offered, Ref, Wanted

MODEL = "tea"
FILES = {
    "saved_model.pb": b"a graph" * 500,
    "variables/variables.index": b"an index" * 30,
    "variables/variables.data-00000-of-00001": bytes(range(256)) * 40,
    "assets/labels.txt": b"green\nlemon\n",
}
Files = dict[str, bytes]

# A model as another pipeline leaves it, without a manifest: one graph, with a saver and an asset; a
# `variables.index` that TensorFlow wrote, pointing at 82 bytes of one shard.
UNVOUCHED = {
    "saved_model.pb": bytes.fromhex("0801") + b"\x12\x0a\x1a\x00\x32\x06\x12\x04a.tx",
    "variables/variables.index": bytes.fromhex(
        "00000608011a020801001c0b5f434845434b504f494e5441424c455f4f424a4543545f4752415048080712002852350d"
        "62aa5b00000000010000000099b6ab4d000000000100000000c0f2a1b000010260003b00000000010000000044f6c149"
        "40084d0e00000000000000000000000000000000000000000000000000000000000000000000000057fb808b247547db"
    ),
    "variables/variables.data-00000-of-00001": bytes(82),
    "assets/a.tx": b"",
}


# --- a world around the route -------------------------------------------------------------------


class Link(Central):
    """Central behind a link that can be cut, before anything is read or after so many bytes."""

    def __init__(self, store: ObjectStore, of_group: Callable[[str], ObjectStore]) -> None:
        super().__init__(store, of_group)
        self.cut = False
        self.bytes_left: int | None = None

    async def look(self, now: float, **how: Any) -> Mapping[str, Offer]:
        if self.cut:
            raise CentralAway("the link is cut")
        return await super().look(now, **how)

    async def pieces(
        self, version: Offered | Complete, file: Listed | Wanted, end: int, start: int = 0
    ) -> AsyncIterator[bytes]:
        async for content in super().pieces(version, file, end, start):
            if self.bytes_left is not None:
                self.bytes_left -= len(content)
            if self.cut or (self.bytes_left is not None and self.bytes_left < 0):
                raise CentralAway("the link is cut")
            yield content


class Server:
    """A model server: serves the newest version that loads, and checks that it never sees half of one.

    The content of `saved_model.pb` says how loading goes: `FAILS`, `HANGS` while it is slow, or well.
    """

    def __init__(self, read: Callable[[], dict[int, Files]]) -> None:
        self._read = read
        self.is_away = False
        self.frozen: dict[int, dict[str, Any]] | None = None
        self.is_slow = True
        self.spoilt: set[int] = set()
        """Versions whose files a test has damaged since they came."""
        self.failing: dict[int, str] = {}
        """The code of its error, by version."""

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            raise httpx.ConnectError("refused", request=request)
        if request.url.path != f"/v1/models/{MODEL}":
            return httpx.Response(404, json={"error": "Could not find any versions of model"})
        states = self.states() if self.frozen is None else self.frozen
        if not states:
            return httpx.Response(404, json={"error": f"Could not find any versions of model {MODEL}"})
        return httpx.Response(200, json={"model_version_status": list(states.values())})

    def states(self) -> dict[int, dict[str, Any]]:
        seen = {v: files for v, files in self._read().items() if "saved_model.pb" in files}
        states = {}
        for version, files in seen.items():
            if version not in self.spoilt:
                assert_whole(version, files)
            content, error = files["saved_model.pb"], "OK"
            if content.startswith(b"FAILS") or version in self.failing:
                state, error = "END", self.failing.get(version, "INTERNAL")
            else:
                state = "LOADING" if content.startswith(b"HANGS") and self.is_slow else "AVAILABLE"
            states[version] = {
                "version": str(version),
                "state": state,
                "status": {"error_code": error, "error_message": "bad graph" if error != "OK" else ""},
            }
        good = [v for v, status in states.items() if status["state"] == "AVAILABLE"]
        for version in good:
            if version != max(good):
                states[version]["state"] = "END"
        return states


def assert_whole(version: int, files: Files) -> None:
    if "manifest.json" in files:
        for file in Manifest.from_json(files["manifest.json"]).files:
            assert hashlib.sha256(files[file.path]).hexdigest() == file.sha256, (version, file.path)
    else:
        assert files == UNVOUCHED, version


class World:
    """Central, an edge with one kind of sink, and as many lives of the edge-manager as a test wants."""

    def __init__(self, root: Path, kind: str) -> None:
        self.central = MemoryStore()
        self.production = MemoryStore()
        self.directory = root / "models"
        self.kind = kind
        self.read = "directory" if "directory" in kind else "bucket"
        """The sink that the model server reads."""
        self.groups = {"north": MemoryStore(), "south": MemoryStore()}
        self.link = Link(self.central, self.groups.__getitem__)
        self.server = Server(self.at_edge)
        self.events: list[dict[str, Any]] = []
        self.now = 0.0
        self.rules: dict[str, Any] = {}
        self.put_there: dict[str, bytes] = {}
        self.edge = self.restart()

    def restart(self) -> Edge:
        sinks: list[Sink] = []

        async def fine() -> None:
            pass

        if "bucket" in self.kind:
            sinks.append(BucketSink(self.production, fine, fine))
        if "directory" in self.kind:
            sinks.append(DirectorySink(self.directory))
        records: ObjectStore = self.production
        if "bucket" not in self.kind:
            records = LocalStore(self.directory / ".caravan", mkdir=True)
        client = httpx.AsyncClient(
            base_url="http://server", transport=httpx.MockTransport(self.server.answer)
        )
        self.edge = Edge(
            central=self.link,
            sinks=tuple(sinks),
            server=ModelServer(client),
            records=Records(records),
            post=self.post,
            rules=Rules("edge1", **self.rules),
            clock=lambda: self.now,
        )
        return self.edge

    def post(self, event: Any) -> None:
        if event["name"] == "pushmodel":
            states = self.server.states()
            assert states[event["version"]]["state"] == "AVAILABLE", "announced before it answers"
        self.events.append(dict(event))

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

    # --- central

    def offer(self, version: int, files: Files) -> None:
        for path, content in files.items():
            key = f"models/{MODEL}/{version}/{path}"
            obstore.put(self.central, key, content)
            self.put_there[key] = content

    def publish(
        self, version: int, files: Files | None = None, *, key: PrivateKey | None = None, **facts: Any
    ) -> Files:
        files = files or own(version)
        whole = {**files, **vouched(vouch(version, files, **facts), key)}
        self.offer(version, whole)
        return whole

    def share(
        self,
        group: str,
        shared: int,
        files: Files,
        *,
        version: int,
        key: PrivateKey | None = None,
        **facts: Any,
    ) -> Files:
        """Offer a version of a group: the edge has a manifest of its own, the files are the group's."""
        for path, content in files.items():
            obstore.put(self.groups[group], f"models/{MODEL}/{shared}/{path}", content)
        own_files = vouched(vouch(version, files, shared=Shared(group, shared), **facts), key)
        self.offer(version, own_files)
        return {**files, **own_files}

    def remove(self, version: int, *, but: Collection[str]) -> None:
        """Remove files of a version at central, and of the group's of that number."""
        prefix = f"models/{MODEL}/{version}/"
        for store in (self.central, *self.groups.values()):
            for entry in obstore.list(store, prefix=prefix).collect():
                if entry["path"].removeprefix(prefix) not in but:
                    obstore.delete(store, entry["path"])
                    self.put_there.pop(entry["path"], None)

    def assert_central_untouched(self) -> None:
        there = {entry["path"] for entry in obstore.list(self.central).collect()}
        assert there == set(self.put_there)
        for key, content in self.put_there.items():
            assert bytes(obstore.get(self.central, key).bytes()) == content

    # --- the edge

    def at_edge(self) -> dict[int, Files]:
        """What the model server can see."""
        found: dict[int, Files] = {}
        if self.read == "directory":
            root = self.directory / MODEL
            for path in root.rglob("*") if root.exists() else ():
                if path.is_file():
                    version, _, rest = path.relative_to(root).as_posix().partition("/")
                    found.setdefault(int(version), {})[rest] = path.read_bytes()
            return found
        for entry in obstore.list(self.production, prefix=f"models/{MODEL}/").collect():
            _, _, version, rest = entry["path"].split("/", 3)
            content = bytes(obstore.get(self.production, entry["path"]).bytes())
            found.setdefault(int(version), {})[rest] = content
        return found

    def leftovers(self) -> list[str]:
        """What lies at the edge of no version."""
        if "directory" not in self.kind:
            return []
        staging = self.directory / ".staging"
        return [str(path) for path in staging.rglob("*") if path.is_file()]

    def spoil_what_was_brought(self) -> int:
        """Change every file of an unfinished copy, but not its size; return how many there are."""
        spoilt = 0
        for path in map(Path, self.leftovers()):
            if path.stat().st_size:
                path.write_bytes(flipped(path.read_bytes()))
                spoilt += 1
        for entry in obstore.list(self.production, prefix=f"models/{MODEL}/").collect():
            content = bytes(obstore.get(self.production, entry["path"]).bytes())
            obstore.put(self.production, entry["path"], flipped(content))
            spoilt += 1
        return spoilt

    def spoil(self, version: int, path: str, place: int) -> None:
        """Change a byte of a file that serves."""
        self.server.spoilt.add(version)
        key = f"models/{MODEL}/{version}/{path}"
        if "bucket" in self.kind:
            content = bytes(obstore.get(self.production, key).bytes())
            obstore.put(self.production, key, flipped(content, place))
        if "directory" in self.kind:
            file = self.directory.parent / key
            file.write_bytes(flipped(file.read_bytes(), place))

    def told(self, name: str) -> list[int]:
        return [event["version"] for event in self.events if event["name"] == name]

    def hidden(self) -> list[str]:
        return [entry["path"] for entry in obstore.list(self.production, prefix="hidden").collect()]

    def fetched(self) -> list[str]:
        """Note, from now on, what is read of files at central."""
        keys: list[str] = []
        pieces = self.link.pieces

        def noted(
            version: Offered | Complete, file: Listed | Wanted, end: int, start: int = 0
        ) -> AsyncIterator[bytes]:
            keys.append(version.ref.key(file.path))
            return pieces(version, file, end, start)

        self.link.pieces = noted  # type: ignore[method-assign]
        return keys


def status(world: World) -> dict[str, Any]:
    """What the edge tells of the model."""
    told: dict[str, Any] = versions(world.edge, "edge1")["models"][MODEL]
    return told


def available(version: int) -> dict[str, Any]:
    return {"version": str(version), "state": "AVAILABLE", "status": {}}


def failed(version: int, code: str, message: str = "not now") -> dict[str, Any]:
    error = {"error_code": code, "error_message": message}
    return {"version": str(version), "state": "END", "status": error}


def own(version: int, **changed: bytes) -> Files:
    """Files of a version, unlike those of any other."""
    files = {path: content + str(version).encode() for path, content in FILES.items()}
    return {**files, **{path.replace("__", "."): content for path, content in changed.items()}}


def vouch(version: int, files: Files, **facts: Any) -> Manifest:
    listed = tuple(File(path, len(c), hashlib.sha256(c).hexdigest()) for path, c in files.items())
    return Manifest(MODEL, version, listed, **{"edge": "edge1", "verdict": "passed", **facts})


def vouched(manifest: Manifest, key: PrivateKey | None) -> Files:
    manifest, signature = sign(manifest, key) if key else (manifest, None)
    return {"manifest.json": manifest.to_json()} | ({SIGNATURE: signature} if signature else {})


def flipped(content: bytes, place: int = -1) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let even small files come in several pieces and parts, and wait for no disk: no power fails here."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(edge_manager.streams, "PIECE", 1000)
    monkeypatch.setattr(edge_manager.sinks.bucket, "WHOLE", 3000)
    monkeypatch.setattr(edge_manager.sinks.bucket, "PART", 3000)


@pytest.fixture(params=["bucket", "directory", "bucket and directory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, request.param)
    yield world
    world.assert_central_untouched()


# --- the main job -------------------------------------------------------------------------------


async def test_a_version_brings_its_trace_to_the_edge_until_it_serves(
    world: World, spans: InMemorySpanExporter
) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    key = f"models/{MODEL}/1/manifest.json"
    whole = world.publish(1)
    obstore.put(world.central, key, whole["manifest.json"], attributes={"traceparent": parent})
    await world.rounds()
    copied, waited = spans.get_finished_spans()
    assert (copied.name, waited.name) == ("model-sync", "until it serves")
    assert {f"{span.context.trace_id:032x}" for span in (copied, waited)} == {parent[3:35]}
    assert waited.parent is not None
    assert waited.parent.span_id == copied.context.span_id
    assert dict(waited.attributes or {}) == {"model": MODEL, "version": 1}
    if "bucket" in world.kind:
        facts = dict(obstore.get(world.production, key).attributes)
        assert facts == {"traceparent": f"{parent[:36]}{copied.context.span_id:016x}-01"}


async def test_the_version_that_serves_is_shown_as_a_metric(world: World) -> None:
    def shown(version: int) -> float | None:
        return REGISTRY.get_sample_value("caravan_model_info", {"model": MODEL, "version": str(version)})

    world.publish(1)
    await world.rounds()
    assert (shown(1), shown(2)) == (1, None)
    world.publish(2)
    await world.rounds()
    assert (shown(1), shown(2)) == (None, 1)
    world.server.is_away = True
    await world.rounds(1)
    assert (shown(1), shown(2)) == (None, None)


async def test_a_version_is_copied_whole_and_announced_once_it_answers(world: World) -> None:
    whole = world.publish(1)
    await world.rounds()
    assert world.at_edge() == {1: whole}
    assert world.events == [{"name": "pushmodel", "model": MODEL, "version": 1}]
    assert world.leftovers() == []


async def test_files_that_the_manifest_does_not_name_stay_behind(world: World) -> None:
    whole = world.publish(1)
    world.offer(1, {"report.html": b"a page"})
    await world.rounds()
    assert world.at_edge() == {1: whole}


async def test_of_several_missed_versions_only_the_newest_is_brought(world: World) -> None:
    for version in (1, 2, 3):
        world.publish(version)
    await world.rounds()
    assert set(world.at_edge()) == {3}
    assert world.told("pushmodel") == [3]


async def test_old_versions_beyond_those_kept_go_once_the_new_one_serves(world: World) -> None:
    world.rules = {"keep_versions": 2}
    world.restart()
    for version in (1, 2, 3, 4):
        world.publish(version)
        await world.rounds()
    assert set(world.at_edge()) == {3, 4}
    assert world.told("pushmodel") == [1, 2, 3, 4]


async def test_the_version_is_announced_again_after_a_restart_and_not_copied_again(world: World) -> None:
    world.publish(1)
    await world.rounds()
    world.restart()
    world.link.cut = True
    await world.rounds()
    assert world.told("pushmodel") == [1, 1]


async def test_a_version_comes_in_order_manifest_and_saved_model_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, written = World(tmp_path, "bucket"), []
    put = obstore.put_async

    async def note(store: ObjectStore, path: str, *args: Any, **options: Any) -> Any:
        result = await put(store, path, *args, **options)
        written.append(path)
        return result

    monkeypatch.setattr(obstore, "put_async", note)
    world.publish(1)
    await world.rounds()
    assert written[-4:] == [
        f"models/{MODEL}/1/manifest.json",
        f"models/{MODEL}/1/saved_model.pb",
        "models/models.config",
        f"served/{MODEL}/1.json",
    ]
    assert len(written) == len(FILES) + 4, "and models.config once before"


# --- what is wrong is refused -------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(FILES))
@pytest.mark.parametrize("damage", [flipped, lambda c: flipped(c, 0), lambda c: c[:-1], lambda c: c + b"x"])
async def test_a_damaged_file_refuses_the_version_and_leaves_nothing(
    world: World, path: str, damage: Callable[[bytes], bytes]
) -> None:
    whole = world.publish(1)
    world.publish(2)
    world.offer(2, {path: damage(own(2)[path])})
    await world.rounds()
    assert world.at_edge() == {1: whole}
    assert world.leftovers() == []
    assert world.told("model-rejected") == [2]
    assert world.told("pushmodel") == [1]


@pytest.mark.parametrize(
    "raw",
    [b"{}", b"not json", b"[" * 50_000, b'{"schema": 9}', b"\xff", vouch(7, FILES).to_json()],
)
async def test_a_manifest_that_cannot_be_used_refuses_the_version(world: World, raw: bytes) -> None:
    world.offer(1, {**own(1), "manifest.json": raw})
    await world.rounds()
    assert world.at_edge() == {}
    assert world.told("model-rejected") == [1]


async def test_a_refusal_is_told_once_and_outlives_a_restart(world: World) -> None:
    world.publish(1)
    world.offer(1, {"saved_model.pb": flipped(own(1)["saved_model.pb"])})
    await world.rounds()
    world.restart()
    await world.rounds()
    assert world.told("model-rejected") == [1]
    assert world.at_edge() == {}


async def test_a_version_whose_key_was_not_known_is_brought_once_it_is_and_told_as_refused_once(
    world: World,
) -> None:
    key = Ed25519PrivateKey.generate()
    world.rules = {"keys": PublicKeys(manifests=(Ed25519PrivateKey.generate().public_key(),))}
    world.restart()
    whole = world.publish(1, key=key)
    await world.rounds()
    world.restart()
    await world.rounds()
    assert (world.at_edge(), world.told("model-rejected")) == ({}, [1])
    world.rules = {"keys": PublicKeys(manifests=(key.public_key(),))}
    world.restart()
    await world.rounds()
    assert world.at_edge() == {1: whole}
    assert (world.told("pushmodel"), world.told("model-rejected")) == ([1], [1])


async def test_a_version_mended_at_central_is_looked_at_anew(world: World) -> None:
    world.publish(1)
    world.offer(1, {"saved_model.pb": flipped(own(1)["saved_model.pb"])})
    await world.rounds()
    whole = world.publish(1)
    await world.rounds()
    assert world.at_edge() == {1: whole}
    assert world.told("pushmodel") == [1]
    world.restart()
    await world.rounds()
    assert world.at_edge() == {1: whole}, "the old refusal is forgotten"


async def test_a_version_that_the_server_cannot_load_is_refused_and_the_older_one_serves(
    world: World,
) -> None:
    whole = world.publish(1)
    await world.rounds()
    world.publish(2, own(2, saved_model__pb=b"FAILS"))
    await world.rounds()
    assert world.at_edge() == {1: whole}
    assert world.told("model-rejected") == [2]
    assert "bad graph" in world.events[-1]["reason"]
    assert world.server.states()[1]["state"] == "AVAILABLE"
    world.restart()
    await world.rounds()
    assert world.told("model-rejected") == [2]


@pytest.mark.parametrize("read", ["bucket", "directory"])
async def test_a_version_that_fails_at_once_is_refused_whichever_sink_the_server_reads(
    tmp_path: Path, read: str
) -> None:
    world = World(tmp_path, "bucket and directory")
    world.read = read
    whole = world.publish(1)
    await world.rounds()
    world.publish(2, own(2, saved_model__pb=b"FAILS"))
    await world.rounds()
    assert world.at_edge() == {1: whole}
    assert world.told("model-rejected") == [2]


async def test_refusals_that_nobody_asks_for_again_are_forgotten_but_for_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_manager.plan.REFUSALS_KEPT", 2)
    world = World(tmp_path, "bucket")
    for version in (1, 2, 3, 4):
        world.publish(version, verdict="rejected")
        await world.rounds(1)
    world.publish(5)
    world.publish(6, verdict="rejected")
    await world.rounds()
    world.restart()
    await world.rounds(1)
    assert [ref.version for ref in world.edge.known.refused] == [3, 4, 6]


async def test_after_a_refusal_the_next_newest_is_brought(world: World) -> None:
    world.publish(1)
    await world.rounds()
    world.publish(2)
    world.publish(3, own(3, saved_model__pb=b"FAILS"))
    await world.rounds()
    assert set(world.at_edge()) == {1, 2}
    assert world.told("pushmodel") == [1, 2]


async def test_a_version_that_does_not_load_in_time_is_taken_away_and_gets_more_time_later(
    world: World,
) -> None:
    world.publish(1)
    await world.rounds()
    whole = world.publish(2, own(2, saved_model__pb=b"HANGS"))
    await world.rounds(3)
    assert set(world.at_edge()) == {1, 2}, "the time is not over"
    await world.rounds(6)
    assert set(world.at_edge()) == {1}
    assert world.told("model-rejected") == [2]
    await world.rounds(3)
    assert world.at_edge()[2] == whole, "it vanished, and returned"
    await world.rounds(10)
    assert set(world.at_edge()) == {1, 2}, "this time it may take longer"
    world.server.is_slow = False
    await world.rounds(1)
    assert world.told("pushmodel") == [1, 2]
    assert world.told("model-rejected") == [2], "it is told once"
    assert not world.edge.known.refused


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "NOT_FOUND"])
async def test_a_failure_that_may_pass_has_the_version_vanish_and_return_until_it_loads(
    world: World, code: str
) -> None:
    old = world.publish(1)
    await world.rounds()
    new = world.publish(2)
    world.server.failing = {2: code}
    await world.rounds(2)
    assert world.at_edge() == {1: old}
    (refused,) = status(world)["refused"]
    assert (refused["version"], refused["cause"], refused["tried_again"]) == (2, "load", True)
    world.server.failing = {}
    fetched = world.fetched()
    await world.rounds(5)
    assert world.at_edge() == {1: old, 2: new}
    assert world.told("pushmodel") == [1, 2]
    assert not any("/2/" in key and "manifest" not in key for key in fetched), (
        "it was at the edge all the time"
    )
    assert world.leftovers() == []
    assert not world.hidden()


async def test_a_failure_that_goes_on_is_tried_less_and_less_often(tmp_path: Path) -> None:
    world, tries = World(tmp_path, "directory"), []
    world.publish(1)
    world.server.failing = {1: "UNAVAILABLE"}
    for _ in range(100):
        before = world.edge.known.model(MODEL).backoffs.get(1)
        await world.rounds(1)
        if world.edge.known.model(MODEL).backoffs.get(1) != before:
            tries.append(world.now)
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert len(waits) >= 3
    assert waits == sorted(waits)
    assert waits[-1] >= 2 * waits[0]
    assert world.told("model-rejected") == [1]


async def test_a_doubtful_failure_that_comes_again_is_refused_for_good(world: World) -> None:
    world.publish(1)
    world.server.failing = {1: "NOT_FOUND"}
    await world.rounds(20)
    assert world.at_edge() == {}
    assert [refused["tried_again"] for refused in status(world)["refused"]] == [False]
    assert not world.hidden()


async def test_what_was_set_aside_is_refused_for_good_once_the_server_says_why(world: World) -> None:
    old = world.publish(1)
    await world.rounds()
    world.publish(2, own(2, saved_model__pb=b"HANGS"))
    await world.rounds(9)
    assert world.at_edge() == {1: old}
    world.server.frozen = {1: available(1), 2: failed(2, "DATA_LOSS", "cannot parse")}
    await world.rounds(1)
    assert [refused["reason"] for refused in status(world)["refused"]] == [
        "the model server could not load it: cannot parse"
    ]
    await world.rounds(20)
    assert world.at_edge() == {1: old}


async def test_a_server_that_gave_up_while_a_copy_went_on_is_shown_the_version_anew(world: World) -> None:
    world.publish(1)
    world.link.bytes_left = 5000
    await world.rounds(1)
    # TensorFlow Serving sees the folder in a bucket, tries six times, and gives up.
    world.server.frozen = {1: failed(1, "NOT_FOUND")}
    world.link.bytes_left = None
    await world.rounds(8)
    assert world.told("model-rejected") == [], "the failure is older than the version"
    await world.rounds(2)
    assert world.at_edge() == {}, "it vanished"
    world.server.frozen = None
    await world.rounds(5)
    assert world.told("pushmodel") == [1]


async def test_a_version_set_aside_is_tried_again_after_a_restart(world: World) -> None:
    world.publish(1)
    world.server.failing = {1: "UNAVAILABLE"}
    await world.rounds(2)
    assert world.at_edge() == {}
    world.restart()
    world.server.failing = {}
    await world.rounds()
    assert world.told("pushmodel") == [1]
    assert not world.hidden()
    assert not world.edge.known.refused


async def test_what_is_older_than_the_version_that_serves_is_not_kept_aside(world: World) -> None:
    world.publish(1)
    world.server.failing = {1: "UNAVAILABLE"}
    await world.rounds(1)
    assert world.at_edge() == {}
    world.publish(2)
    await world.rounds(10)
    assert set(world.at_edge()) == {2}
    assert world.leftovers() == []
    assert not world.hidden()


async def test_a_server_that_is_away_is_waited_for(world: World) -> None:
    world.publish(1)
    world.server.is_away = True
    await world.rounds(50)
    assert set(world.at_edge()) == {1}
    assert world.events == []
    world.server.is_away = False
    await world.rounds(1)
    assert world.told("pushmodel") == [1]


async def test_the_time_to_load_counts_only_while_the_server_answers(world: World) -> None:
    world.publish(1, own(1, saved_model__pb=b"HANGS"))
    await world.rounds(6)
    world.server.is_away = True
    await world.rounds(20)
    world.server.is_away = False
    await world.rounds(6)
    assert world.told("model-rejected") == []
    await world.rounds(6)
    assert world.told("model-rejected") == [1]


async def test_a_version_that_has_served_here_is_never_refused(world: World) -> None:
    world.publish(1)
    await world.rounds()
    world.restart()
    for state in ("LOADING", "END"):
        status = {"error_code": "UNAVAILABLE", "error_message": "the disk was away"}
        world.server.frozen = {1: {"version": "1", "state": state, "status": status}}
        await world.rounds(30)
    world.server.frozen = None
    await world.rounds(1)
    assert set(world.at_edge()) == {1}
    assert world.told("model-rejected") == []


async def test_a_version_that_central_does_not_offer_is_never_removed(world: World) -> None:
    world.publish(1, own(1, saved_model__pb=b"HANGS"))
    await world.rounds(1)
    world.restart()
    world.link.cut = True
    await world.rounds(30)
    assert set(world.at_edge()) == {1}


async def test_the_failure_of_an_earlier_version_of_that_number_is_not_held_against_it(world: World) -> None:
    world.publish(1, own(1, saved_model__pb=b"FAILS"))
    await world.rounds()
    stale = {
        "version": "1",
        "state": "END",
        "status": {"error_code": "INTERNAL", "error_message": "bad graph"},
    }
    world.server.frozen = {1: stale}
    whole = world.publish(1)
    await world.rounds(2)
    world.server.frozen = None
    await world.rounds(1)
    assert world.at_edge() == {1: whole}
    assert world.told("pushmodel") == [1]


# --- without a manifest -------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(UNVOUCHED)), ids=lambda order: "")
async def test_without_a_manifest_a_version_is_taken_once_complete_in_whatever_order_it_comes(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    world = World(tmp_path, "bucket")
    for path in order:
        await world.rounds(3)
        assert world.at_edge() == {}
        if path.startswith("variables/variables.data"):
            world.offer(1, {path: UNVOUCHED[path][:-1]})
            await world.rounds(3)
            assert world.at_edge() == {}
        world.offer(1, {path: UNVOUCHED[path]})
    await world.rounds(1)
    assert world.at_edge() == {}, "the listing is not known to rest"
    await world.rounds(2)
    assert world.at_edge() == {1: UNVOUCHED}
    assert world.events == [{"name": "pushmodel", "model": MODEL, "version": 1}]


async def test_without_a_manifest_a_version_is_copied_to_every_kind_of_sink(world: World) -> None:
    world.offer(1, UNVOUCHED)
    await world.rounds()
    assert world.at_edge() == {1: UNVOUCHED}
    assert world.told("pushmodel") == [1]


async def test_without_a_manifest_a_version_is_refused_once_where_signatures_are_required(
    world: World,
) -> None:
    world.rules = {
        "require_signature": True,
        "keys": PublicKeys(manifests=(Ed25519PrivateKey.generate().public_key(),)),
    }
    world.restart()
    world.offer(1, UNVOUCHED)
    await world.rounds(6)
    assert world.at_edge() == {}
    assert world.told("model-rejected") == [1]


# --- signatures ---------------------------------------------------------------------------------


async def test_where_signatures_are_required_only_a_signed_version_is_taken(world: World) -> None:
    key = Ed25519PrivateKey.generate()
    world.rules = {"require_signature": True, "keys": PublicKeys(manifests=(key.public_key(),))}
    world.restart()
    whole = world.publish(1, key=key)
    world.publish(2)
    world.publish(3, key=Ed25519PrivateKey.generate())
    signed = vouch(4, own(4)).sign(key)
    forged = json.loads(signed.to_json())
    forged["lineage"] = {"parent": 3}
    world.offer(4, {**own(4), "manifest.json": json.dumps(forged).encode()})
    await world.rounds()
    assert world.at_edge() == {1: whole}
    assert sorted(world.told("model-rejected")) == [2, 3, 4]


async def test_a_signature_that_does_not_fit_is_refused_even_where_none_is_required(world: World) -> None:
    world.rules = {"keys": PublicKeys(manifests=(Ed25519PrivateKey.generate().public_key(),))}
    world.restart()
    whole = world.publish(1)
    world.publish(2, key=Ed25519PrivateKey.generate())
    await world.rounds()
    assert world.at_edge() == {1: whole}
    assert world.told("model-rejected") == [2]


@pytest.mark.parametrize("is_signed", [True, False], ids=["signed", "not signed"])
@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"edge": "edge2"}, "edge"),
        ({"verdict": "rejected"}, "verdict"),
        ({"verdict": None, "lineage": Lineage(rejected="worse than its parent")}, "verdict"),
    ],
    ids=["for another edge", "rejected", "rejected, of before the verdict was said"],
)
async def test_what_was_rejected_or_is_for_another_edge_is_refused_whoever_signed_it(
    world: World, facts: dict[str, Any], cause: str, *, is_signed: bool
) -> None:
    key = Ed25519PrivateKey.generate() if is_signed else None
    whole = world.publish(1)
    world.rules = {"keys": PublicKeys(manifests=(key.public_key(),))} if key else {}
    world.restart()
    world.publish(2, key=key, **facts)
    await world.rounds()
    assert world.at_edge() == {1: whole}
    refused = {ref.version: why for ref, why in world.edge.known.refused.items()}
    old = is_signed and facts["verdict"] is None if "verdict" in facts else False
    assert refused[2].cause == ("signature" if old else cause)


@pytest.mark.parametrize("missing", ["edge", "verdict"])
async def test_a_signature_that_does_not_cover_edge_and_verdict_is_refused_with_what_to_do(
    world: World, missing: str
) -> None:
    key = Ed25519PrivateKey.generate()
    world.publish(1, key=key, **{missing: None})
    world.rules = {"keys": PublicKeys(manifests=(key.public_key(),))}
    world.restart()
    await world.rounds()
    assert world.at_edge() == {}
    assert "publish it anew" in world.events[-1]["reason"]


async def test_without_a_key_a_manifest_of_before_edge_and_verdict_is_taken(world: World) -> None:
    whole = world.publish(1, key=Ed25519PrivateKey.generate(), edge=None, verdict=None)
    await world.rounds()
    assert world.at_edge() == {1: whole}


# --- OpenSSF's signatures -----------------------------------------------------------------------


async def test_a_version_that_model_sig_vouches_for_is_taken_with_it(world: World) -> None:
    key = generate_private_key(SECP256R1())
    world.rules = {"require_signature": True, "keys": PublicKeys(models=(key.public_key(),))}
    world.restart()
    whole = world.publish(1, key=key)
    world.publish(2)
    world.publish(3, key=generate_private_key(SECP256R1()))
    await world.rounds()
    assert world.at_edge() == {1: whole}
    assert SIGNATURE in whole
    assert sorted(world.told("model-rejected")) == [2, 3]


async def test_while_a_key_is_rotated_versions_by_the_old_and_the_new_one_are_taken(world: World) -> None:
    old, before, now = Ed25519PrivateKey.generate(), *(generate_private_key(SECP256R1()) for _ in range(2))
    keys = PublicKeys((before.public_key(), now.public_key()), (old.public_key(),))
    world.rules = {"require_signature": True, "keys": keys}
    world.restart()
    signers: tuple[PrivateKey, ...] = (old, before, now)
    for version, key in enumerate(signers, start=1):
        world.publish(version, key=key)
        await world.rounds()
    assert world.told("pushmodel") == [1, 2, 3]


def _added(files: Files, _: Files) -> Files:
    return {**files, "variables/more": b"unsigned"}


def _renamed(files: Files, _: Files) -> Files:
    return {("assets/names.txt" if path == "assets/labels.txt" else path): c for path, c in files.items()}


def _altered(files: Files, _: Files) -> Files:
    return {**files, "manifest.json": files["manifest.json"].replace(b'"passed"', b'"passed" ')}


def _of_another(files: Files, other: Files) -> Files:
    return {**files, SIGNATURE: other[SIGNATURE]}


def _replayed(_: Files, other: Files) -> Files:
    return other


def _cut(files: Files, _: Files) -> Files:
    return {**files, SIGNATURE: files[SIGNATURE][:-2]}


def _unsigned(files: Files, _: Files) -> Files:
    return {path: content for path, content in files.items() if path != SIGNATURE}


async def test_a_signature_that_says_another_origin_than_the_manifest_is_refused_with_what_differs(
    world: World,
) -> None:
    key = generate_private_key(SECP256R1())
    world.rules = {"require_signature": True, "keys": PublicKeys(models=(key.public_key(),))}
    world.restart()
    manifest = vouch(1, own(1), lineage=Lineage(data_digest="d1"))
    told = Provenance.of(vouch(1, own(1), lineage=Lineage(data_digest="d2")))
    digests = digests_of(manifest, manifest.to_json())
    signature = model_signature.sign(MODEL, digests, key, told)
    world.offer(1, {**own(1), "manifest.json": manifest.to_json(), SIGNATURE: signature})
    await world.rounds()
    assert world.at_edge() == {}
    assert world.edge.known.refused[Ref(MODEL, 1)].cause == "signature"
    assert "where the version comes from: data" in world.events[-1]["reason"]


@pytest.mark.parametrize("change", [_added, _renamed, _altered, _of_another, _replayed, _cut, _unsigned])
async def test_a_signed_version_that_was_changed_is_not_taken(
    world: World, change: Callable[[Files, Files], Files]
) -> None:
    key = generate_private_key(SECP256R1())
    world.rules = {"require_signature": True, "keys": PublicKeys(models=(key.public_key(),))}
    world.restart()
    other = world.publish(1, key=key)
    await world.rounds()
    signed = {**own(2), **vouched(vouch(2, own(2)), key)}
    world.offer(2, change(signed, other))
    await world.rounds(2)
    assert world.at_edge() == {1: other}
    assert world.leftovers() == []


# --- the link -----------------------------------------------------------------------------------


async def test_a_link_that_is_down_at_first_is_caught_up_with(world: World) -> None:
    world.publish(1)
    world.link.cut = True
    await world.rounds(5)
    assert world.at_edge() == {}
    world.link.cut = False
    await world.rounds()
    assert world.told("pushmodel") == [1]


@pytest.mark.parametrize("after", [0, 1500, 4000, 9000, 12_000])
async def test_a_link_cut_within_a_copy_leaves_the_old_version_serving_and_the_copy_is_finished(
    world: World, after: int
) -> None:
    old = world.publish(1)
    await world.rounds()
    new = world.publish(2)
    world.link.bytes_left = after
    await world.rounds(2)
    assert world.server.states()[1]["state"] == "AVAILABLE"
    assert world.told("pushmodel") == [1]
    world.link.bytes_left = None
    await world.rounds()
    assert world.at_edge() == {1: old, 2: new}
    assert world.told("pushmodel") == [1, 2]
    assert world.told("model-rejected") == []


@pytest.mark.parametrize("left", ["nothing", "its manifest", "all but its entry file"])
@pytest.mark.parametrize("of_group", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("after", [0, 9000])
async def test_a_version_that_central_removes_within_its_copy_is_let_go_and_a_newer_one_comes(
    world: World, left: str, after: int, *, of_group: bool
) -> None:
    old = world.publish(1)
    await world.rounds()
    if of_group:
        world.share("north", 2, own(2), version=2)
    else:
        world.publish(2)
    world.link.bytes_left = after
    await world.rounds(1)
    stays = {"nothing": (), "its manifest": ("manifest.json",), "all but its entry file": own(2).keys()}[left]
    world.remove(2, but=[path for path in stays if path != "saved_model.pb"])
    world.link.bytes_left = None
    await world.rounds()
    assert world.at_edge()[1] == old
    new = world.publish(3)
    await world.rounds()
    assert world.at_edge() == {1: old, 3: new}
    assert (world.told("pushmodel"), world.told("model-rejected")) == ([1, 3], [])
    assert world.leftovers() == []


async def test_a_file_replaced_between_listing_and_copy_is_not_mixed(world: World) -> None:
    world.publish(1)
    await world.rounds(1)
    world.publish(2)
    outdated = await Central(world.central).look(0, above={MODEL: 1}, standing=lambda _: "open")

    async def look_back(*_: Any, **__: Any) -> Mapping[str, Offer]:
        return outdated

    whole = world.publish(2, {path: content + b"!" for path, content in own(2).items()})
    live, world.link.look = world.link.look, look_back  # type: ignore[method-assign]
    await world.rounds(1)
    world.link.look = live  # type: ignore[method-assign]
    assert 2 not in world.told("pushmodel")
    world.now += 60
    await world.rounds()
    assert world.at_edge()[2] == whole
    assert world.told("model-rejected") == [], "what was read is not taken for what was listed"


async def test_what_an_attempt_left_behind_is_taken_by_its_content_not_by_its_size(world: World) -> None:
    whole = world.publish(1)
    world.link.bytes_left = 12_000
    await world.rounds(1)
    assert world.spoil_what_was_brought() > 0
    world.link.bytes_left = None
    await world.rounds()
    assert world.at_edge() == {1: whole}


async def test_what_an_attempt_has_brought_is_not_fetched_again(tmp_path: Path) -> None:
    world = World(tmp_path, "bucket")
    world.publish(1)
    world.link.bytes_left = 12_000
    await world.rounds(1)
    before = {entry["path"] for entry in obstore.list(world.production, prefix="models/").collect()}
    fetched = world.fetched()
    world.link.bytes_left = None
    await world.rounds()
    assert before
    assert before & set(fetched) == set()
    assert world.told("pushmodel") == [1]


async def test_what_a_new_verdict_does_not_name_is_gone_before_the_version_is_seen(world: World) -> None:
    world.publish(1, {**own(1), "variables/more": b"of before"})
    world.link.bytes_left = 8_000
    await world.rounds(1)
    assert world.at_edge().get(1, {}).get("saved_model.pb") is None
    world.link.bytes_left = None
    for key in list(world.put_there):
        obstore.delete(world.central, key)
        del world.put_there[key]
    world.offer(1, UNVOUCHED)
    await world.rounds()
    assert world.at_edge() == {1: UNVOUCHED}, "no manifest of before, and no file of it"


# --- one model's trouble ------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["its file cannot be read", "it cannot be listed"])
async def test_a_model_that_cannot_be_read_is_told_and_everything_else_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr("edge_manager.central.PIECE_SECONDS", 0)
    world = World(tmp_path, "bucket")
    broken = "models/a-model/1/"
    listed = File("saved_model.pb", 5, "0" * 64)
    obstore.put(world.central, f"{broken}saved_model.pb", b"graph")
    obstore.put(world.central, f"{broken}manifest.json", Manifest("a-model", 1, (listed,)).to_json())
    world.put_there = {}
    get, files = obstore.get_async, model_index.files

    async def fails(store: ObjectStore, key: str, **options: Any) -> Any:
        if key == f"{broken}saved_model.pb" and trouble == "its file cannot be read":
            raise GenericError("500 Internal Server Error")
        return await get(store, key, **options)

    async def lists(store: ObjectStore, model: str, version: int) -> Any:
        if model == "a-model" and trouble == "it cannot be listed":
            raise Transient("500 Internal Server Error")
        return await files(store, model, version)

    monkeypatch.setattr(obstore, "get_async", fails)
    monkeypatch.setattr(model_index, "files", lists)
    for version in (1, 2):
        world.publish(version)
        await world.rounds(1)
        assert world.told("pushmodel")[-1] == version
    answer = versions(world.edge, "edge1")
    assert answer["central"] == "ok"
    assert "500 Internal Server Error" in answer["models"]["a-model"]["fault"]
    assert answer["models"][MODEL]["fault"] is None
    assert world.told("model-rejected") == []


@pytest.mark.parametrize("step", ["inspect", "sweep"])
async def test_what_nobody_foresaw_of_one_model_is_told_and_everything_else_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world = World(tmp_path, "bucket")
    obstore.put(world.central, "models/a-model/1/saved_model.pb", b"graph")
    obstore.put(world.central, "models/a-model/1/manifest.json", b"{}")
    place = bringing if step == "inspect" else plan
    real = getattr(place, step)

    def fails(first: Any, second: Any, *more: Any) -> Any:
        if "a-model" in (second if step == "sweep" else second.ref.model):
            raise ZeroDivisionError("a fault of ours")
        return real(first, second, *more)

    monkeypatch.setattr(place, step, fails)
    for version in (1, 2):
        world.publish(version)
        await world.rounds(1)
        assert world.told("pushmodel")[-1] == version
    models = versions(world.edge, "edge1")["models"]
    assert "a fault of ours" in models["a-model"]["fault"]
    assert models[MODEL]["fault"] is None


async def test_a_link_cut_while_a_large_graph_is_looked_into_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutOff(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError("Generic S3 error: connection closed")

    world = World(tmp_path, "bucket")
    world.offer(1, UNVOUCHED)
    with monkeypatch.context() as patch:
        patch.setattr(edge_manager.central, "IN_MEMORY", 0)
        patch.setattr(obstore, "open_reader", lambda *_, **__: CutOff())
        await world.rounds(3)
    assert "saved_model.pb broke off" in status(world)["fault"]
    await world.rounds(3)
    assert world.at_edge() == {1: UNVOUCHED}


async def test_a_refused_version_that_cannot_be_removed_is_told_and_everything_else_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, "directory")
    refused = world.directory / "a-model" / "1"
    refused.mkdir(parents=True)
    (refused / "saved_model.pb").write_bytes(b"graph")
    record = {"fingerprint": "f", "cause": "load", "reason": "r", "at": "then"}
    kept = LocalStore(world.directory / ".caravan", mkdir=True)
    obstore.put(kept, "rejected/a-model/1.json", json.dumps(record).encode())
    rename = Path.rename

    def stays(path: Path, target: Path) -> Path:
        if path == refused:
            raise PermissionError(errno.EACCES, "not writable")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stays)
        world.publish(1)
        await world.rounds(2)
    assert world.told("pushmodel") == [1]
    assert "not writable" in versions(world.edge, "edge1")["models"]["a-model"]["fault"]
    await world.rounds(1)
    assert versions(world.edge, "edge1")["models"]["a-model"]["fault"] is None
    assert not refused.exists()


async def test_a_full_store_at_the_edge_keeps_no_half_of_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, "bucket")
    world.publish(1)
    put = obstore.put_async

    async def full(store: ObjectStore, key: str, *content: Any, **more: Any) -> Any:
        if "variables.data" in key:
            raise PermissionDeniedError("status code: 403 <Code>QuotaExceeded</Code>")
        return await put(store, key, *content, **more)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put_async", full)
        await world.rounds(2)
    assert "quota" in status(world)["fault"]
    assert world.at_edge() == {}
    await world.rounds(6)
    assert world.told("pushmodel") == [1]


async def test_a_bucket_at_the_edge_that_is_gone_is_made_again(tmp_path: Path) -> None:
    world = World(tmp_path, "bucket")
    prepared = 0

    async def prepare() -> None:
        nonlocal prepared
        prepared += 1

    class Gone(BucketSink):
        async def held(self) -> Any:
            if prepared == 1:
                raise FileNotFoundError("there is no bucket production")
            return await super().held()

    world.edge.sinks = (Gone(world.production, prepare, prepare),)
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(Transient, match="production"):
            await rounds(world.edge, tasks)
        await world.edge.open()
    assert prepared == 2
    await one_round(world.edge, tasks)


async def test_a_folder_named_beyond_all_numbers_is_no_version(tmp_path: Path) -> None:
    world = World(tmp_path, "directory")
    odd = world.directory / MODEL / "100000000000000000000"
    odd.mkdir(parents=True)
    (odd / "saved_model.pb").write_bytes(b"graph")
    world.publish(1)
    world.edge.learn(await world.edge.look())
    world.edge.learn(await world.edge.list())
    assert world.edge.known.model(MODEL).newest == 0


async def test_a_version_that_cannot_be_read_gives_way_to_the_one_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_manager.central.PIECE_SECONDS", 0)
    get, is_broken = obstore.get_async, True

    async def fails(store: ObjectStore, key: str, **options: Any) -> Any:
        if is_broken and "/2/assets" in key:
            raise GenericError("500 Internal Server Error")
        return await get(store, key, **options)

    monkeypatch.setattr(obstore, "get_async", fails)
    world.publish(1)
    world.publish(2)
    await world.rounds(6)
    assert world.told("pushmodel") == [1]
    is_broken = False
    await world.rounds(2)
    assert world.told("pushmodel") == [1, 2]
    assert status(world)["fault"] is None


async def test_a_version_that_does_not_fit_is_told_leaves_nothing_and_comes_once_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1000
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    world = World(tmp_path, "directory")
    world.publish(1, small(b"x"))
    await world.rounds(1)
    whole = world.publish(2)
    fetched = world.fetched()
    await world.rounds(3)
    assert world.told("pushmodel") == [1]
    assert "there is room for 1000" in status(world)["fault"]
    assert [waiting["version"] for waiting in status(world)["waiting"]] == [2]
    assert not any("/2/saved" in key for key in fetched), "what does not fit is not fetched"
    assert world.leftovers() == []
    free = 10**6
    await world.rounds(2)
    assert world.at_edge()[2] == whole
    assert status(world)["fault"] is None


async def test_a_disk_that_fills_during_a_copy_keeps_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, "directory")
    world.publish(1)
    opened, left = Path.open, 3

    def open_(self: Path, *how: Any, **options: Any) -> Any:
        nonlocal left
        left -= "ab" in how
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, *how, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_)
        await world.rounds(2)
    assert "No space left" in status(world)["fault"]
    assert world.leftovers() == []
    await world.rounds(2)
    assert world.told("pushmodel") == [1]


async def test_a_copy_that_hangs_delays_no_confirmation(tmp_path: Path) -> None:
    world, go_on = World(tmp_path, "bucket"), asyncio.Event()
    pieces = world.link.pieces

    async def hangs(
        version: Offered | Complete, file: Listed | Wanted, end: int, start: int = 0
    ) -> AsyncIterator[bytes]:
        if version.ref.version == 2 and "manifest" not in file.path:
            await go_on.wait()
        async for content in pieces(version, file, end, start):
            yield content

    world.link.pieces = hangs  # type: ignore[method-assign]
    world.server.is_away = True
    world.publish(1)
    await world.rounds(1)
    world.publish(2)
    async with asyncio.TaskGroup() as tasks:
        world.edge.learn(await world.edge.look())
        await one_round(world.edge, tasks)
        world.server.is_away = False
        await one_round(world.edge, tasks)
        assert world.told("pushmodel") == [1], "while version 2 is on its way"
        world.edge.learn(await world.edge.look())
        await one_round(world.edge, tasks)
        go_on.set()
    await world.rounds(1)
    assert world.told("pushmodel") == [1, 2]


async def test_a_look_that_hangs_delays_no_confirmation(tmp_path: Path) -> None:
    world, hangs = World(tmp_path, "bucket"), False
    look_there = world.link.look

    async def look_(now: float, **how: Any) -> Mapping[str, Offer]:
        if hangs:
            await asyncio.Event().wait()
        return await look_there(now, **how)

    world.link.look = look_  # type: ignore[method-assign]
    world.rules = {"poll_seconds": 0.001}
    world.restart()
    world.server.is_away = True
    world.publish(1)
    await world.rounds(1)
    hangs = True
    async with running(model_sync(world.edge)):
        world.server.is_away = False
        await until(lambda: world.told("pushmodel") == [1])


async def test_at_rest_an_edge_that_is_told_of_versions_looks_when_it_hears_of_one(world: World) -> None:
    looks = 0
    look = world.link.look

    async def counted(now: float, **how: Any) -> Mapping[str, Offer]:
        nonlocal looks
        looks += 1
        return await look(now, **how)

    world.link.look = counted  # type: ignore[method-assign]
    world.rules = {"poll_seconds": 0.001}
    edge = world.restart()
    ready = json.dumps(model_ready_event(MODEL, 1)).encode()
    async with running(model_sync(edge)), asyncio.timeout(30):
        edge.hear(ready)
        seen = -1
        while looks != seen:  # until it waits for a hint
            world.now += 3600
            seen = looks
            await asyncio.sleep(0.2)
        edge.hear(b'{"name": "detection"}')
        await asyncio.sleep(0.2)
        assert looks == seen
        world.publish(1)
        edge.hear(ready)
        await until(lambda: world.told("pushmodel") == [1])


async def test_an_edge_that_nobody_tells_goes_on_looking(world: World) -> None:
    world.rules = {"poll_seconds": 0.001}
    edge = world.restart()
    async with running(model_sync(edge)):
        world.now += 3600
        world.publish(1)
        await until(lambda: world.told("pushmodel") == [1])


# --- killed at any moment -----------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here; nothing catches it."""


class Killer:
    """Ends the process at its k-th effect, before or after it is done; a dead process does nothing more."""

    def __init__(self, at: int, *, done: bool) -> None:
        self.left, self.done, self.is_dead = at, done, False

    def strikes(self) -> bool:
        if self.is_dead:
            raise Killed
        self.left -= 1
        self.is_dead = self.left < 0
        if self.is_dead and not self.done:
            raise Killed
        return self.is_dead

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            last = self.strikes()
            result = call(*args, **options)
            if last:
                raise Killed
            return result

        return wrapped

    def around_async(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapped(*args: Any, **options: Any) -> Any:
            last = self.strikes()
            result = await call(*args, **options)
            if last:
                raise Killed
            return result

        return wrapped

    def arm(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("put_async", "delete_async"):
            patch.setattr(obstore, name, self.around_async(getattr(obstore, name)))
        for name in ("rename", "mkdir", "open"):
            patch.setattr(Path, name, self.around(getattr(Path, name)))
        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, self.around(getattr(os, name)))
        patch.setattr(os, "fsync", self.around(lambda _: None))


def is_killed(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return any(is_killed(inner) for inner in exc.exceptions)
    return isinstance(exc, Killed)


@pytest.mark.parametrize("kind", ["bucket", "directory"])
@pytest.mark.parametrize("done", [False, True], ids=["before it is done", "after it is done"])
@pytest.mark.parametrize("ending", ["good", "damaged", "unloadable"])
async def test_killed_at_any_effect_the_next_life_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, done: bool, ending: str
) -> None:
    kills, loop = 0, asyncio.get_running_loop()
    while True:
        life = World(tmp_path / f"{kills}", kind)
        life.rules = {"keep_versions": 1}
        life.restart()
        old = life.publish(1, small(b"one"))
        await life.rounds(1)
        new = life.publish(2, small(b"FAILS" if ending == "unloadable" else b"two"))
        fetched = life.fetched()
        if ending == "damaged":
            life.offer(2, {"saved_model.pb": b"bad"})
        life.restart()
        killer, threads = Killer(kills, done=done), ThreadPoolExecutor(2)
        loop.set_default_executor(threads)
        with monkeypatch.context() as patch:
            killer.arm(patch)
            try:
                await life.rounds(2)
            except BaseException as exc:
                if not is_killed(exc):
                    raise
            finally:
                threads.shutdown()  # a process that ends takes its threads with it
        loop.set_default_executor(ThreadPoolExecutor(2))
        assert any(state["state"] == "AVAILABLE" for state in life.server.states().values())
        life.restart()
        await life.rounds(2)
        assert life.at_edge() == ({2: new} if ending == "good" else {1: old})
        assert life.leftovers() == []
        assert life.told("pushmodel")[-1] == (2 if ending == "good" else 1)
        assert all("variables" not in key for key in fetched), "it is held as a piece of the version before"
        if ending != "good":
            assert 2 not in life.told("pushmodel")
            assert [ref.version for ref in life.edge.known.refused] == [2]
        life.assert_central_untouched()
        if not killer.is_dead:
            break
        kills += 1
    assert kills > 3, "it was killed at many places"


def small(content: bytes) -> Files:
    return pieced({"saved_model.pb": content, "variables/data": bytes(20) + b"learnt" + bytes(20)}, 26)


# --- only what changed --------------------------------------------------------------------------

DATA = "variables/variables.data-00000-of-00001"
LAYER = slice(4_000, 5_000)


def pieced(files: Files, *seams: int) -> Files:
    """Cut every file at the same places."""
    own = {path: content for path, content in files.items() if path != PIECES}
    cut = {path: (content, seams or range(0, len(content), 1000)) for path, content in own.items()}
    raw = to_json(cut)
    assert raw is not None
    return {**files, PIECES: raw}


def weights(seed: int) -> Files:
    """A version's files, of which `LAYER` of the weights is learnt anew."""
    rng = np.random.default_rng(1)
    backbone, graph = rng.bytes(20_000), rng.bytes(9_000)
    learnt = np.random.default_rng(seed).bytes(1_000)
    data = backbone[: LAYER.start] + learnt + backbone[LAYER.stop :]
    return pieced({"saved_model.pb": graph, DATA: data, "assets.extra/twin.onnx": data[1000:]})


class Counted:
    """Counts what comes from central of files, and by how many requests."""

    def __init__(self, world: World) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.size = 0
        pieces = world.link.pieces

        async def counted(
            version: Offered | Complete, file: Listed | Wanted, end: int, start: int = 0
        ) -> AsyncIterator[bytes]:
            self.asked.append((file.path, start, end))
            async for content in pieces(version, file, end, start):
                self.size += len(content)
                yield content

        world.link.pieces = counted  # type: ignore[method-assign]


async def test_only_the_pieces_that_changed_are_fetched_once_for_all_files_and_sinks(
    world: World,
) -> None:
    old = world.publish(1, weights(1))
    await world.rounds()
    counted = Counted(world)
    new = world.publish(2, weights(2))
    await world.rounds()
    assert world.at_edge() == {1: old, 2: new}
    assert [asked for asked in counted.asked if asked[0] not in {"manifest.json", PIECES}] == [
        ("assets.extra/twin.onnx", LAYER.start - 1000, LAYER.stop - 1000)
    ]


async def test_what_is_damaged_at_the_edge_is_fetched(world: World) -> None:
    world.publish(1, weights(1))
    await world.rounds()
    world.spoil(1, DATA, 12_345)
    world.spoil(1, "assets.extra/twin.onnx", 11_345)
    counted = Counted(world)
    new = world.publish(2, weights(2))
    await world.rounds()
    assert world.at_edge()[2] == new
    assert world.told("model-rejected") == []
    assert counted.size < 10_000


async def test_a_version_that_tells_no_pieces_brings_the_files_that_are_held_whole(world: World) -> None:
    world.publish(1, {path: content for path, content in weights(1).items() if path != PIECES})
    await world.rounds()
    counted = Counted(world)
    files = {path: content for path, content in weights(2).items() if path != PIECES}
    new = world.publish(2, {**files, DATA: weights(1)[DATA]})
    await world.rounds()
    assert world.at_edge()[2] == new
    assert {path for path, *_ in counted.asked} == {"manifest.json", "assets.extra/twin.onnx"}


async def test_a_copy_that_broke_off_asks_for_no_piece_again(tmp_path: Path) -> None:
    world = World(tmp_path, "directory")
    world.publish(1, weights(1))
    await world.rounds()
    counted = Counted(world)
    old, more = weights(1), np.random.default_rng(3).bytes(2_000)
    mixed = more[:1_000] + old[DATA][10_000:15_000] + more[1_000:]
    new = world.publish(2, pieced({**old, "assets/more": mixed}))
    world.link.bytes_left = 1_500 + sum(len(new[path]) for path in ("manifest.json", PIECES))
    await world.rounds(1)
    assert world.told("pushmodel") == [1]
    world.link.bytes_left = None
    counted.asked.clear()
    await world.rounds()
    assert world.at_edge()[2] == new
    assert [asked for asked in counted.asked if asked[0] == "assets/more"] == [("assets/more", 6_000, 7_000)]


async def test_a_piece_that_was_altered_at_central_refuses_the_version(world: World) -> None:
    old = world.publish(1, weights(1))
    await world.rounds()
    new = world.publish(2, weights(2))
    twin = "assets.extra/twin.onnx"
    world.offer(2, {twin: flipped(new[twin], LAYER.start - 500)})
    await world.rounds()
    assert world.at_edge() == {1: old}
    assert world.leftovers() == []
    assert "are not the piece" in status(world)["refused"][0]["reason"]


def told(change: Callable[[Any], object]) -> bytes:
    body = json.loads(weights(2)[PIECES])
    change(body)
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"no JSON", "cannot be read"),
        (told(lambda body: body.update(schema=2)), "has not schema 1"),
        (told(lambda body: body["files"].update(elsewhere=[])), "which the manifest does not name"),
        (told(lambda body: body["files"][DATA].pop()), "and the file 20000"),
        (told(lambda body: body["files"][DATA].append([10, "0" * 32])), "and the file 20000"),
        (told(lambda body: body["files"][DATA].insert(0, [-10, "0" * 32])), "is no piece"),
        (told(lambda body: body["files"][DATA].insert(0, [2**40, "0" * 32])), "is no piece"),
        (told(lambda body: body["files"][DATA].insert(0, [True, "0" * 32])), "is no piece"),
        (told(lambda body: body["files"].update({DATA: "all"})), "is no piece"),
        (told(lambda body: body["files"][DATA][4].__setitem__(1, "0" * 32)), "are not the piece"),
        # Held pieces, but not those of this file.
        (told(lambda body: body["files"][DATA].reverse()), "has SHA-256"),
    ],
)
async def test_pieces_that_lie_refuse_the_version_and_leave_nothing(
    world: World, raw: bytes, words: str
) -> None:
    old = world.publish(1, weights(1))
    await world.rounds()
    world.publish(2, {**weights(2), PIECES: raw})
    await world.rounds()
    assert world.at_edge() == {1: old}
    assert world.leftovers() == []
    assert words in status(world)["refused"][0]["reason"]


# --- what else can be seen ----------------------------------------------------------------------


async def test_a_version_added_by_another_sink_later_is_copied_there_without_harm(tmp_path: Path) -> None:
    world = World(tmp_path, "bucket")
    whole = world.publish(1)
    await world.rounds()
    world.kind = "bucket and directory"
    world.restart()
    world.offer(1, {"assets/labels.txt": flipped(whole["assets/labels.txt"])})
    await world.rounds()
    assert world.told("model-rejected") == [], "it serves from the bucket"
    assert world.leftovers() == []
    world.offer(1, {"assets/labels.txt": whole["assets/labels.txt"]})
    await world.rounds()
    assert world.at_edge() == {1: whole}


async def test_a_sink_that_is_away_is_a_transient_error(tmp_path: Path) -> None:
    world = World(tmp_path, "directory")
    await world.rounds(1)
    world.directory.rename(tmp_path / "elsewhere")
    with pytest.raises(Transient):
        await world.edge.list()


async def test_a_model_that_cannot_be_written_is_told_and_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path, "directory")
    world.publish(1)
    await world.rounds(1)
    (world.directory / MODEL).rename(tmp_path / "elsewhere")
    (world.directory / MODEL).write_bytes(b"no folder")
    world.publish(2)
    await world.rounds(2)
    assert "File exists" in status(world)["fault"]
    (world.directory / MODEL).unlink()
    await world.rounds(2)
    assert world.told("pushmodel") == [1, 2]
    assert status(world)["fault"] is None


async def test_the_dashboard_is_told_what_is_where(world: World) -> None:
    world.publish(1)
    await world.rounds()
    world.publish(2, own(2, saved_model__pb=b"FAILS"))
    world.offer(3, {"saved_model.pb": b"alone"})
    await world.rounds()
    app = FastAPI()
    install(app, world.edge, "edge1")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client:
        answer = (await client.get("/versions")).json()
    model = answer["models"][MODEL]
    assert (answer["edge"], answer["central"], answer["model_server"]) == ("edge1", "ok", "ok")
    assert (model["serving"], model["at_edge"], model["newest_ready"]) == (1, [1], 1)
    assert [refused["version"] for refused in model["refused"]] == [2, 3]
    assert "bad graph" in model["refused"][0]["reason"]


# --- what a version costs -----------------------------------------------------------------------


async def test_a_version_takes_one_request_a_file_on_each_side(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[tuple[str, str]] = Counter()

    def count(name: str) -> None:
        call = getattr(obstore, name)

        def counted(store: ObjectStore, key: str, *rest: Any, **options: Any) -> Any:
            asked[name, key] += key.startswith(f"models/{MODEL}/") and not key.endswith("/models.config")
            return call(store, key, *rest, **options)

        monkeypatch.setattr(obstore, name, counted)

    world = World(Path(), "bucket")
    await world.rounds(1)
    for name in ("get_async", "head_async", "put_async"):
        count(name)
    for number in (1, 2, 3):
        asked.clear()
        whole = world.publish(number, {path: flipped(content, number) for path, content in FILES.items()})
        await world.rounds(1)
        assert world.at_edge()[number] == whole
        keys = [f"models/{MODEL}/{number}/{path}" for path in whole]
        assert +asked == {(name, key): 1 for name in ("get_async", "put_async") for key in keys}


class Breaking:
    """Streams a file, and breaks off after some bytes so many times."""

    def __init__(self, content: bytes, breaks: int, *, after: int) -> None:
        self.content = content
        self.breaks = breaks
        self.after = after
        self.asked: list[int] = []

    async def stretch(
        self, store: ObjectStore, key: str, start: int, end: int, e_tag: str | None
    ) -> AsyncIterator[bytes]:
        del store, key, e_tag
        self.asked.append(start)
        if len(self.asked) <= self.breaks:
            if self.after:
                yield self.content[start : start + self.after]
            raise Transient("the link is cut")
        yield self.content[start:end]


TEN_BYTES = Offered(Ref(MODEL, 1), (Listed("file", 10, None),), "")


async def test_a_file_that_breaks_off_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Breaking(bytes(range(10)), 2, after=3)
    monkeypatch.setattr("edge_manager.central.stretch", link.stretch)
    monkeypatch.setattr("edge_manager.central.pause", lambda _: 0.0)
    pieces = [piece async for piece in Central(MemoryStore()).pieces(TEN_BYTES, TEN_BYTES.files[0], 10)]
    assert (b"".join(pieces), link.asked) == (link.content, [0, 3, 6])


async def test_a_link_over_which_nothing_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Breaking(bytes(10), 99, after=0)
    monkeypatch.setattr("edge_manager.central.stretch", link.stretch)
    monkeypatch.setattr("edge_manager.central.pause", lambda failures: 0.0 if failures < 2 else 60.0)
    with pytest.raises(CentralAway, match="the link is cut"):
        _ = [piece async for piece in Central(MemoryStore()).pieces(TEN_BYTES, TEN_BYTES.files[0], 10)]
    assert link.asked == [0, 0, 0]


# --- a group of edges ----------------------------------------------------------------------------


async def test_a_version_that_a_group_shares_comes_from_the_groups_bucket(world: World) -> None:
    shared = world.share("north", 3, own(3), version=7)
    await world.rounds()
    assert world.at_edge() == {7: shared}
    assert world.told("pushmodel") == [7]


async def test_an_edge_that_joins_and_leaves_and_joins_another_goes_up_by_its_own_numbers(
    world: World,
) -> None:
    first = world.publish(1)
    await world.rounds()
    joined = world.share("north", 1, own(20), version=2)
    await world.rounds()
    left = world.publish(3)
    await world.rounds()
    assert world.at_edge() == {1: first, 2: joined, 3: left}
    other = world.share("south", 2, own(40), version=4)
    await world.rounds()
    assert world.at_edge()[4] == other
    assert world.told("pushmodel") == [1, 2, 3, 4]
    assert world.told("model-rejected") == []


@pytest.mark.parametrize("is_of", ["P-256", "Ed25519"])
async def test_what_vouches_for_a_groups_version_vouches_for_the_edge_too(world: World, is_of: str) -> None:
    key: PrivateKey = generate_private_key(SECP256R1()) if is_of == "P-256" else Ed25519PrivateKey.generate()
    public: Any = key.public_key()
    keys = PublicKeys(models=(public,)) if is_of == "P-256" else PublicKeys(manifests=(public,))
    world.rules = {"keys": keys, "require_signature": True}
    world.restart()
    shared = world.share("north", 3, own(3), version=3, key=key)
    world.share("north", 4, own(4), version=4, key=key, edge="edge2")
    world.share("north", 5, own(5), version=5)
    await world.rounds()
    assert world.at_edge() == {3: shared}
    causes = {ref.version: refused.cause for ref, refused in world.edge.known.refused.items()}
    assert causes == {4: "edge", 5: "signature"}


async def test_files_of_a_group_that_are_not_what_the_manifest_says_refuse_the_version(world: World) -> None:
    world.share("north", 3, own(3), version=3)
    obstore.put(world.groups["north"], f"models/{MODEL}/3/variables/variables.index", b"altered")
    await world.rounds()
    assert world.at_edge() == {}
    assert world.told("model-rejected") == [3]


async def test_files_of_a_group_that_are_missing_are_waited_for(world: World) -> None:
    shared = world.share("north", 3, own(3), version=3)
    key = f"models/{MODEL}/3/saved_model.pb"
    obstore.delete(world.groups["north"], key)
    await world.rounds()
    assert world.at_edge() == {}
    assert "group north" in status(world)["waiting"][0]["reason"]
    obstore.put(world.groups["north"], key, shared["saved_model.pb"])
    world.now += 60
    await world.rounds()
    assert world.at_edge() == {3: shared}
