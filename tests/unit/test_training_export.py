"""The exported model answers as the contract says, and as the head it was made of."""

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from caravan.contracts import HEAD, OTHER, SAVED_MODEL, TWIN
from caravan.files import write_file
from caravan.graphs.limits import SessionLimits
from caravan.graphs.session import GraphSession
from caravan.graphs.twin import UnfitError, pixels_of
from caravan.pieces import PIECES, name_of
from support.files import as_file
from support.image_forms import TURNED, encode, oriented
from training import smoke
from training.backbone import load_backbone
from training.cutting import LEAST_LEARNT
from training.embedder import Embedder
from training.embeddings import FEATURES, EmbeddingCache, Wanted, embed
from training.export import export
from training.exporter import Exporter, ExporterProcess
from training.fit import fit
from training.head import NARROW, Head, rounded
from training.holdout import HeldOut, Judged
from training.measures import SIDE
from training.parent import Parent, ask
from training.samples import gather
from training.smoke import Prepared
from training.template import Features, template
from training.trial import Fault, Job, try_twin
from training.trials import tried
from training.twin import twin_of
from training.twin_check import check_twin, scaled, unscaled

COLOURS = {"red-box": (200, 30, 30), "blue-ball": (30, 60, 200)}


def picture(name: str, seed: int, kind: str = "JPEG", **options: Any) -> bytes:
    """Draw a thing of a class on a noisy ground."""
    rng = np.random.default_rng([seed, len(name)])
    image = Image.fromarray(rng.integers(90, 180, (160, 200, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    x, y = (int(v) for v in rng.integers(20, 80, 2))
    if name == "red-box":
        draw.rectangle((x, y, x + 80, y + 60), fill=COLOURS[name])
    elif name == "blue-ball":
        draw.ellipse((x, y, x + 70, y + 70), fill=COLOURS[name])
    return as_file(image, kind, **options)


def export_to(directory: Path, head: Head, cache: Path) -> None:
    write_file(directory / HEAD, head.to_bytes())
    export(cache, head, directory)


class Made:
    """A trained and exported model, and what it was made of."""

    def __init__(self, directory: Path) -> None:
        self.embedder = Embedder()
        files, names = {}, []
        for name in ("red-box", "blue-ball", OTHER):
            for seed in range(8):
                path = directory / f"{name}-{seed}"
                path.write_bytes(picture(name, seed))
                files[path.name] = path
                names.append(name)
        self.cache = directory / "cache"
        embedded = embed(files, EmbeddingCache(self.cache), lambda: self.embedder, lambda *_: None)
        self.features = np.stack([embedded.features[key] for key in files])
        self.images = [path.read_bytes() for path in files.values()]
        self.head: Head = fit(gather(list(zip(names, files, strict=True)), embedded), seed=0)[0]
        self.path = directory / "model"
        export_to(self.path, self.head, self.cache)
        self.signatures: Mapping[str, Callable[..., Any]] = tf.saved_model.load(str(self.path)).signatures
        self.graph = GraphSession.load(self.path, SessionLimits())  # as a model server has it
        self.twin = (self.path / TWIN).read_bytes()

    def one(self, image: bytes) -> tuple[str, str]:
        answer = self.signatures["serving_default"](image_b64=tf.constant([image]))
        (output,) = answer.values()
        assert output.shape == (2,)
        label, probability = (text.decode() for text in output.numpy())
        return label, probability


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def prepared(made: Made) -> Prepared:
    """The template, ready for the versions of all tests, as a listener has it for those of all runs."""
    return Prepared(template(made.cache))


def test_the_default_signature_answers_label_and_probability_as_text(made: Made) -> None:
    label, probability = made.one(made.images[0])
    expected = made.head.probabilities(made.features[:1])[0]
    assert label == made.head.classes[int(expected.argmax())]
    assert probability == f"{float(probability):.6f}"
    assert float(probability) == pytest.approx(float(expected.max()), abs=1e-4)


def test_the_default_signature_refuses_what_is_not_one_image(made: Made) -> None:
    serve = made.graph.signatures["serving_default"].call  # a model server looks at no declared shape
    for count in (0, 2):
        with pytest.raises(tf.errors.InvalidArgumentError, match="answers one image"):
            serve({"image_b64": np.array(made.images[:count], object)})
    (answer,) = serve({"image_b64": np.array(made.images[:1], object)}).values()
    assert answer[0].decode() == made.one(made.images[0])[0]


def test_a_photo_is_answered_alike_however_the_phone_was_held(made: Made) -> None:
    upright = picture("red-box", 1, "PNG")
    values = np.asarray(Image.open(io.BytesIO(upright)))
    expected = made.one(upright)
    for orientation, stored in TURNED.items():
        turned = encode(np.ascontiguousarray(stored(values)), "PNG", exif=oriented(orientation))
        label, probability = made.one(turned)
        assert label == expected[0]
        assert float(probability) == pytest.approx(float(expected[1]), abs=1e-3)


@pytest.mark.parametrize("count", [1, 2, 24, 32])
def test_classify_answers_any_number_of_images_as_the_head_does(made: Made, count: int) -> None:
    images = (made.images * 2)[:count]
    answer = made.signatures["classify"](images=tf.constant(images))
    expected = made.head.probabilities(np.concatenate([made.features, made.features])[:count])
    assert set(answer) == {"labels", "scores", "probabilities", "classes"}
    assert [name.decode() for name in answer["classes"].numpy()] == list(made.head.classes)
    np.testing.assert_allclose(answer["probabilities"].numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(answer["scores"].numpy(), expected.max(axis=1), atol=1e-4)
    labels = [made.head.classes[k] for k in expected.argmax(axis=1)]
    assert [label.decode() for label in answer["labels"].numpy()] == labels


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95, "exif": b"Exif\0\0" + b"x" * 20}),
    ],
)
def test_every_format_that_a_shopper_sends_is_decoded(made: Made, kind: str, options: dict[str, Any]) -> None:
    label, _ = made.one(picture("red-box", 1, "PNG"))
    assert made.one(picture("red-box", 1, kind, **options))[0] == label


def test_a_photo_and_its_larger_copy_are_answered_alike(made: Made) -> None:
    small = Image.open(io.BytesIO(picture("red-box", 2, "PNG")))
    target = io.BytesIO()
    small.resize((1600, 1280), Image.Resampling.BICUBIC).save(target, "PNG")
    assert made.one(target.getvalue())[0] == made.one(picture("red-box", 2, "PNG"))[0]


def huge_png() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + checked + struct.pack(">I4s", 0, b"IDAT")


def huge_jpeg() -> bytes:
    raw = bytearray(picture("red-box", 1))
    frame = raw.index(b"\xff\xc0")
    raw[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
    return bytes(raw)


def huge_webp() -> bytes:
    raw = bytearray(picture("red-box", 1, "WEBP"))
    raw[26:30] = struct.pack("<HH", 16_383, 16_383)
    return bytes(raw)


@pytest.mark.parametrize("image", [huge_png(), huge_jpeg(), huge_webp()], ids=["png", "jpeg", "webp"])
def test_an_image_that_promises_too_many_pixels_is_refused_before_it_is_decoded(
    made: Made, image: bytes
) -> None:
    for signature, name in (("serving_default", "image_b64"), ("classify", "images")):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
            made.signatures[signature](**{name: tf.constant([image])})


@pytest.mark.parametrize("image", [b"", b"hello", b"GIF89a\x01\x00\x01\x00", b"BM" + b"\0" * 60])
def test_what_is_no_image_that_we_take_is_refused(made: Made, image: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="not an image"):
        made.one(image)


def test_an_image_that_is_cut_off_is_refused_and_named_in_training(made: Made, tmp_path: Path) -> None:
    damaged = picture("red-box", 1, "PNG")[:600]
    with pytest.raises(tf.errors.InvalidArgumentError):
        made.one(damaged)
    (tmp_path / "bad").write_bytes(damaged)
    (tmp_path / "huge").write_bytes(huge_png())
    (tmp_path / "good").write_bytes(made.images[0])
    files = {name: tmp_path / name for name in ("bad", "huge", "good")}
    embedded = embed(files, EmbeddingCache(tmp_path), lambda: made.embedder, lambda *_: None)
    assert set(embedded.features) == {"good"}
    assert "damaged" in embedded.unreadable["bad"]
    assert "too many pixels" in embedded.unreadable["huge"]


def test_embeddings_are_computed_once(made: Made, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(made.images[0])
    cache, files = EmbeddingCache(tmp_path), {"ab" * 32: tmp_path / "good"}
    first = embed(files, cache, lambda: made.embedder, lambda *_: None)

    def none() -> Embedder:
        raise AssertionError("asked for what the cache has")

    again = embed(files, cache, none, lambda *_: None)
    np.testing.assert_array_equal(first.features["ab" * 32], again.features["ab" * 32])


def test_the_smoke_test_passes_a_good_model_and_names_what_is_wrong_with_a_bad_one(
    made: Made, prepared: Prepared, tmp_path: Path
) -> None:
    expected = made.head.probabilities(made.features[:3])
    images = made.images[:3]
    fault_of = partial(smoke.fault_of, prepared)
    assert fault_of(made.path, made.head, images, expected) is None
    assert "otherwise" in (fault_of(made.path, made.head, images, expected[::-1] * 0.5) or "")
    assert "does not load" in (fault_of(tmp_path, made.head, images, expected) or "")
    for name in ("saved_model.pb", "variables"):
        (tmp_path / name).symlink_to(made.path / name)
    write_twin(tmp_path, twin_of(load_backbone(), strict(made.head)))
    assert fault_of(tmp_path, made.head, images, expected) == (
        "its twin for ONNX Runtime is refused: it answers otherwise than the SavedModel"
    )
    assert fault_of(made.path, made.head, images, expected) is None


def test_a_model_of_which_each_class_has_one_image_passes_the_smoke_test(
    made: Made, prepared: Prepared
) -> None:
    expected = made.head.probabilities(made.features[:0])
    assert smoke.fault_of(prepared, made.path, made.head, (), expected) is None


@pytest.mark.parametrize("is_known", [True, False], ids=["graph-of-the-template", "other-graph"])
def test_what_is_damaged_is_refused_though_the_template_is_whole(
    made: Made, prepared: Prepared, tmp_path: Path, is_known: bool
) -> None:
    asked = made.head, made.images[:1], made.head.probabilities(made.features[:1])
    whole = tmp_path / "whole"
    shutil.copytree(made.path, whole)
    if not is_known:
        with (whole / SAVED_MODEL).open("ab") as file:
            file.write(b"\x08\x01")  # its schema, once more
    assert smoke.fault_of(prepared, whole, *asked) is None
    for name in (SAVED_MODEL, "variables/variables.index", "variables/variables.data-00000-of-00001"):
        damaged = tmp_path / name.replace("/", "-")
        shutil.copytree(whole, damaged)
        content = (damaged / name).read_bytes()
        (damaged / name).write_bytes(content[: len(content) // 2])
        assert "does not load" in (smoke.fault_of(prepared, damaged, *asked) or ""), name
    assert smoke.fault_of(prepared, whole, *asked) is None


# --- the twin -----------------------------------------------------------------------------------


def strict(head: Head) -> Head:
    """Return a head for which no image is typical."""
    return replace(head, thresholds=head.thresholds + 1)


def write_twin(directory: Path, twin: bytes) -> None:
    (directory / TWIN).parent.mkdir(exist_ok=True)
    (directory / TWIN).write_bytes(twin)


def pixels(images: list[bytes]) -> NDArray[np.uint8]:
    """Noise, greys, and images, [N, 224, 224, 3]."""
    given = np.stack([each for _, each in scaled(images)])
    grey = given.mean(axis=3, keepdims=True).astype(np.uint8).repeat(3, axis=3)
    return np.concatenate([given, grey, np.full((1, SIDE, SIDE, 3), 255, np.uint8)])


def test_the_twin_answers_as_the_head_does_by_the_same_features(made: Made) -> None:
    """A class without images has zeros for its centre; a grey picture has a colour by rounding alone."""
    rng = np.random.default_rng(5)
    space = made.head.space
    centres = np.where(np.arange(len(space.centres))[:, None] == 1, 0, space.centres)
    weights = rounded(rng.normal(0, 1, made.head.weights.shape).astype(np.float32), NARROW["weights"])
    drawn = replace(made.head, weights=weights, space=replace(space, centres=centres))
    given = pixels(made.images[::5])
    embeddings = made.embedder.embeddings(given)
    often = replace(made.head, blurriest=np.median(embeddings[:, FEATURES:], axis=0))
    for head in (made.head, drawn, often):
        images = tf.constant((given.astype(np.float32) - 127) / 128)
        features = Features(load_backbone())(images, tf.constant(head.blurriest)).numpy()
        # A box that is cut a thousandth of a pixel elsewhere shows something a little different.
        sharp = embeddings[:, FEATURES] >= head.blurriest
        np.testing.assert_allclose(embeddings[sharp, :FEATURES], features[sharp], atol=1e-3)
        model = onnx.load_from_string(twin_of(load_backbone(), head))
        onnx.checker.check_model(model, full_check=True)
        assert json.loads(model.metadata_props[0].value) == list(head.classes)
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info("features"))
        session = onnxruntime.InferenceSession(model.SerializeToString())
        for batch in (slice(0, 1), slice(0, 8), slice(8, None)):
            probabilities, found = session.run(["probabilities", "features"], {"pixels": given[batch]})
            np.testing.assert_allclose(found, features[batch], atol=1e-3)
            np.testing.assert_allclose(probabilities, head.probabilities(features[batch]), atol=2e-3)


def test_a_head_is_asked_about_all_that_it_learnt_and_was_judged_by_as_it_is(made: Made) -> None:
    embeddings = made.embedder.embeddings(np.stack([pixels_of(image) for image in made.images]))
    assert made.head.blurriest == embeddings[:, FEATURES].min()


@pytest.mark.parametrize("form", ["twin", "SavedModel"])
def test_what_is_blurrier_than_all_that_was_learnt_is_seen_sharper(made: Made, form: str) -> None:
    """The features of a picture that is out of focus come nearer to those that it has in focus."""
    sharp = pixels_of(made.images[0])
    blurred = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(3)))
    plain = made.embedder.embeddings(np.stack([sharp, blurred]))[:, :FEATURES]
    if form == "twin":
        asked = Embedder(made.head.blurriest).embeddings(np.stack([sharp, blurred]))[:, :FEATURES]
    else:
        images = tf.constant((np.stack([sharp, blurred]).astype(np.float32) - 127) / 128)
        asked = Features(load_backbone())(images, tf.constant(made.head.blurriest)).numpy()
    np.testing.assert_allclose(asked[0], plain[0], atol=1e-3)
    assert np.linalg.norm(asked[1] - plain[0]) < 0.95 * np.linalg.norm(plain[1] - plain[0])


async def test_a_parent_is_asked_about_what_is_blurred_as_it_answers_where_it_serves(
    made: Made, tmp_path: Path
) -> None:
    image, file = made.images[0], tmp_path / "blurred.png"
    Image.open(io.BytesIO(image)).convert("RGB").filter(ImageFilter.GaussianBlur(6)).save(file)
    (embedded,) = made.embedder([Wanted("a" * 64, file, (0,))])
    assert not isinstance(embedded, str)
    features, sharpness = embedded[:, :FEATURES], float(embedded[0, FEATURES])
    out = HeldOut((Judged("red-box", "a" * 64, 0),), features, (file,), (sharpness,))
    assert sharpness < made.head.blurriest

    (answer,) = await ask(Parent(1, made.head, {}), out, 10)
    served = onnxruntime.InferenceSession(made.twin)
    (probabilities,) = served.run(None, {"pixels": pixels_of(file.read_bytes())[None]})
    assert answer.label == made.head.classes[probabilities.argmax()]
    assert answer.probability == pytest.approx(float(probabilities.max()), abs=1e-4)
    as_it_is = made.head.probabilities(features)
    assert np.abs(as_it_is - probabilities).max() > 1e-2, "the picture tells them apart"


def test_one_head_makes_one_twin_byte_for_byte(made: Made) -> None:
    assert twin_of(load_backbone(), made.head) == made.twin
    assert twin_of(load_backbone(), strict(made.head)) != made.twin


def test_a_version_of_another_head_has_few_new_bytes(made: Made, tmp_path: Path) -> None:
    """All that is learnt differs, in files of which nearly all is the backbone."""
    head, space = made.head, made.head.space
    other = replace(
        head,
        weights=-head.weights,
        bias=-head.bias,
        thresholds=head.thresholds + 1,
        slopes=-head.slopes,
        blurriest=-head.blurriest,
        space=replace(space, mean=-space.mean, centres=-space.centres, by_shape=-space.by_shape),
    )
    export_to(tmp_path, other, made.cache)
    there, new = (json.loads((folder / PIECES).read_bytes())["files"] for folder in (made.path, tmp_path))
    held = {name for pieces in there.values() for _, name in pieces}
    for path, pieces in new.items():
        lacking = sum(size for size, name in pieces if name not in held)
        assert lacking < 200_000, path


def test_what_was_learnt_is_the_same_bytes_in_every_file_so_that_it_travels_once(made: Made) -> None:
    pieces = json.loads((made.path / PIECES).read_bytes())["files"]
    arrays = made.head.arrays()
    learnt = [arrays[name].tobytes() for name in ("mean", *NARROW)]
    names = {name_of(array) for array in learnt if len(array) >= LEAST_LEARNT}
    assert len(names) >= 3
    for path in ("variables/variables.data-00000-of-00001", TWIN, HEAD):
        assert names <= {name for _, name in pieces[path]}


def test_of_a_version_with_one_more_class_only_what_was_learnt_is_new(made: Made, tmp_path: Path) -> None:
    head, space = made.head, made.head.space
    more = replace(
        head,
        classes=(*head.classes, "tea"),
        weights=np.pad(head.weights, ((0, 0), (0, 1))),
        bias=np.pad(head.bias, (0, 1)),
        thresholds=np.pad(head.thresholds, (0, 1)),
        slopes=np.pad(head.slopes, (0, 1)),
        space=replace(space, centres=np.pad(space.centres, ((0, 1), (0, 0)))),
    )
    export_to(tmp_path / "more", more, made.cache)
    one, other = ((path / PIECES).read_bytes() for path in (made.path, tmp_path / "more"))
    known = {name for tiles in json.loads(one)["files"].values() for _, name in tiles}
    new = {
        name: size
        for tiles in json.loads(other)["files"].values()
        for size, name in tiles
        if name not in known
    }
    assert 0 < sum(new.values()) < 60_000


def changed(twin: bytes, change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = onnx.load_from_string(twin)
    change(model)
    return model.SerializeToString()


def batch_of_four(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


def one_output_more(model: onnx.ModelProto) -> None:
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("features"))


def other_classes(model: onnx.ModelProto) -> None:
    onnx.helper.set_model_props(model, {"classes": json.dumps(["blue-ball", "red-box", "other"])})


def no_classes(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def no_number(model: onnx.ModelProto) -> None:
    bias = next(one for one in model.graph.initializer if one.name == "dense.2")
    bias.raw_data = np.full(bias.dims, np.nan, np.float32).tobytes()


@pytest.mark.parametrize(
    ("twin", "words"),
    [
        (lambda _: b"garbage", "does not load"),
        (lambda made: changed(made.twin, batch_of_four), "input is not pixels"),
        (lambda made: changed(made.twin, one_output_more), "output is not"),
        (lambda made: changed(made.twin, other_classes), "classes are not those"),
        (lambda made: changed(made.twin, no_classes), "name its classes"),
        (lambda made: changed(made.twin, no_number), "otherwise"),
        (lambda made: twin_of(load_backbone(), strict(made.head)), "otherwise"),
    ],
    ids=["garbage", "batch", "output", "classes", "no-classes", "nan", "head"],
)
def test_a_twin_that_is_not_the_models_own_is_refused_in_words(
    made: Made, tmp_path: Path, twin: Callable[[Made], bytes], words: str
) -> None:
    write_twin(tmp_path, twin(made))
    with pytest.raises(UnfitError, match=words):
        check_twin(tmp_path, made.graph.signatures["classify"].call, scaled(made.images[:1]))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("labels", lambda labels: np.roll(labels, 1)),
        ("scores", lambda scores: scores * 0.9),
        ("probabilities", lambda probabilities: np.roll(probabilities, 1, axis=1)),
        ("probabilities", lambda probabilities: probabilities[:, :2]),
        ("classes", lambda classes: classes[::-1]),
    ],
)
def test_what_the_gate_judges_and_what_the_twin_answers_are_one(
    made: Made, name: str, changed: Callable[[Any], Any]
) -> None:
    """A SavedModel whose labels are judged well has to have probabilities that say the same."""

    def classify(arrays: Any) -> Any:
        answer = made.graph.signatures["classify"].call(arrays)
        return answer | {name: changed(answer[name])}

    with pytest.raises(UnfitError, match=r"otherwise|classes are not those"):
        check_twin(made.path, classify, scaled(made.images[::8]))


def test_a_twin_beside_answers_that_say_too_little_is_refused(made: Made) -> None:
    def classify(arrays: Any) -> Any:
        answer = made.graph.signatures["classify"].call(arrays)
        return {name: answer[name] for name in ("labels", "scores")}

    with pytest.raises(UnfitError, match="has to answer"):
        check_twin(made.path, classify, scaled([]))


def test_a_model_that_tells_photos_from_small_pngs_is_asked_about_photos(made: Made) -> None:
    """Else its photos are judged, and its twin is held against what it says of nothing but PNGs."""

    def classify(arrays: Any) -> Any:
        answer = made.graph.signatures["classify"].call(arrays)
        is_jpeg = np.array([image.startswith(b"\xff\xd8") for image in arrays["images"]])
        return answer | {"scores": np.where(is_jpeg, answer["scores"] * 0.9, answer["scores"])}

    check_twin(made.path, made.graph.signatures["classify"].call, unscaled(made.images[:2]))
    check_twin(made.path, classify, scaled(made.images[:2]))
    with pytest.raises(UnfitError, match="otherwise"):
        check_twin(made.path, classify, unscaled(made.images[:2]))


async def test_a_trial_holds_the_twin_that_comes_with_a_model_against_it(made: Made, tmp_path: Path) -> None:
    for name in ("saved_model.pb", "variables"):
        (tmp_path / name).symlink_to(made.path / name)
    write_twin(tmp_path, twin_of(load_backbone(), strict(made.head)))
    image = tmp_path / "image"
    image.write_bytes(made.images[0])
    job = Job(str(tmp_path), "saved_model.pb", contract=True, images=(str(image),))
    found = await tried(job, 120)
    assert found.fault == f"its {TWIN} cannot be taken: it answers otherwise than the SavedModel"

    try_twin(replace(job, directory=str(made.path)), made.graph.signatures)
    with pytest.raises(Fault, match="signature classify"):
        try_twin(job, {"serving_default": made.graph.signatures["serving_default"]})


# --- the process ----------------------------------------------------------------------------------


async def test_a_process_of_its_own_writes_the_same_model_and_tries_it(made: Made, tmp_path: Path) -> None:
    model, image = tmp_path / "model", tmp_path / "image"
    for directory in (model, tmp_path):
        write_file(directory / HEAD, made.head.to_bytes())
    image.write_bytes(made.images[0])
    expected = made.head.probabilities(made.features[:1])
    async with ExporterProcess(made.cache) as process:
        exporter = Exporter(process.ask, process.start)
        await exporter.export(model)
        for path in (file.relative_to(made.path) for file in made.path.rglob("*") if file.is_file()):
            assert (model / path).read_bytes() == (made.path / path).read_bytes(), path
        assert await exporter.fault_of(model, [image], expected) is None
        fault = await exporter.fault_of(model, [image], expected[:, ::-1] * 0.5)
        assert "otherwise" in (fault or "")
        assert await exporter.fault_of(tmp_path, [], expected[:0]) is not None
        with pytest.raises(RuntimeError, match="ended"):
            await exporter.export(tmp_path / "missing")
