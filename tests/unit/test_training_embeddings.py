"""The cache of embeddings: few files, and only what is new is computed."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from training import embeddings
from training.embeddings import FEATURES, Array, Embedded, EmbeddingCache, embed


class Backbone:
    """Makes an embedding of a file's name, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, files: Sequence[Path], /) -> list[Array | str]:
        self.asked += [file.name for file in files]
        return ["damaged" if file.name == "bad" else features_of(file.name) for file in files]


def features_of(name: str) -> Array:
    return np.full(FEATURES, float(name), np.float32)


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


class Cache:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.backbone = Backbone()

    def embed(self, *names: str | int) -> Embedded:
        images = {sha(str(name)): Path(str(name)) for name in names}
        return embed(images, EmbeddingCache(self.directory), lambda: self.backbone, lambda *_: None)

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
        def __call__(self, files: Sequence[Path], /) -> list[Array | str]:
            if len(self.asked) >= 20:
                raise KeyboardInterrupt
            return super().__call__(files)

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
        assert set(kept.find(map(sha, map(str, range(40))))) == {
            sha(str(number)) for number in range(40) if number not in (3, 30)
        }
    kept.add({withdrawn[0]: features_of("3")})
    kept.forget("edge2", withdrawn)
    assert kept.find(withdrawn) == {}


def test_several_that_add_at_once_lose_nothing(cache: Cache) -> None:
    names = [str(number) for number in range(30)]

    def add(name: str) -> None:
        EmbeddingCache(cache.directory).add({sha(name): features_of(name)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, names))
    assert set(EmbeddingCache(cache.directory).find(map(sha, names))) == set(map(sha, names))
