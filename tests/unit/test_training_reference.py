"""The reference set grows within bounds, and what is in it stays."""

import json

import pytest
from obstore.store import MemoryStore

from caravan import s3
from caravan.errors import Permanent
from caravan.withdrawn import Withdrawn
from training import reference as references
from training.holdout import Judged
from training.reference import MOST_OF_CLASS, MOST_OF_GROUP, Reference, grow, grown, read_reference

MODEL, KEY = "tea", "reference/tea.json"
NOBODY = Withdrawn()


def judged(count: int, name: str = "green", group: int | None = None, start: int = 0) -> list[Judged]:
    return [Judged(name, f"{n:064x}", n if group is None else group) for n in range(start, start + count)]


async def test_it_grows_by_what_accepted_versions_were_judged_on() -> None:
    store = MemoryStore()
    assert (await read_reference(store, MODEL, NOBODY)).labels == {}
    await grow(store, MODEL, NOBODY, judged(3))
    await grow(store, MODEL, NOBODY, judged(2, "lemon", start=10))
    found = (await read_reference(store, MODEL, NOBODY)).labels
    assert found == {image.sha256: image.name for image in judged(3) + judged(2, "lemon", start=10)}


def test_a_later_batch_changes_no_label() -> None:
    before = grown({}, judged(5))
    assert grown(before, judged(5, "lemon")) == before


def test_near_copies_have_little_room_and_no_class_takes_that_of_others() -> None:
    assert len(grown({}, judged(50, group=1))) == MOST_OF_GROUP
    first = grown({}, judged(MOST_OF_CLASS + 50))
    assert len(first) == MOST_OF_CLASS
    assert len(grown(first, judged(9, "lemon", start=9000))) == MOST_OF_CLASS + 9
    assert grown(first, judged(50, group=1)) == first


def test_of_many_classes_each_has_its_share_of_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "MOST", 40)
    many = [image for n in range(10) for image in judged(9, f"tea-{n}", start=100 * n)]
    assert len(grown({}, many)) == 40


def test_labels_of_a_class_that_is_one_edges_own_judge_and_take_room_where_the_image_is_its_own() -> None:
    mine, others = f"{1:064x}", f"{MOST_OF_CLASS - 1:064x}"
    reference = Reference(grown({}, judged(MOST_OF_CLASS)))
    members = [("green", mine), ("other", mine), ("other", others)]
    assert reference.among(members) == {mine: "green", others: "green"}
    assert reference.among(members, {"green"}) == {mine: "green"}

    new = judged(1, start=9000)
    assert grown(reference.labels, [*judged(1, start=1), *new]) == reference.labels
    after = grown(reference.labels, [*judged(1, start=1), *new], {"green"})
    assert after == {**reference.labels, new[0].sha256: "green"}


async def test_what_is_withdrawn_is_out_at_once_and_leaves_the_file_with_the_next_version() -> None:
    store = MemoryStore()
    await grow(store, MODEL, NOBODY, judged(4))
    withdrawn = Withdrawn({f"{0:064x}"}, {("green", f"{1:064x}"), ("lemon", f"{2:064x}")})
    left = {f"{2:064x}": "green", f"{3:064x}": "green"}
    assert (await read_reference(store, MODEL, withdrawn)).labels == left
    await grow(store, MODEL, withdrawn, [])
    assert json.loads(await s3.read(store, KEY))["images"] == left


async def test_somebody_who_edits_it_meanwhile_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    await grow(store, MODEL, NOBODY, judged(2))
    by_hand = {"schema": 1, "images": {f"{7:064x}": "lemon"}}
    read = references.read_reference

    async def slowly(*args: object) -> references.Reference:
        found = await read(*args)  # type: ignore[arg-type]
        await s3.write(store, KEY, json.dumps(by_hand).encode())
        return found

    monkeypatch.setattr(references, "read_reference", slowly)
    await grow(store, MODEL, NOBODY, judged(2, start=20))
    assert json.loads(await s3.read(store, KEY)) == by_hand


@pytest.mark.parametrize(
    "body", ["[]", "no JSON", '{"schema": 1}', '{"schema": 1, "images": {"x": "tea"}}', '{"images": {}}']
)
async def test_one_that_cannot_be_read_opens_no_gate(body: str) -> None:
    store = MemoryStore()
    await s3.write(store, KEY, body.encode())
    with pytest.raises(Permanent, match=r"reference/tea\.json"):
        await read_reference(store, MODEL, NOBODY)


async def test_labels_from_when_a_capital_made_another_class_judge_as_other() -> None:
    store = MemoryStore()
    await s3.write(store, KEY, json.dumps({"schema": 1, "images": {f"{1:064x}": "Other"}}).encode())
    assert (await read_reference(store, MODEL, NOBODY)).labels == {f"{1:064x}": "other"}


def test_images_that_are_not_there_any_more_are_not_asked() -> None:
    reference = references.Reference({f"{n:064x}": "green" for n in range(3)})
    assert reference.among([("lemon", f"{1:064x}"), ("lemon", f"{9:064x}")]) == {f"{1:064x}": "green"}
