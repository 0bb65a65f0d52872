"""The model as TensorFlow Serving loads it: the template, with the arrays of a head in it."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from caravan.contracts import SAVED_MODEL, TWIN
from caravan.pieces import PIECES
from training.backbone import load_backbone
from training.cutting import with_pieces
from training.head import Head
from training.template import PARAMETERS, VARIABLES, template
from training.twin import twin_of

_backbone = cache(load_backbone)
_KEY = "head/{}/.ATTRIBUTES/VARIABLE_VALUE"
"""The key of a variable in the template's checkpoint."""


def export(cache: Path, head: Head, directory: Path) -> None:
    """Write the SavedModel, its twin for ONNX Runtime, and of which pieces all is, beside the head's file.

    Args:
        cache: where the template is kept.
        head: what the version has learnt.
        directory: has it in its file, and nothing else.

    """
    shutil.copytree(template(cache), directory, dirs_exist_ok=True)
    _write_variables(directory / VARIABLES, head)
    file = directory / SAVED_MODEL
    file.write_bytes(declared(file.read_bytes(), len(head.classes)))
    (directory / TWIN).write_bytes(twin_of(_backbone(), head))
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    with_pieces(files, directory / PIECES, [array.tobytes() for array in head.arrays().values()])


def _write_variables(prefix: Path, head: Head) -> None:
    """Put a head into a checkpoint; one head makes one file, byte for byte."""
    arrays: dict[str, Any] = head.arrays()
    arrays["other"] = [float(place == head.other) for place in range(len(head.classes))]
    reader = tf.train.load_checkpoint(str(prefix))
    values = {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}
    values |= {_KEY.format(name): tf.constant(arrays[name], dtype) for name, (dtype, _) in PARAMETERS.items()}
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[*values.values()],
    )


def declared(template: bytes, classes: int) -> bytes:
    """Return a template's file with the number of classes in its signature."""
    model = saved_model_pb2.SavedModel.FromString(template)
    (graph,) = model.meta_graphs
    answer = graph.signature_def["classify"].outputs
    for name in ("probabilities", "classes"):
        answer[name].tensor_shape.dim[-1].size = classes
    file: bytes = model.SerializeToString(deterministic=True)
    return file
