"""One rule for each kind of name, the same at every door."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote

import pytest

from caravan import names
from caravan.contracts import central_buckets, edge_faults, image_key, image_of, is_edge_id


@pytest.mark.parametrize(
    "name",
    [
        "tea-green",
        "grüner-tee",
        "Green Tea",
        "T-shirt/top",
        "緑茶",
        "🍵",
        "👩\u200d🌾",
        "7",
        "a" * 200,
        ".net",
    ],
)
def test_a_class_is_what_a_model_may_answer(name: str) -> None:
    assert names.is_class(name)
    assert names.class_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " tea", "tea\n", "te\ta", "\0", "\ud800", "a" * 201, "gru\u0308ner", "\u200d", "a\u00a0b"]
)
def test_a_class_is_printable_and_composed_and_not_too_long(name: str) -> None:
    assert not names.is_class(name)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("tea", True),
        ("grüner tee", True),
        ("T-shirt/top", False),
        ("a\\b", False),
        (".hidden", False),
        ("..", False),
        ("a" * 101, False),
        ("茶" * 80, True),
        ("茶" * 81, False),
    ],
)
def test_images_lie_in_a_folder_with_the_name_of_their_class(name: str, taken: bool) -> None:
    assert names.is_folder(name) == taken
    assert (names.folder_of(name) == name) == taken
    assert names.is_folder(names.folder_of(name))


@pytest.mark.parametrize("name", ["../up", "", " ", "\0", "/", "\ud800", "a/b", "." * 300, "🍵" * 300])
def test_a_class_of_any_name_has_a_folder(name: str) -> None:
    folder = names.folder_of(name)
    assert names.is_folder(folder)
    assert len(PurePosixPath(image_key(name, "a.jpg")).parts) == 3


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("images/tea-green/a.jpg", ("tea-green", "a.jpg")),
        ("images/gru\u0308n/A.JPEG", ("gr\u00fcn", "A.JPEG")),
        ("images/Other/a.jpg", ("other", "a.jpg")),
        ("images/tea/.a.jpg", None),
        ("images/tea/._0.jpg", None),
        ("images/tea/a.txt", None),
        ("images/a.jpg", None),
        ("images/tea/deeper/a.jpg", None),
        ("images//a.jpg", None),
        ("images/../a.jpg", None),
        ("images/tea/", None),
        ("rejected/images/tea/a.jpg", None),
    ],
)
def test_the_class_of_an_image_is_its_folder(key: str, place: tuple[str, str] | None) -> None:
    assert image_of(key) == place


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("till-3", "till-3"),
        ("", ""),
        ("  ", ""),
        ("gru\u0308n", "grün"),
        ("a" * 999, "a" * names.CAMERA_CHARACTERS),
        ("a\nb\0", "a\ufffdb\ufffd"),
        ("\udc80", "\ufffd"),
    ],
)
def test_a_camera_has_a_name_that_can_be_shown(sent: str, shown: str) -> None:
    assert names.camera_name(sent) == shown


def test_what_is_kept_beside_an_object_fits_whatever_names_are() -> None:
    camera = "カメラ" * 200
    kept = names.metadata(
        {"label": "tea", "camera": camera, "source": "🍵" * 200, "empty": "", "odd": "\udc80"}
    )
    assert sum(len(name) + len(value) for name, value in kept.items()) <= names.METADATA_BYTES
    assert all(value.isascii() and value.isprintable() for value in kept.values())
    assert (kept["label"], kept["odd"], "empty" in kept) == ("tea", "%3F", False)
    assert len(kept["camera"]) > 500
    assert camera.startswith(unquote(kept["camera"]))


def test_what_fits_is_kept_as_it_is() -> None:
    facts = {"label": "grüner tee", "camera": "c" * 100}
    assert {name: unquote(value) for name, value in names.metadata(facts).items()} == facts


# --- edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", ["edge1", "a", "7", "shop-7", "e" * 56, "data", "edge1-data"])
def test_an_edge_is_an_id_whose_topics_and_buckets_are_its_own(edge: str) -> None:
    assert edge_faults([edge]) == []
    assert max(map(len, central_buckets(edge))) <= 63


@pytest.mark.parametrize(
    ("edge", "why"),
    [
        ("Edge", "DNS label"),
        ("", "DNS label"),
        ("e" * 57, "more than 56 characters"),
        ("e" * 63, "more than 56 characters"),
        ("trigger", "'trigger' is a Kafka topic of all edges"),
        ("edge-metrics", "topic of all edges"),
        ("edge-status", "topic of all edges"),
        ("training-images", "topic of all edges"),
        ("trigger-dead-letter", "topic of all edges"),
        ("training", "'training-images' is a Kafka topic of all edges"),
        ("xn--edge", "S3"),
    ],
)
def test_an_id_that_cannot_be_an_edge_is_refused_with_a_reason(edge: str, why: str) -> None:
    assert why in " ".join(edge_faults([edge]))


@pytest.mark.parametrize("other", ["edge1-images", "edge1-detections", "edge1-dead-letter", "edge1"])
def test_edges_whose_names_meet_are_refused(other: str) -> None:
    assert is_edge_id(other)
    assert edge_faults(["edge1", other])
    assert edge_faults([other, "edge1"])


def test_every_fault_is_named_once() -> None:
    assert len(edge_faults(["edge1", "Edge_2", "trigger", "e" * 60])) == 3
