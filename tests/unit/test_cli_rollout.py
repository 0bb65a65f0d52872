"""`caravan rollout`: how far a version has come, and what a person may say to that."""

import asyncio
from typing import Any

import pytest
from obstore.store import MemoryStore
from typer.testing import CliRunner, Result

from caravan import rollouts, s3
from caravan.contracts import DEFAULT_MODEL
from caravan.evidence import Differing
from caravan.rollout import Rollout
from caravan_cli.__main__ import commands


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """Return `north-models`; the environment is that of a group of three edges."""
    store = MemoryStore()

    def opened(_: object, bucket: str) -> MemoryStore:
        assert bucket == "north-models"
        return store

    monkeypatch.setattr(s3, "open_bucket", opened)
    monkeypatch.setenv("EDGES", "edge1 edge2 edge3")
    monkeypatch.setenv("EDGE_GROUPS", "north=edge1,edge2,edge3")
    monkeypatch.setenv("EDGE", "edge2")
    return store


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return whom training was asked for, and why."""
    asked: list[tuple[str, str]] = []

    async def ask(settings: Any, why: str, what: str) -> None:
        asked.append((settings.owner, f"{why} {what}"))

    monkeypatch.setattr("caravan_cli.__main__._ask_for_training", ask)
    return asked


def said(*words: str) -> Result:
    return CliRunner().invoke(commands, ["rollout", *words])


def begun(store: MemoryStore) -> None:
    rollout = Rollout(3, 2, 2, "1,100%").changed("rolling", "edge1 is silent", {"serving": 0, "refused": 0})
    asyncio.run(rollouts.write(store, DEFAULT_MODEL, rollout, None))


def test_it_shows_how_far_a_version_has_come_and_why(store: MemoryStore) -> None:
    assert said().output == f"there is no rollout of {DEFAULT_MODEL} at north\n"
    begun(store)
    result = said()
    assert result.exit_code == 0
    first, *more = result.output.splitlines()
    assert first.startswith("version 3 of north is rolling since ")
    assert first.endswith(": edge1 is silent")
    assert more == [
        "ring 1 of 2 (1,100%), 1 of 3 edges",
        "the version before is 2",
        "serving 0, refused 0",
    ]


def test_it_names_the_images_where_versions_differ_and_where_their_pictures_are(store: MemoryStore) -> None:
    name = f"{'0a' * 32}-9"
    seen = Differing(
        name, "valid/images/tea-green/1.jpg", "tea-green", 0.97, "tea-lemon", 0.9, "tea-lemon", "edge1"
    )
    stopped = Rollout(3, 2, 2, "1,100%").changed("stopped", "it did worse", {"worse": 9}, [seen])
    asyncio.run(rollouts.write(store, DEFAULT_MODEL, stopped, None))
    assert said().output.splitlines()[-3:] == [
        "both versions were sure, and differed; the dashboard shows the pictures of",
        (
            "  edge1 valid/images/tea-green/1.jpg: version 3 said tea-green (0.97), "
            "version 2 tea-lemon (0.90); reviewed: tea-lemon"
        ),
        f"    hub/uncertain/{name}.jpg",
    ]


def test_what_a_person_says_is_noted_and_whoever_shares_the_version_is_called(
    store: MemoryStore, asked: list[tuple[str, str]]
) -> None:
    begun(store)
    assert ": a person said so: the fair is on\n" in said("hold", "--reason", "the fair is on").output
    assert "ring 2 of 2 (1,100%), 3 of 3 edges" in said("promote").output
    assert "version 3 of north is done since" in said("promote").output
    assert "0 of 3 edges" in said("stop").output
    assert asked == [("north", f"rollout {what}") for what in ("hold", "promote", "promote", "stop")]


def test_what_is_over_cannot_be_held_or_promoted(store: MemoryStore, asked: list[tuple[str, str]]) -> None:
    for words in (["hold"], ["stop", "--model", "coffee"]):
        result = said(*words)
        assert result.exit_code == 1
        assert "there is no rollout of" in result.output
    begun(store)
    said("stop")
    assert said("promote").exit_code == 1
    assert "is stopped since" in said("promote").output
    assert len(asked) == 1
