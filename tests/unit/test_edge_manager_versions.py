"""Versions decided as values: what is offered, complete, wanted, and may go."""

from __future__ import annotations

import json

import pytest

from caravan.manifest import File, Manifest
from caravan.tf_index import SavedModel
from edge_manager.versions import (
    Complete,
    Offered,
    Ref,
    Refused,
    Waiting,
    judge_index,
    judge_manifest,
    offers,
    surplus,
    worth_a_look,
)

SHA = "ab" * 32
WITH_CHECKPOINT = SavedModel(has_checkpoint=True, assets=())
SHARD = "variables/variables.data-00000-of-00001"


def offered(*files: tuple[str, int], model: str = "tea", version: int = 3) -> Offered:
    listing = [(f"models/{model}/{version}/{path}", size, f"tag-{path}-{size}") for path, size in files]
    return offers(listing)[model][0]


def manifest(*files: tuple[str, int], model: str = "tea", version: int = 3) -> Manifest:
    return Manifest(model, version, tuple(File(path, size, SHA) for path, size in files))


def judged(offer: Offered, vouched: Manifest) -> object:
    return judge_manifest(offer, vouched, vouched.to_json())


def test_versions_are_grouped_by_model_and_ordered_by_number() -> None:
    grouped = offers([(f"models/{m}/{v}/saved_model.pb", 1, "e") for m, v in (("a", 9), ("b", 1), ("a", 10))])
    assert {model: [o.ref.version for o in versions] for model, versions in grouped.items()} == {
        "a": [10, 9],
        "b": [1],
    }


@pytest.mark.parametrize(
    "key",
    [
        "models/tea/007/saved_model.pb",
        "models/tea/0/saved_model.pb",
        "models/tea/v1/saved_model.pb",
        "models/tea/٣/saved_model.pb",
        "models/tea/99999999999999999999/saved_model.pb",
        "models/../1/saved_model.pb",
        "models/.staging/1/saved_model.pb",
        "models/a b/1/saved_model.pb",
        "models/tea/saved_model.pb",
        "images/tea/1/saved_model.pb",
    ],
)
def test_a_key_that_is_no_file_of_a_version_is_passed_over(key: str) -> None:
    assert offers([(key, 1, "e")]) == {}


def test_a_fingerprint_changes_with_any_file() -> None:
    base = [("models/tea/1/a", 1, "x"), ("models/tea/1/manifest.json", 2, "y")]
    prints = {
        offers(listing)["tea"][0].fingerprint
        for listing in (
            base,
            [base[0], ("models/tea/1/manifest.json", 2, "z")],
            [("models/tea/1/a", 2, "x"), base[1]],
            [*base, ("models/tea/1/b", 0, "w")],
        )
    }
    assert len(prints) == 4
    assert offers(base[::-1])["tea"][0].fingerprint in prints


def test_a_version_is_complete_when_all_its_manifest_names_is_there() -> None:
    offer = offered(("saved_model.pb", 5), ("variables/x", 7), ("manifest.json", 9), ("notes.txt", 1))
    verdict = judged(offer, manifest(("saved_model.pb", 5), ("variables/x", 7)))
    assert isinstance(verdict, Complete)
    assert [file.path for file in verdict.files] == ["variables/x"]
    assert verdict.entry.sha256 == SHA
    assert json.loads(verdict.manifest or b"")["version"] == 3


def test_a_missing_file_is_waited_for() -> None:
    offer = offered(("saved_model.pb", 5), ("manifest.json", 9))
    assert isinstance(judged(offer, manifest(("saved_model.pb", 5), ("variables/x", 7))), Waiting)


@pytest.mark.parametrize(
    ("vouched", "word"),
    [
        (manifest(("saved_model.pb", 6)), "bytes"),
        (manifest(("saved_model.pb", 5), model="coffee"), "coffee"),
        (manifest(("saved_model.pb", 5), version=4), "version 4"),
        (manifest(("variables/x", 7)), "names none"),
        (manifest(("saved_model.pb", 5), ("saved_model.pb", 5)), "twice"),
        (manifest(("saved_model.pb", 5), ("variables", 1), ("variables/x", 7)), "inside"),
        (manifest(("saved_model.pb", 5), ("manifest.json", 9)), "cannot be"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(vouched: Manifest, word: str) -> None:
    there = [("saved_model.pb", 5), ("variables/x", 7), ("variables", 1), ("manifest.json", 9)]
    verdict = judged(offered(*there), vouched)
    assert isinstance(verdict, Refused)
    assert word in verdict.reason


def test_without_a_manifest_every_shard_must_be_as_long_as_its_furthest_entry() -> None:
    base = [("saved_model.pb", 5), ("variables/variables.index", 9)]
    assert isinstance(judge_index(offered(*base), WITH_CHECKPOINT, [7]), Waiting)
    assert isinstance(judge_index(offered(*base, (SHARD, 6)), WITH_CHECKPOINT, [7]), Waiting)
    verdict = judge_index(offered(*base, (SHARD, 7)), WITH_CHECKPOINT, [7])
    assert isinstance(verdict, Complete)
    assert {file.path for file in verdict.files} == {"variables/variables.index", SHARD}
    assert isinstance(judge_index(offered(*base, (SHARD, 7)), WITH_CHECKPOINT, [7, 0]), Waiting)


def test_a_model_with_a_saver_needs_its_variables_and_one_without_does_not() -> None:
    alone = offered(("saved_model.pb", 5))
    assert isinstance(judge_index(alone, WITH_CHECKPOINT, None), Waiting)
    frozen = SavedModel(has_checkpoint=False, assets=())
    assert isinstance(judge_index(alone, frozen, None), Complete)
    assert isinstance(judge_index(offered(("saved_model.pb", 5), (SHARD, 3)), frozen, None), Waiting)


def test_assets_that_the_model_names_are_waited_for() -> None:
    model = SavedModel(has_checkpoint=False, assets=("vocab.txt",))
    assert isinstance(judge_index(offered(("saved_model.pb", 5)), model, None), Waiting)
    whole = offered(("saved_model.pb", 5), ("assets/vocab.txt", 0))
    assert isinstance(judge_index(whole, model, None), Complete)


def test_empty_objects_that_stand_for_folders_are_not_copied() -> None:
    frozen = SavedModel(has_checkpoint=False, assets=())
    offer = offered(("saved_model.pb", 5), ("variables", 0), ("assets/", 0), ("extra", 0), ("extra/a", 1))
    verdict = judge_index(offer, frozen, None)
    assert isinstance(verdict, Complete)
    assert [file.path for file in verdict.files] == ["extra/a"]


def test_only_newer_versions_that_were_not_refused_as_they_are_get_a_look() -> None:
    versions = offers([(f"models/tea/{v}/saved_model.pb", 1, "e") for v in range(1, 6)])["tea"]
    fingerprint = {o.ref.version: o.fingerprint for o in versions}
    refused = {Ref("tea", 5): fingerprint[5], Ref("tea", 4): "as it was before"}
    assert [o.ref.version for o in worth_a_look(versions, above=2, refused=refused)] == [4, 3]


@pytest.mark.parametrize(
    ("held", "serving", "keep", "in_use", "gone"),
    [
        ({1: True, 2: True, 3: True, 4: True}, 4, 3, [], [1]),
        ({1: True, 2: True, 3: True, 4: True}, 4, 1, [], [1, 2, 3]),
        ({1: True, 2: True, 3: True, 4: True}, 4, 1, [2], [1, 3]),
        ({1: False, 2: True, 3: False, 4: True}, 4, 3, [], [1, 3]),
        ({1: True, 2: True, 3: True, 4: True, 5: False}, 2, 1, [], [1]),
        ({1: True, 3: True}, 1, 1, [], []),
    ],
)
def test_what_a_sink_may_lose(
    held: dict[int, bool], serving: int, keep: int, in_use: list[int], gone: list[int]
) -> None:
    assert surplus(held, serving=serving, keep=keep, in_use=in_use) == gone
