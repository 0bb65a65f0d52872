"""What a version is trained on."""

import hashlib
from collections import Counter

import pytest

from caravan.errors import Permanent
from training.dataset import FEW, MOST, Dataset


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


MANY = [(name, sha(f"{name}{i}")) for name in ("tea-a", "tea-b") for i in range(500)]


def test_the_digest_depends_on_the_images_and_not_on_order_or_copies() -> None:
    assert Dataset.of(MANY).digest == Dataset.of([*reversed(MANY), MANY[3]]).digest
    assert Dataset.of(MANY).digest != Dataset.of(MANY[1:]).digest
    moved = [("tea-c", MANY[0][1]), *MANY[1:]]
    assert Dataset.of(MANY).digest != Dataset.of(moved).digest


def test_an_image_in_two_classes_teaches_nothing() -> None:
    dataset = Dataset.of([*MANY, ("tea-b", MANY[0][1])])
    assert dataset.contradictory == {MANY[0][1]}
    assert MANY[0][1] not in {s for _, s in dataset.usable()}
    assert len(dataset.usable()) == len(MANY) - 1


def test_fewer_than_two_classes_are_refused_with_a_reason() -> None:
    with pytest.raises(Permanent, match="no images"):
        Dataset.of([]).usable()
    with pytest.raises(Permanent, match="only one class, 'tea-a'"):
        Dataset.of(MANY[:500]).usable()
    with pytest.raises(Permanent, match="only one class"):
        Dataset.of(MANY[:501]).usable(unreadable=[MANY[500][1]])


def test_a_dataset_survives_being_written_and_a_changed_one_is_refused() -> None:
    body = Dataset.of(MANY, ignored=3).to_json()
    assert Dataset.from_json(body) == Dataset.of(MANY, ignored=3)
    body["members"].pop()
    with pytest.raises(Permanent, match="changed"):
        Dataset.from_json(body)


def test_of_very_many_images_a_sample_is_learnt_from_and_small_classes_are_whole() -> None:
    sizes = {"tea-a": 4 * MOST, "tea-b": 3 * MOST, "tea-c": 70, "other": MOST // 5}
    members = [(name, sha(f"{name}{i}")) for name, size in sizes.items() for i in range(size)]
    dataset = Dataset.of([*members, ("other", members[0][1])])
    counts = Counter(name for name, _ in dataset.usable())
    assert counts["tea-c"] == 70
    assert counts["other"] == MOST // 5
    assert counts["tea-a"] == counts["tea-b"]
    assert MOST - 4 <= len(dataset.usable()) <= MOST
    assert dataset.beyond == len(members) - 1 - len(dataset.usable())
    assert members[0][1] not in {image for _, image in dataset.sample}


def test_with_more_images_most_of_the_sample_stays() -> None:
    members = [(name, sha(f"{name}{i}")) for name in ("tea-a", "tea-b") for i in range(MOST)]
    before, after = Dataset.of(members[:-100]).sample, Dataset.of(members).sample
    assert len(before & after) > 0.95 * MOST


def test_of_many_classes_each_keeps_a_few() -> None:
    count = MOST // FEW * 2
    members = [(f"tea-{name}", sha(f"{name} {i}")) for name in range(count) for i in range(FEW + 9)]
    assert Counter(Counter(name for name, _ in Dataset.of(members).sample).values()) == {FEW: count}
