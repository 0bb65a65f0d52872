"""Reads the MetaGraph of a SavedModel that TensorFlow Serving serves: pruned to what is run, and checked.

TensorFlow Serving takes the MetaGraph whose tags are exactly `serve`, and of it what restores the variables,
what initialises the model, and what its signatures need. The object graph, which Python's own loader follows,
is never looked at, and neither is what only training needs: readers of files, savers, gradients.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import attr_value_pb2, function_pb2, graph_pb2, node_def_pb2, op_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from caravan.contracts import SAVED_MODEL
from caravan.graphs.operations import COMPUTING, LOG_STREAMS, READERS

TAGS = {"serve"}
INIT = "__saved_model_init_op"
"""The signature, and its output, that names the initialising operation since TensorFlow 2."""
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_ASSETS = "saved_model_assets"
_XLA = "XlaCallModule"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")

Nodes = Mapping[str, node_def_pb2.NodeDef]
Library = Mapping[str, function_pb2.FunctionDef]


@dataclass(frozen=True)
class MetaGraph:
    """What is run of a SavedModel.

    Attributes:
        graph: the operations and functions that the rest needs; all of them compute.
        declared: all signatures by name; the one that names the initialising operation is among them.
        restore: the operation that restores the variables; None if there are none.
        filename: the tensor that takes the checkpoint's prefix.
        init: the operation that initialises the model, tables above all; None without one.
        assets: files of the model by the tensor that takes their path.

    """

    graph: graph_pb2.GraphDef
    declared: Mapping[str, meta_graph_pb2.SignatureDef]
    restore: str | None
    filename: str
    init: str | None
    assets: Mapping[str, Path]

    @property
    def signatures(self) -> dict[str, meta_graph_pb2.SignatureDef]:
        """The signatures that can be asked."""
        return {name: one for name, one in self.declared.items() if name != INIT}


def read(directory: Path) -> MetaGraph:
    """Read what TensorFlow Serving would run of a SavedModel.

    Raises:
        tf.errors.OpError: in TensorFlow Serving's words, if there is no such MetaGraph; INVALID_ARGUMENT if
            the graph does more than compute.

    """
    meta = _serving(directory)
    assets = _assets(directory, meta)
    signatures = [one for name, one in meta.signature_def.items() if name != INIT]
    nodes = {node.name: node for node in meta.graph_def.node}
    library = {function.signature.name: function for function in meta.graph_def.library.function}

    asked: set[str] = set()
    for one in signatures:
        feeds = {tensor(info.name) for info in one.inputs.values()}
        asked |= _needed(nodes, [info.name for info in one.outputs.values()], feeds)
    init = _init(meta)
    initialising = _needed(nodes, [init] if init else [], ())
    _follow_paths(nodes, initialising, {tensor(name) for name in assets})
    restore = meta.saver_def.restore_op_name or None
    restoring = _needed(nodes, [restore] if restore else [], ())

    filename = meta.saver_def.filename_tensor_name
    used = _check(nodes, asked, library, own=())
    used |= _check(nodes, initialising, library, own=[tensor(name) for name in assets])
    used |= _check(nodes, restoring, library, own=[tensor(filename)])
    if not _reads(nodes, restoring, library):
        restore, restoring = None, set()

    kept = asked | initialising | restoring
    _prune(meta.graph_def, kept, used)
    _add_inputs(meta.graph_def, kept, signatures)
    return MetaGraph(
        meta.graph_def,
        dict(meta.signature_def),
        restore,
        filename,
        init,
        {name: path for name, path in assets.items() if _operation(name) in kept},
    )


def tensor(name: str) -> str:
    """Return a tensor's name with the index of its output; a control input stays what it is."""
    return name if ":" in name or name.startswith("^") else f"{name}:0"


def _operation(name: str) -> str:
    return name.removeprefix("^").partition(":")[0]


def _serving(directory: Path) -> meta_graph_pb2.MetaGraphDef:
    file = directory / SAVED_MODEL
    if not file.is_file():
        raise tf.errors.NotFoundError(
            None,
            None,
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {directory}. "
            "Check that the directory exists and that you have the right permissions for accessing it.",
        )
    try:
        saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except DecodeError as exc:
        raise tf.errors.DataLossError(None, None, f"Can't parse {file} as binary proto") from exc
    for meta in saved.meta_graphs:
        if set(meta.meta_info_def.tags) == TAGS:
            return meta
    raise tf.errors.NotFoundError(
        None,
        None,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(TAGS)} }}. To inspect available "
        "tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`",
    )


def _assets(directory: Path, meta: meta_graph_pb2.MetaGraphDef) -> dict[str, Path]:
    """Return the model's own files by the tensor that takes their path."""
    declared = list(meta.asset_file_def)
    if not declared:
        for packed in meta.collection_def[_ASSETS].any_list.value if _ASSETS in meta.collection_def else ():
            asset = meta_graph_pb2.AssetFileDef()
            packed.Unpack(asset)
            declared.append(asset)
    folder = (directory / "assets").resolve()
    found = {}
    for asset in declared:
        path = (folder / asset.filename).resolve()
        if not path.is_relative_to(folder):
            raise _refused(f"the asset {asset.filename!r} is not in the model's folder")
        found[asset.tensor_info.name] = path
    return found


def _init(meta: meta_graph_pb2.MetaGraphDef) -> str | None:
    outputs = meta.signature_def[INIT].outputs if INIT in meta.signature_def else {}
    if INIT in outputs:
        return _operation(outputs[INIT].name)
    for key in _INIT_COLLECTIONS:
        names = meta.collection_def[key].node_list.value if key in meta.collection_def else ()
        if names:
            return _operation(names[0])
    return None


def _needed(nodes: Nodes, fetches: Iterable[str], feeds: Collection[str]) -> set[str]:
    """Return the operations that `fetches` need, given `feeds` (both names of tensors or operations)."""
    needed: set[str] = set()
    waiting = [name for name in fetches if tensor(name) not in feeds]
    while waiting:
        node = nodes.get(_operation(waiting.pop()))
        if node is not None and node.name not in needed:
            needed.add(node.name)
            waiting.extend(source for source in node.input if tensor(source) not in feeds)
    return needed


def _follow_paths(nodes: Nodes, names: Collection[str], paths: Collection[str]) -> None:
    """Let what reads a variable that is given an asset's path have the path itself.

    Keras keeps paths in such variables; what else may have been written there must not be opened.
    """
    kept = {}
    for node in (nodes[name] for name in names):
        if node.op == "AssignVariableOp" and tensor(node.input[1]) in paths:
            kept[_operation(node.input[0])] = node.input[1]
    for node in (nodes[name] for name in names):
        if node.op == "ReadVariableOp" and _operation(node.input[0]) in kept:
            node.op = "Identity"
            node.input[0] = kept[_operation(node.input[0])]
            node.attr["T"].type = node.attr.pop("dtype").type


def _check(nodes: Nodes, names: Collection[str], library: Library, *, own: Collection[str]) -> set[str]:
    """See that these operations, and the functions they call, only compute; return those functions.

    Args:
        nodes: the graph's.
        names: names of the operations.
        library: the graph's functions.
        own: tensors that take the paths of the model's own files, which alone may be read.

    """
    body = [nodes[name] for name in names]
    functions = _functions(body, library)
    called = [node for name in functions for node in library[name].node_def]
    allowed = COMPUTING | READERS.keys() | library.keys()
    strange = {node.op for node in (*body, *called) if node.op not in allowed and not _logs(node)}
    if strange:
        raise _not_allowed(strange)
    _check_reads(body, library, frozenset(own))
    return functions


def _logs(node: node_def_pb2.NodeDef) -> bool:
    """Whether an operation prints, and not into a file; without a word it prints to stderr."""
    stream = node.attr["output_stream"].s if "output_stream" in node.attr else b"stderr"
    return node.op == "PrintV2" and stream in LOG_STREAMS


def _not_allowed(operations: Collection[str]) -> tf.errors.OpError:
    if _XLA in operations:
        return _refused(
            f"its graph has {_XLA}, a program for XLA as JAX exports it, which cannot be looked into: export "
            "the model as ONNX"
        )
    foreign = sorted(name for name in operations if not hasattr(tf.raw_ops, name))
    if foreign:
        return _refused(
            f"its graph has {', '.join(foreign[:5])}, which TensorFlow itself does not have: operations of "
            "other libraries are not taken"
        )
    return _refused(
        f"its graph has {', '.join(sorted(operations)[:5])}: a model may compute, and not touch files, "
        "talk or run other programs"
    )


def _functions(nodes: Iterable[node_def_pb2.NodeDef], library: Library) -> set[str]:
    """Return the names of all functions that operations call, and those that these call."""
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        for name in _called(waiting.pop(), library):
            if name not in found:
                found.add(name)
                waiting.extend(library[name].node_def)
    return found


def _called(node: node_def_pb2.NodeDef, library: Library) -> list[str]:
    """Return the functions that an operation calls itself: by its type, or by an attribute."""
    names = (node.op, *(name for value in node.attr.values() for name in _named(value)))
    return [name for name in names if name in library]


def _named(value: attr_value_pb2.AttrValue) -> Iterator[str]:
    """Yield the names of functions in an attribute."""
    for function in (value.func, *value.list.func):
        if function.name:
            yield function.name
            for inner in function.attr.values():
                yield from _named(inner)


def _reads(nodes: Nodes, names: Iterable[str], library: Library) -> bool:
    body = [nodes[name] for name in names]
    called = (node for name in _functions(body, library) for node in library[name].node_def)
    return any(node.op in READERS for node in (*body, *called))


def _check_reads(nodes: Iterable[node_def_pb2.NodeDef], library: Library, own: frozenset[str]) -> None:
    """See that only files whose path is in a tensor of `own` are read, by the functions called too."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(list(nodes), own)]
    while waiting:
        body, paths = waiting.pop()
        by_name = {node.name: node for node in body}
        for node in body:
            place = READERS.get(node.op)
            if place is not None and not _is_path(next(iter(node.input[place:]), ""), by_name, paths):
                raise _refused(f"its graph has {node.op} of a file that is not its own")
            for name in _called(node, library):
                passed = frozenset(
                    f"{argument.name}:0"
                    for argument, source in _arguments(node, library[name])
                    if _is_path(source, by_name, paths)
                )
                if (name, passed) not in seen:
                    seen.add((name, passed))
                    waiting.append((list(library[name].node_def), passed))


def _is_path(source: str, nodes: Nodes, paths: frozenset[str]) -> bool:
    """Whether a tensor is one of `paths`, as it is or through identities."""
    for _ in range(len(nodes) + 1):
        if tensor(source) in paths:
            return True
        node = nodes.get(_operation(source))
        if node is None or node.op != "Identity" or not node.input:
            return False
        source = node.input[0]
    return False


def _arguments(
    node: node_def_pb2.NodeDef, function: function_pb2.FunctionDef
) -> Iterator[tuple[op_def_pb2.OpDef.ArgDef, str]]:
    """Yield a function's arguments with the tensors that a plain call of it passes."""
    arguments = function.signature.input_arg
    is_plain = node.op in {*_CALLS, function.signature.name}
    if is_plain and not any(one.number_attr or one.type_list_attr for one in arguments):
        yield from zip(arguments, node.input, strict=False)


def _prune(graph: graph_pb2.GraphDef, kept: Collection[str], functions: Collection[str]) -> None:
    """Leave of a graph what is needed. It runs on one CPU: devices and colocations say nothing."""
    for index in range(len(graph.node) - 1, -1, -1):
        if graph.node[index].name not in kept:
            del graph.node[index]
    for index in range(len(graph.library.function) - 1, -1, -1):
        if graph.library.function[index].signature.name not in functions:
            del graph.library.function[index]
    del graph.library.gradient[:]
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            node.device = ""
            node.attr.pop("_class", None)


def _add_inputs(
    graph: graph_pb2.GraphDef,
    kept: Collection[str],
    signatures: Iterable[meta_graph_pb2.SignatureDef],
) -> None:
    """Give each input of a signature a placeholder, if its tensor is not part of the graph.

    A training graph's inputs may be the outputs of a pipeline, which a request takes the place of.
    """
    renamed: dict[str, str] = {}
    for one in signatures:
        for info in one.inputs.values():
            name = tensor(info.name)
            if _operation(name) in kept or not info.name:
                continue
            if name not in renamed:
                node = graph.node.add(name=name.replace(":0", "").replace(":", "_output_"), op="Placeholder")
                node.attr["dtype"].type = info.dtype
                renamed[name] = f"{node.name}:0"
            info.name = renamed[name]
    for node in graph.node:
        for index, source in enumerate(node.input):
            if tensor(source) in renamed:
                node.input[index] = renamed[tensor(source)]


def _refused(why: str) -> tf.errors.OpError:
    return tf.errors.InvalidArgumentError(None, None, why)
