"""A stranger's model, loaded and asked, in a process of its own: `python -m training.trial`.

A SavedModel is a program. It runs here with nothing to steal and little to break: no credentials in the
environment, no file that it could write, a bounded time, and the first to go when memory runs out. One line
of JSON comes in on standard input (see `Job`), one goes out on standard output (see `Found`).
"""

import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from caravan import strict_json
from caravan.contracts import ONNX_MODEL, SAVED_MODEL
from training.orphan import die_with_parent

CLASSIFY, DEFAULT = "classify", "serving_default"
FILE_OPS = frozenset({"ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc"})
"""Operations that reach beyond the model, into files or the process; those of savers are not among them."""

MAX_VALUES = 2**26
"""Values of one input at most: a quarter of a gigabyte of floats."""
MAX_CLASSES = 100_000
_IMAGE_RANK = 4
_SIDE, _CHANNELS, _LENGTH = 224, 3, 16
"""What stands for dimensions that a signature leaves open."""


@dataclass(frozen=True)
class Job:
    """What is asked.

    Attributes:
        directory: where the model's files are.
        entry: `saved_model.pb` or `model.onnx`.
        classes: names that were given with it; may be empty.
        contract: whether it has to answer encoded images by label and probability, as our own models do.
        images: files of encoded images to be answered then.

    """

    directory: str
    entry: str
    classes: tuple[str, ...] = ()
    contract: bool = False
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What came out.

    Attributes:
        fault: why the model cannot be taken, in one sentence; None if it can.
        classes: its own class names, else those given.
        answers: for each of the images asked, label and probability.

    """

    fault: str | None = None
    classes: tuple[str, ...] = ()
    answers: tuple[tuple[str, float], ...] = ()


class Fault(Exception):
    """Why a model cannot be taken."""


def try_saved_model(job: Job) -> Found:
    """Load a SavedModel and ask each signature that Caravan knows of.

    Raises:
        Fault: if it cannot be taken.

    """
    import tensorflow as tf  # noqa: PLC0415 - seconds, and an ONNX model does without

    path = Path(job.directory)
    _give_up_rights()
    with _blamed("it does not load"):
        _refuse_file_ops(path / SAVED_MODEL)
        # The module must outlive its signatures, which hold its variables weakly.
        loaded = tf.saved_model.load(job.directory)
        signatures: Mapping[str, Any] = loaded.signatures
    known = [name for name in (DEFAULT, CLASSIFY) if name in signatures]
    if not known:
        there = ", ".join(sorted(signatures)) or "none"
        raise Fault(f"it has no signature {DEFAULT} or {CLASSIFY}; there is {there}")
    outputs: dict[str, dict[str, NDArray[Any]]] = {}
    for name in known:
        signature = signatures[name]
        specs = signature.structured_input_signature[1]
        inputs = {
            key: tf.constant(blank(f"{name}, {key}", spec.dtype.as_numpy_dtype, _open_shape(spec.shape)))
            for key, spec in specs.items()
        }
        with _blamed(f"{name} does not answer a blank input"):
            outputs[name] = {key: value.numpy() for key, value in signature(**inputs).items()}
        check_finite(name, outputs[name])
    own = _own_classes(outputs.get(CLASSIFY, {}))
    if own is None:
        check_classes(job.classes, outputs[known[0]])
    answers: tuple[tuple[str, float], ...] = ()
    if job.contract:
        _check_contract(signatures)
        with _blamed(
            "it does not answer encoded images by label and probability, as the model it follows does"
        ):
            answers = tuple(_label_and_probability(tf, signatures, image) for image in _encoded(job.images))
    return Found(None, own if own is not None else job.classes, answers[1:])


def try_onnx(job: Job) -> Found:
    """Load an ONNX model and ask it.

    Raises:
        Fault: if it cannot be taken.

    """
    import onnxruntime  # noqa: PLC0415 - a SavedModel does without

    if job.contract:
        raise Fault("an ONNX model does not answer encoded images, as the model it follows does")
    _give_up_rights()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with _blamed("it does not load"):
        path = str(Path(job.directory, ONNX_MODEL))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for output in session.get_outputs():
        if not output.type.startswith("tensor("):
            raise Fault(
                f"its output {output.name} is a {output.type}, not a tensor: export it without ZipMap "
                '(options={"zipmap": False})'
            )
    inputs = {
        one.name: blank(one.name, _numpy_type(one.name, one.type), _dimensions(one.shape))
        for one in session.get_inputs()
    }
    with _blamed("it does not answer a blank input"):
        values = session.run(None, inputs)
    outputs = {one.name: np.asarray(value) for one, value in zip(session.get_outputs(), values, strict=True)}
    check_finite("it", outputs)
    check_classes(job.classes, outputs)
    return Found(None, job.classes)


def blank(name: str, dtype: Any, shape: Sequence[int | None] | None) -> NDArray[Any]:
    """Return an input of one example: zeros, or a grey image where encoded ones are wanted.

    Args:
        name: of the input, for the message.
        dtype: NumPy's type; `object` for strings.
        shape: the first dimension being the batch; None where it is open, or as a whole unknown.

    Raises:
        Fault: if the shape is unknown, or too large.

    """
    if shape is None:
        raise Fault(f"the input {name} declares no shape")
    sizes = [_size(place, len(shape), size) for place, size in enumerate(shape)]
    if math.prod(sizes) > MAX_VALUES:
        raise Fault(f"the input {name} is of {math.prod(sizes)} values; {MAX_VALUES} are tried")
    if np.dtype(dtype) == object:
        return np.full(sizes, grey_image(), object)
    return np.zeros(sizes, dtype)


def grey_image() -> bytes:
    """Return an encoded image with nothing on it."""
    target = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(target, "JPEG")
    return target.getvalue()


def check_finite(name: str, outputs: Mapping[str, NDArray[Any]]) -> None:
    """See that something came out, and no infinity.

    Raises:
        Fault: if not.

    """
    if not outputs:
        raise Fault(f"{name} has no output")
    for key, value in outputs.items():
        if np.issubdtype(value.dtype, np.inexact) and not np.isfinite(value).all():
            raise Fault(f"the output {key} of {name} is not finite for a blank input")


def check_classes(classes: Sequence[str], outputs: Mapping[str, NDArray[Any]]) -> None:
    """See that there are as many names as scores, where it is plain which output the scores are.

    Raises:
        Fault: if not.

    """
    rows = [v for v in outputs.values() if np.issubdtype(v.dtype, np.floating) and v.ndim == 2]  # noqa: PLR2004
    if classes and len(rows) == 1 and rows[0].shape[1] != len(classes):
        raise Fault(f"it answers {rows[0].shape[1]} values, and {len(classes)} class names were given")


def _size(place: int, rank: int, size: int | None) -> int:
    if size is not None:
        return size
    if place == 0:
        return 1
    if rank != _IMAGE_RANK:
        return _LENGTH
    return _CHANNELS if place == rank - 1 else _SIDE


def _open_shape(shape: Any) -> list[int | None] | None:
    return None if shape.rank is None else shape.as_list()


def _dimensions(shape: Sequence[Any]) -> list[int | None]:
    """Return ONNX's dimensions, of which open ones are None or have a name."""
    return [size if isinstance(size, int) and size >= 0 else None for size in shape]


def _numpy_type(name: str, text: str) -> Any:
    types = {"float": "float32", "double": "float64", "string": "object"}
    inner = text.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(types.get(inner, inner))
    except TypeError as exc:
        raise Fault(f"the input {name} is a {text}: that cannot be sent") from exc


def _refuse_file_ops(path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(path.read_bytes())
    for graph in (meta.graph_def for meta in saved.meta_graphs):
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        found = sorted({node.op for node in nodes} & FILE_OPS)
        if found:
            raise Fault(f"its graph has {', '.join(found)}: models that touch files are not taken")


def _own_classes(outputs: Mapping[str, NDArray[Any]]) -> tuple[str, ...] | None:
    """Return the class names that a signature `classify` answers with, if it does."""
    names = outputs.get("classes")
    if names is None or names.dtype != object or not 0 < names.size <= MAX_CLASSES:
        return None
    return tuple(name.decode(errors="replace") for name in names.reshape(-1).tolist())


def _encoded(images: Sequence[str]) -> Iterator[bytes]:
    yield grey_image()
    for image in images:
        yield Path(image).read_bytes()


def _check_contract(signatures: Mapping[str, Any]) -> None:
    inputs = {name: signature.structured_input_signature[1] for name, signature in signatures.items()}
    if "images" not in inputs.get(CLASSIFY, {}) and "image_b64" not in inputs.get(DEFAULT, {}):
        raise Fault(
            "it does not take encoded images (image_b64, or images in classify), as the model that is trained"
            " under this name does: send it under another name"
        )


def _label_and_probability(tf: Any, signatures: Mapping[str, Any], image: bytes) -> tuple[str, float]:
    signature = signatures.get(CLASSIFY)
    if signature is not None and "images" in signature.structured_input_signature[1]:
        answer = signature(images=tf.constant([image]))
        return answer["labels"].numpy()[0].decode(), float(answer["scores"].numpy()[0])
    (answer,) = signatures[DEFAULT](image_b64=tf.constant([image])).values()
    label, probability = answer.numpy().reshape(-1).tolist()
    return label.decode(), float(probability)


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    """Turn whatever a stranger's model raises into a finding."""
    try:
        yield
    except Fault:
        raise
    except Exception as exc:
        raise Fault(f"{what}: {next(iter(str(exc).splitlines()), '') or type(exc).__name__}") from exc


def main() -> None:
    """Answer one job."""
    job = Job(**strict_json.loads_object(sys.stdin.buffer.readline()))
    die_with_parent()
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints
    try:
        found = try_onnx(job) if job.entry == ONNX_MODEL else try_saved_model(job)
    except Fault as exc:
        found = Found(str(exc))
    json.dump(asdict(found), answer)
    answer.flush()
    # Not by way of the interpreter's end, where a stranger's code may still have a say.
    os._exit(0)


def _give_up_rights() -> None:
    # Not earlier: TensorFlow wants to try out a temporary file when it is imported.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on every platform

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
