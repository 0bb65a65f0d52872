"""A stranger's model, loaded and asked, in a process of its own: `python -m training.trial`.

A SavedModel is a program. It runs here with nothing to steal and little to break: no credentials in the
environment, no file that it could write, a bounded time, and the first to go when memory runs out. One line
of JSON comes in on standard input (see `Job`), one goes out on standard output (see `Found`).
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caravan import strict_json
from caravan.contracts import ONNX_MODEL, TWIN
from caravan.graphs.plausible import MAX_VALUES, Input, encoded_picture, examples, shapes, texts
from caravan.names import as_class
from caravan.start import TENSORFLOW_UNUSED, lean
from training.codes import AGAIN
from training.orphan import lines_of_parent

CLASSIFY, DEFAULT = "classify", "serving_default"
MAX_CLASSES = 100_000
MAX_REASON = 400
"""Most characters kept of a runtime's error."""
_SAYS_NOTHING = re.compile(
    r"Graph execution error:?|Detected at node|Exception encountered|Traceback|File \""
)
_TERMINAL = re.compile(r"\x1b\[[0-9;]*m")
_NODE = re.compile(r"\s*\[\[\{\{.*?\}\}\]\]|\{\{.*?\}\}\s*")
_PAIR = 2
NO_TWIN = f"{TWIN} is for a SavedModel whose signature classify takes images: leave it out"

Arrays = Mapping[str, NDArray[Any]]
Call = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Job:
    """What is asked.

    Attributes:
        directory: directory of the model's files.
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
    """Load a SavedModel and ask the signatures that Caravan knows of, or any where it has none of them.

    Raises:
        Fault: if it cannot be taken.

    """
    # Seconds, and an ONNX model does without.
    with lean(*TENSORFLOW_UNUSED):
        from caravan.graphs.dtypes import declared_input  # noqa: PLC0415
        from caravan.graphs.limits import SessionLimits  # noqa: PLC0415
        from caravan.graphs.session import GraphSession  # noqa: PLC0415
        from caravan.graphs.tf_examples import plausible_texts  # noqa: PLC0415

    _give_up_rights()
    with _blamed("it does not load", job.directory):
        session = GraphSession.load(Path(job.directory), SessionLimits())
    signatures: Mapping[str, Any] = session.signatures
    if not signatures:
        raise Fault("it has no signature")
    strings = plausible_texts(session.graph)
    outputs: dict[str, Arrays] = {}
    faults: list[Fault] = []
    for name in [known for known in (DEFAULT, CLASSIFY) if known in signatures] or sorted(signatures):
        try:
            with _blamed(f"{name} cannot be asked", job.directory):
                infos = signatures[name].definition.inputs
                inputs = [declared_input(alias, infos[alias]) for alias in signatures[name].inputs]
            outputs[name] = _answered(name, inputs, signatures[name].call, strings, job.directory)
        except Fault as exc:
            if name in {DEFAULT, CLASSIFY}:
                raise
            faults.append(exc)
    if not outputs:
        raise faults[0]
    own = _own_classes(outputs.get(CLASSIFY, {}))
    if own is None:
        check_classes(job.classes, next(iter(outputs.values())))
    answers: tuple[tuple[str, float], ...] = ()
    if job.contract:
        _check_contract(signatures)
        with _blamed(
            "it does not answer encoded images by label and probability, as the model it follows does",
            job.directory,
        ):
            answers = tuple(_label_and_probability(signatures, image) for image in _encoded(job.images))
    if Path(job.directory, TWIN).exists():
        try_twin(job, signatures)
    return Found(None, own if own is not None else job.classes, answers[1:])


def try_twin(job: Job, signatures: Mapping[str, Any]) -> None:
    """Hold what would serve in the place of a SavedModel against it, on pictures of ours and on the job's.

    Raises:
        Fault: if it is not the same model.

    """
    from training.twin_check import check_twin, unscaled  # noqa: PLC0415 - with TensorFlow

    classify = signatures.get(CLASSIFY)
    if classify is None or list(classify.inputs) != ["images"]:
        raise Fault(NO_TWIN)
    with _blamed(f"its {TWIN} cannot be taken", job.directory):
        check_twin(Path(job.directory), classify.call, unscaled(_encoded(job.images)))


def try_onnx(job: Job) -> Found:
    """Load an ONNX model and ask it.

    Raises:
        Fault: if it cannot be taken.

    """
    from caravan.graphs.onnx import OnnxError, open_session  # noqa: PLC0415 - a SavedModel does without

    if job.contract:
        raise Fault("an ONNX model does not answer encoded images, as the model it follows does")
    if Path(job.directory, TWIN).exists():
        raise Fault(NO_TWIN)
    _give_up_rights()
    with _blamed("it does not load", job.directory):
        session = open_session(Path(job.directory), threads=1)
    for output in session.get_outputs():
        if not output.type.startswith("tensor("):
            hint = ': export it without ZipMap (options={"zipmap": False})' if "map(" in output.type else ""
            raise Fault(f"its output {output.name} is a {output.type}, not a tensor{hint}")
    inputs = [
        Input(one.name, _numpy_type(one.name, one.type), _dimensions(one.shape))
        for one in session.get_inputs()
    ]
    names = [one.name for one in session.get_outputs()]

    def call(arrays: Arrays) -> Arrays:
        feeds = {
            name: np.array([text.decode(errors="replace") for text in value.flat], object).reshape(
                value.shape
            )
            if value.dtype == object
            else value
            for name, value in arrays.items()
        }
        try:
            return dict(zip(names, map(np.asarray, session.run(None, feeds)), strict=True))
        except Exception as exc:  # ONNX Runtime's errors have no public base class
            raise OnnxError(exc) from exc

    outputs = _answered("it", inputs, call, texts(), job.directory, channels_first=True)
    check_classes(job.classes, outputs)
    return Found(None, job.classes)


def _answered(
    name: str,
    inputs: Sequence[Input],
    call: Call,
    strings: Sequence[bytes],
    directory: str,
    *,
    channels_first: bool = False,
) -> Arrays:
    """Ask until one of the plausible inputs is answered, and return that answer.

    Raises:
        Fault: if none is; it says what became of the most plausible one.

    """
    first: Fault | None = None
    for shape in shapes(inputs, channels_first=channels_first):
        for arrays in examples(inputs, shape, strings):
            try:
                with _blamed(f"{name} does not answer {_told_shapes(arrays)}", directory):
                    outputs = call(arrays)
                check_finite(name, outputs)
            except Fault as exc:
                first = first or exc
            else:
                return outputs
    raise first or Fault(f"{name} wants more than {MAX_VALUES} values, which is more than is tried")


def _told_shapes(arrays: Arrays) -> str:
    told = ", ".join(f"{key} of shape {list(value.shape)}" for key, value in arrays.items())
    return told or "without an input"


def check_finite(name: str, outputs: Arrays) -> None:
    """See that something came out, and no infinity.

    Raises:
        Fault: if not.

    """
    if not outputs:
        raise Fault(f"{name} has no output")
    for key, value in outputs.items():
        if np.issubdtype(value.dtype, np.inexact) and not np.isfinite(value).all():
            raise Fault(f"the output {key} of {name} is not finite for any input that was tried")


def check_classes(classes: Sequence[str], outputs: Mapping[str, NDArray[Any]]) -> None:
    """Check that there are as many names as scores, if it is plain which output the scores are.

    Raises:
        Fault: if not.

    """
    rows = [v for v in outputs.values() if np.issubdtype(v.dtype, np.floating) and v.ndim == 2]  # noqa: PLR2004
    if not classes or len(rows) != 1:
        return
    count = rows[0].shape[1]
    # One number is the probability of the second of two classes.
    if count != len(classes) and (count, len(classes)) != (1, _PAIR):
        raise Fault(f"it answers {count} values, and {len(classes)} class names were given")


def _dimensions(shape: Sequence[Any]) -> tuple[int | str | None, ...] | None:
    """Return ONNX's dimensions; ONNX Runtime tells a scalar and an unknown rank in one way."""
    return tuple(None if isinstance(size, int) and size < 0 else size for size in shape) or None


def _numpy_type(name: str, text: str) -> Any:
    types = {"float": "float32", "double": "float64", "string": "object"}
    inner = text.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(types.get(inner, inner))
    except TypeError as exc:
        raise Fault(f"the input {name} is a {text}: that cannot be sent") from exc


def _own_classes(outputs: Mapping[str, NDArray[Any]]) -> tuple[str, ...] | None:
    """Return the class names that a signature `classify` answers with, if it does."""
    names = outputs.get("classes")
    if names is None or names.dtype != object or not 0 < names.size <= MAX_CLASSES:
        return None
    return tuple(name.decode(errors="replace") for name in names.reshape(-1).tolist())


def _encoded(images: Sequence[str]) -> Iterator[bytes]:
    yield encoded_picture()
    for image in images:
        yield Path(image).read_bytes()


def _check_contract(signatures: Mapping[str, Any]) -> None:
    inputs = {name: signature.inputs for name, signature in signatures.items()}
    if "images" not in inputs.get(CLASSIFY, ()) and "image_b64" not in inputs.get(DEFAULT, ()):
        raise Fault(
            "it does not take encoded images (image_b64, or images in classify), as the model that is trained"
            " under this name does: send it under another name"
        )


def _label_and_probability(signatures: Mapping[str, Any], image: bytes) -> tuple[str, float]:
    signature = signatures.get(CLASSIFY)
    one = np.array([image], object)
    if signature is not None and "images" in signature.inputs:
        answer = signature.call({"images": one})
        return as_class(answer["labels"][0].decode()), float(answer["scores"][0])
    (answer,) = signatures[DEFAULT].call({"image_b64": one}).values()
    label, probability = answer.reshape(-1).tolist()
    return as_class(label.decode()), float(probability)


@contextmanager
def _blamed(what: str, directory: str) -> Iterator[None]:
    """Turn whatever a stranger's model raises into a finding."""
    try:
        yield
    except Fault:
        raise
    except Exception as exc:
        raise Fault(f"{what}: {told(exc, directory)}") from exc


def told(error: Exception, directory: str) -> str:
    """Return what an error says: its first line that says something, without a path of this machine."""
    text = _TERMINAL.sub("", str(getattr(error, "message", None) or error))
    for place in (directory, str(Path(directory).resolve())):
        text = text.replace(f"{place}/", "").replace(place, "the model")
    lines = (_NODE.sub("", line).strip() for line in text.splitlines())
    line = next((line for line in lines if line and not _SAYS_NOTHING.match(line)), type(error).__name__)
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]}…"


def main() -> None:
    """Answer one job."""
    job = Job(**strict_json.loads_object(lines_of_parent(AGAIN).get()))
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
