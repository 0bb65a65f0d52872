"""Which outputs of a signature depend on the request, and which are always the same.

Only an output that no request input reaches (a list of class names, say) may be handed whole to each
caller of a shared batch. The answer is cautious: where the graph cannot be followed (control flow, an
unknown op), an output counts as dependent.
"""

from collections.abc import Iterable, Mapping

from model_server.servable import batch_first
from model_server.stubs import function_pb2, graph_pb2, meta_graph_pb2, node_def_pb2

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
MAX_DEPTH = 50

Library = Mapping[str, function_pb2.FunctionDef]


def untouched(graph: graph_pb2.GraphDef, feeds: Iterable[str], fetches: Iterable[str]) -> frozenset[str]:
    """Return those of `fetches` that none of `feeds` can influence (both are tensor names, `node:index`)."""
    library = {function.signature.name: function for function in graph.library.function}
    dirty = {feed.partition(":")[0] for feed in feeds}
    _spread(graph.node, dirty, library, 0)
    return frozenset(fetch for fetch in fetches if not _is_dirty(fetch, dirty))


def whole_outputs(definition: meta_graph_pb2.SignatureDef, graph: graph_pb2.GraphDef) -> frozenset[str]:
    """Return a signature's outputs of fixed size that no input reaches."""
    feeds = [info.name for info in definition.inputs.values()]
    constant = untouched(graph, feeds, [info.name for info in definition.outputs.values()])
    return frozenset(
        alias for alias, info in definition.outputs.items() if info.name in constant and not batch_first(info)
    )


def batchable(definition: meta_graph_pb2.SignatureDef, whole: frozenset[str]) -> bool:
    """Whether requests to a signature may be joined, by what it declares; `whole` are its whole outputs."""
    return (
        bool(definition.inputs)
        and all(batch_first(info) for info in definition.inputs.values())
        and all(batch_first(info) for alias, info in definition.outputs.items() if alias not in whole)
        and len(whole) < len(definition.outputs)
    )


def _spread(nodes: Iterable[node_def_pb2.NodeDef], dirty: set[str], library: Library, depth: int) -> None:
    """Add to `dirty` every node that depends on one that is dirty; of a call, only the outputs that do."""
    for node in _in_order(nodes):
        inputs = [_is_dirty(source, dirty) for source in node.input]
        if not any(inputs):
            continue
        controlled = any(
            reached and source.startswith("^") for source, reached in zip(node.input, inputs, strict=True)
        )
        function = library.get(node.attr["f"].func.name) if node.op in _CALLS else None
        if function is None or controlled or depth > MAX_DEPTH:
            dirty.add(node.name)
        else:
            arguments = frozenset(index for index, reached in enumerate(inputs) if reached)
            dirty.add(f"^{node.name}")
            dirty.update(f"{node.name}#{index}" for index in _results(function, arguments, library, depth))


def _results(
    function: function_pb2.FunctionDef, arguments: frozenset[int], library: Library, depth: int
) -> frozenset[int]:
    """Indices of the results of `function` that the given arguments may influence."""
    dirty = {arg.name for index, arg in enumerate(function.signature.input_arg) if index in arguments}
    _spread(function.node_def, dirty, library, depth + 1)
    return frozenset(
        index
        for index, arg in enumerate(function.signature.output_arg)
        if _is_dirty(function.ret[arg.name], dirty)
    )


def _is_dirty(source: str, dirty: set[str]) -> bool:
    """`source` is an argument's name, `node`, `node:index`, `node:output:index`, or `^node`."""
    node, _, rest = source.removeprefix("^").partition(":")
    if node in dirty or (source.startswith("^") and f"^{node}" in dirty):
        return True
    index = rest.rpartition(":")[2] or "0"
    return f"{node}#{index}" in dirty


def _in_order(nodes: Iterable[node_def_pb2.NodeDef]) -> list[node_def_pb2.NodeDef]:
    """Sort the nodes so that each comes after its inputs (a loop, which v2 has not, keeps its order)."""
    by_name = {node.name: node for node in nodes}
    ordered: dict[str, node_def_pb2.NodeDef] = {}
    entered: set[str] = set()
    for start in by_name:
        stack = [start]
        while stack:
            name = stack[-1]
            waiting = [
                source
                for source in (text.removeprefix("^").partition(":")[0] for text in by_name[name].input)
                if source in by_name and source not in ordered and source not in entered
            ]
            entered.add(name)
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            ordered.setdefault(name, by_name[name])
    return list(ordered.values())
