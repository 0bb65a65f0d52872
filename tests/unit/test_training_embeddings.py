"""The cache of embeddings: few files, and only what is new is computed."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from training import embeddings
from training.embeddings import (
    BACKBONE,
    COLUMNS,
    FEATURES,
    Array,
    Embedded,
    EmbeddingCache,
    Key,
    Wanted,
    embed,
)


class Backbone:
    """Makes an embedding of a file's name, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, wanted: Sequence[Wanted], /) -> list[Array | str]:
        self.asked += [image.file.name for image in wanted]
        return [self.one(image) for image in wanted]

    def one(self, wanted: Wanted) -> Array | str:
        name = wanted.file.name
        if name == "bad":
            return "damaged"
        return np.stack([embedding_of(name) + view / 8 for view in wanted.views])


def embedding_of(name: str) -> Array:
    return np.full(COLUMNS, float(name), np.float32)


def features_of(name: str) -> Array:
    return embedding_of(name)[:FEATURES]


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def key(name: str | int) -> Key:
    return sha(str(name)), 0


class Cache:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.backbone = Backbone()

    def embed(self, *names: str | int, views: int = 0) -> Embedded:
        images = {sha(str(name)): Path(str(name)) for name in names}
        counts = dict.fromkeys(images, views)
        return embed(images, EmbeddingCache(self.directory), lambda: self.backbone, lambda *_: None, counts)

    def files(self) -> list[Path]:
        return [path for path in self.directory.rglob("*") if path.is_file()]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(embeddings, "BLOCK", 10)
    monkeypatch.setattr(embeddings, "BATCH", 4)
    return Cache(tmp_path)


def test_what_is_there_is_not_made_again(cache: Cache) -> None:
    cache.embed(*range(25))
    cache.backbone.asked.clear()
    found = cache.embed(*range(3, 27))
    assert cache.backbone.asked == ["25", "26"]
    for name in map(str, range(3, 27)):
        np.testing.assert_array_equal(found.features[sha(name)], features_of(name))
        assert found.sharpness[sha(name)] == float(name)


def test_views_are_kept_beside_their_image_and_only_those_that_lack_are_made(cache: Cache) -> None:
    cache.embed(1, 2, views=1)
    asked: list[Wanted] = []

    class Noting(Backbone):
        def one(self, wanted: Wanted) -> Array | str:
            asked.append(wanted)
            return super().one(wanted)

    cache.backbone = Noting()
    found = cache.embed(1, 2, 3, views=2)
    assert {(wanted.file.name, wanted.views) for wanted in asked} == {
        ("1", (2,)),
        ("2", (2,)),
        ("3", (0, 1, 2)),
    }
    assert set(found.views) == {(sha(str(name)), view) for name in (1, 2, 3) for view in (1, 2)}
    np.testing.assert_array_equal(found.views[sha("2"), 2], features_of("2") + 0.25)


def test_many_images_are_few_files_however_they_came(cache: Cache) -> None:
    for name in range(35):
        cache.embed(name)
    assert len(cache.files()) == 4


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-1], lambda raw: raw[:100] + b"?" + raw[101:], lambda _: b""]
)
def test_a_damaged_file_is_made_again(cache: Cache, damage: Callable[[bytes], bytes]) -> None:
    cache.embed(*range(5))
    (file,) = cache.files()
    file.write_bytes(damage(file.read_bytes()))
    cache.backbone.asked.clear()
    found = cache.embed(*range(5))
    assert cache.backbone.asked == ["0", "1", "2", "3", "4"]
    assert len(found.features) == 5
    cache.embed(*range(5))
    assert len(cache.backbone.asked) == 5


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_kept(cache: Cache) -> None:
    found = cache.embed(1, "bad", 2)
    assert found.unreadable == {sha("bad"): "damaged"}
    assert set(found.features) == {sha("1"), sha("2")}


def test_a_run_that_is_cut_off_keeps_what_it_had(cache: Cache) -> None:
    class Cut(Backbone):
        def __call__(self, wanted: Sequence[Wanted], /) -> list[Array | str]:
            if len(self.asked) >= 20:
                raise KeyboardInterrupt
            return super().__call__(wanted)

    cache.backbone = Cut()
    with pytest.raises(KeyboardInterrupt):
        cache.embed(*range(40))
    cache.backbone = Backbone()
    cache.embed(*range(40))
    assert len(cache.backbone.asked) == 40 - 12


def test_what_was_withdrawn_is_forgotten_and_nothing_else(cache: Cache) -> None:
    cache.embed(*range(40))
    kept = EmbeddingCache(cache.directory)
    withdrawn = [sha(str(number)) for number in (3, 30)]
    for _ in range(2):
        kept.forget("edge1", withdrawn)
        assert set(kept.find(map(key, range(40)))) == {
            key(number) for number in range(40) if number not in (3, 30)
        }
    kept.add({key(3): embedding_of("3")})
    kept.forget("edge2", withdrawn)
    assert kept.find([key(3), key(30)]) == {}


def test_what_another_backbone_made_does_not_stay_behind_where_nobody_withdraws_it(cache: Cache) -> None:
    cache.embed(1)
    before = cache.directory / "embeddings" / "efficientnet-lite0-224-1" / "3c" / f"{sha('3')}.npy"
    before.parent.mkdir(parents=True)
    before.write_bytes(b"an embedding")
    EmbeddingCache(cache.directory).forget("edge1", ())
    assert [path.name for path in (cache.directory / "embeddings").iterdir()] == [BACKBONE]
    assert set(EmbeddingCache(cache.directory).find([key(1)])) == {key(1)}


def test_several_that_add_at_once_lose_nothing(cache: Cache) -> None:
    names = [str(number) for number in range(30)]

    def add(name: str) -> None:
        EmbeddingCache(cache.directory).add({key(name): embedding_of(name)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, names))
    assert set(EmbeddingCache(cache.directory).find(map(key, names))) == set(map(key, names))
