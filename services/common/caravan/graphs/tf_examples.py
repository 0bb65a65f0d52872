"""The tf.Examples that a graph wants, made by what its own parser declares; Estimators export such graphs."""

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2

from caravan.graphs.plausible import texts

_PARSERS = {"ParseExample", "ParseExampleV2", "ParseSingleExample"}
_NUMBERS = (0.5, 1.0)
"""Values of numeric features in successive examples, rounded down for integers."""
_MAX_VALUES = 2**20
"""Most values of one feature."""


def plausible_texts(graph: graph_pb2.GraphDef) -> list[bytes]:
    """Return what a string may be that is given to a graph: Examples if it parses them, then any other."""
    others = texts()
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            if node.op in _PARSERS:
                by_name = {one.name: one for one in nodes}
                made = zip(others, _NUMBERS, strict=False)
                return [*(_example(node, by_name, text, number) for text, number in made), *others]
    return others


def _example(
    node: node_def_pb2.NodeDef, nodes: Mapping[str, node_def_pb2.NodeDef], text: bytes, number: float
) -> bytes:
    """Return an Example with every feature that a parser demands."""
    example = tf.train.Example()
    kinds, shapes = node.attr["Tdense"].list.type, node.attr["dense_shapes"].list.shape
    for key, kind, shape in zip(_dense_keys(node, nodes), kinds, shapes, strict=False):
        count = 1
        for dim in shape.dim:
            count *= max(dim.size, 1)
        count = min(count, _MAX_VALUES)
        feature = example.features.feature[key.decode(errors="replace")]
        if kind == tf.string.as_datatype_enum:
            feature.bytes_list.value.extend([text] * count)
        elif kind == tf.int64.as_datatype_enum:
            feature.int64_list.value.extend([int(number)] * count)
        else:
            feature.float_list.value.extend([number] * count)
    return bytes(example.SerializeToString())


def _dense_keys(node: node_def_pb2.NodeDef, nodes: Mapping[str, node_def_pb2.NodeDef]) -> list[bytes]:
    if node.op == "ParseSingleExample":
        return list(node.attr["dense_keys"].list.s)
    if node.op == "ParseExampleV2":  # serialized, names, sparse_keys, dense_keys, …
        return _constants([node.input[3]], nodes)
    sparse, dense = node.attr["Nsparse"].i, node.attr["Ndense"].i
    return _constants(node.input[2 + sparse : 2 + sparse + dense], nodes)


def _constants(sources: Iterable[str], nodes: Mapping[str, node_def_pb2.NodeDef]) -> list[bytes]:
    """Return the strings of constants, in order."""
    found: list[bytes] = []
    for source in sources:
        node = nodes.get(source.partition(":")[0])
        if node is not None and node.op == "Const":
            value: Any = tf.make_ndarray(node.attr["value"].tensor)
            found.extend(value.reshape(-1).tolist())
    return found
