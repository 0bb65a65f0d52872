"""An ONNX model in a session of ONNX Runtime, on the CPU.

ONNX Runtime knows the operators that it brings along and no others, none of which touches files or talks.
Data beside a model is read out of the model's own folder alone. It is loaded with the first model: it has
threads from then on, and a process that is to be forked must have none.
"""

import re
from pathlib import Path
from typing import Any

from caravan.contracts import ONNX_MODEL

_SEVERITY_FATAL = 4
# "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : words": its exceptions have no other sign in common.
_RUNTIME_ERROR = re.compile(r"\[ONNXRuntimeError\] : (\d+) : \w+ : (.*)", re.DOTALL)
_NOISE = re.compile(
    r"Load model from .*? failed:|\S*/onnxruntime/\S+:\d+ .+?\) (?=[A-Z])|\w+\.(?:cc|h):\d+ \w+ "
)
_PLAINLY = (
    (
        re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"),
        "it is of ONNX's IR version {}, and up to {} is taken: set an older ir_version when it is exported",
    ),
    (
        re.compile(r"Opset (\d+) is under development .* for domain \S+ is till opset (\d+)", re.DOTALL),
        "it is of ONNX's opset {}, and up to {} is taken: choose an older opset_version when it is exported",
    ),
    (
        re.compile(r'path escapes model directory\. External data path: "([^"]*)"'),
        "its data {} is outside of the model's own directory",
    ),
    (
        re.compile(r"Absolute path not allowed for external data"),
        "its data has an absolute path: it has to be in the model's own directory",
    ),
    (re.compile(r'External data path does not exist: "(?:[^"]*/)?([^"/]*)"'), "its data {} is missing"),
    (re.compile(r"External initializer: (\S+) .* out of bounds"), "its data ends before the end of {}"),
    (
        re.compile(r"Fatal error: (\S+)\(-?\d+\) is not a registered function/op"),
        "its operator {} is none of ONNX Runtime's own",
    ),
    (
        re.compile(r"Failed to construct locale with name:([^:]+):"),
        "it needs the locale {}, which is not installed here: export it with C.UTF-8 (skl2onnx's locale)",
    ),
)
"""Plain words for some of ONNX Runtime's errors."""


class OnnxError(Exception):
    """What ONNX Runtime said of a model or of a call: its `number`, if it gave one, and its `words`."""

    def __init__(self, error: Exception) -> None:
        match = _RUNTIME_ERROR.fullmatch(str(error))
        self.number = int(match[1]) if match else None
        self.words = _plain(match[2] if match else str(error))
        super().__init__(self.words)


def open_session(directory: Path, threads: int, name: str = ONNX_MODEL) -> Any:
    """Load a directory's `model.onnx`, or another file of it (blocking); a call uses up to `threads` threads.

    Raises:
        OnnxError: saying why it cannot be loaded.

    """
    return session_of(str(directory / name), threads)


def session_of(model: str | bytes, threads: int) -> Any:
    """Load a model from a file, or what is in one; see `open_session`."""
    import onnxruntime  # noqa: PLC0415 - see above

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _SEVERITY_FATAL  # what fails is the answer to who asked
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # its errors have no public base class
        raise OnnxError(exc) from exc


def _plain(text: str) -> str:
    """Return what is said, without the places in ONNX Runtime's sources where it is said."""
    for pattern, words in _PLAINLY:
        if match := pattern.search(text):
            return words.format(*match.groups())
    return _NOISE.sub("", text).strip()
