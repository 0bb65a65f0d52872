"""The model as TensorFlow Serving loads it: the template, with the arrays of a head in it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from caravan.contracts import SAVED_MODEL, TWIN
from training.backbone import load_backbone
from training.head import Head
from training.template import CONSTANTS, PREFIX, template
from training.twin import twin_of


def export(cache: Path, head: Head, directory: Path) -> None:
    """Write the SavedModel, and its twin for ONNX Runtime, into a new directory.

    Args:
        cache: where the template is kept.
        head: what the version has learnt.
        directory: is made.

    """
    shutil.copytree(template(cache), directory)
    model = saved_model_pb2.SavedModel.FromString((directory / SAVED_MODEL).read_bytes())
    _fill(model, _values(head))
    # One head makes one file, byte for byte.
    (directory / SAVED_MODEL).write_bytes(model.SerializeToString(deterministic=True))
    twin = directory / TWIN
    twin.parent.mkdir()
    twin.write_bytes(twin_of(load_backbone(), head))


def _values(head: Head) -> dict[str, Any]:
    arrays = {**vars(head.space), **vars(head)}
    arrays["other"] = [float(place == head.other) for place in range(len(head.classes))]
    return {name: arrays[name] for name in CONSTANTS}


def _fill(model: saved_model_pb2.SavedModel, values: Mapping[str, Any]) -> None:
    """Put values in the place of the template's constants, and the number of classes into its signature."""
    (graph,) = model.meta_graphs
    tensors = {name: tf.make_tensor_proto(values[name], dtype) for name, (dtype, _) in CONSTANTS.items()}
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "Const" and node.name.startswith(PREFIX):
                node.attr["value"].tensor.CopyFrom(tensors[node.name.removeprefix(PREFIX)])
                node.attr.pop("_output_shapes", None)
    answer = graph.signature_def["classify"].outputs
    for name in ("probabilities", "classes"):
        answer[name].tensor_shape.dim[-1].size = len(values["classes"])
