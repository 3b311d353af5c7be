"""What becomes of transposes: moved behind gathers, joined with one another, read by products as their factors were.

Sources: onnxruntime/core/optimizer/transpose_optimization (a part: a transpose moves on where another one follows it, and two in a row are
one) and matmul_transpose_fusion.cc (``transA``, ``transBatchA`` and their like: the last two dims turned around, the first dim moved in
front of the last one).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from memest.network.tensor import Shape, contiguous_strides
from memest.ops.aten.views import viewed_strides
from memest.runtimes.onnxruntime.lowering.nodes import VIEWS, Net, Node, Value, like

Perm = tuple[int, ...]


LEADING = frozenset({"Squeeze", "Mul", "Add", "Softmax", "MatMul", "Einsum", "Slice", "Gather"})
FARTHEST = 8  # nodes


def moved(net: Net) -> None:
    """Transposes behind gathers of single places and slices, where another transpose follows; then joined."""
    for node in net.order():
        readers = list(dict.fromkeys(node.result.readers)) if node.op == "Transpose" else []
        parts = [n for n in readers if n.op in ("Gather", "Slice") and "axis" in n.attributes]
        if not readers or len(parts) != len(readers) or node.result.given_back or not any(_leads_to_transpose(p.result) for p in parts):
            continue
        for part in parts:
            _move(net, node, part)
        net.remove(node)
    unfolded(net)
    behind_sums(net)
    through_softmax(net)
    joined(net)


def _move(net: Net, node: Node, part: Node) -> None:
    """``part`` of what the transpose read, then transposed."""
    perm, source, result = node.attributes["perm"], node.source, part.result
    axis = perm[part.attributes["axis"]]
    if part.op == "Gather":
        rest = tuple(p - (p > axis) for p in perm if p != axis)
        shape = (*source.shape[:axis], *source.shape[axis + 1 :])
    else:
        rest = perm
        shape = (*source.shape[:axis], part.attributes["end"] - part.attributes["start"], *source.shape[axis + 1 :])
    piece = like(source, f"{result.name}.piece", shape)
    net.replace([part], part.op, [source, *part.inputs[1:]], [piece], **{**part.attributes, "axis": axis})
    net.add("Transpose", [piece], [result], part.layer, perm=rest)


def _leads_to_transpose(value: Value, far: int = 0) -> bool:
    """Whether a transpose follows, right away or behind what one can be moved through."""
    for reader in value.readers:
        if reader.op == "Transpose" or (far < FARTHEST and reader.op in LEADING and _leads_to_transpose(reader.result, far + 1)):
            return True
    return False


def behind_sums(net: Net) -> None:
    """A sum of what was transposed alike is transposed itself."""
    for node in net.order():
        makers = [v.maker for v in node.reads] if node.op == "Add" else []
        perms = {m.attributes["perm"] if m is not None and m.op == "Transpose" else None for m in makers}
        sources = [m.source for m in makers if m is not None]
        if len(makers) != 2 or len(perms) != 1 or None in perms or sources[0].shape != sources[1].shape:
            continue
        inner = like(sources[0], f"{node.result.name}.inner")
        olds = list(node.reads)
        made = net.replace([node], "Add", sources, [inner])
        net.add("Transpose", [made.result], node.outputs, node.layer, perm=perms.pop())
        for old in olds:
            forget(net, old)


def through_softmax(net: Net) -> None:
    """A softmax between a transpose and the one that undoes it is one over another dim."""
    for node in net.order():
        before, after = (node.source.maker, node.single_reader) if node.op == "Softmax" else (None, None)
        if before is None or after is None or {before.op, after.op} != {"Transpose"} or before.single_reader is not node:
            continue
        perm = before.attributes["perm"]
        if tuple(perm[p] for p in after.attributes["perm"]) == tuple(range(len(perm))):
            net.replace([before, node, after], "Softmax", [before.source], after.outputs, axis=perm[node.attributes["axis"] % len(perm)])


def unfolded(net: Net) -> None:
    """A transpose between a reshape that puts leading dims together and one that takes them apart again is one of all these dims."""
    for node in net.order():
        fold, apart = node.source.maker if node.op == "Transpose" else None, node.single_reader
        if fold is None or apart is None or fold.op != "Reshape" or apart.op != "Reshape" or fold.single_reader is not node:
            continue
        perm, more = node.attributes["perm"], len(fold.source.shape) - len(node.source.shape)
        leading = fold.source.shape[: more + 1]
        if more > 0 and perm[0] == 0 and prod(leading) == node.source.shape[0] and apart.result.shape == (*leading, *node.result.shape[1:]):
            whole = (*range(more + 1), *(p + more for p in perm[1:]))
            net.replace([fold, node, apart], "Transpose", [fold.source], apart.outputs, perm=whole)


def joined(net: Net) -> None:
    """Two in a row are one, or none."""
    for node in net.order():
        before = node.source.maker if node.op == "Transpose" else None
        if before is None or before.op != "Transpose" or before.single_reader is not node:
            continue
        perm = tuple(before.attributes["perm"][p] for p in node.attributes["perm"])
        if perm == tuple(range(len(perm))) and not node.result.given_back:
            source = before.source
            for reader in list(dict.fromkeys(node.result.readers)):
                for slot, value in enumerate(reader.inputs):
                    if value is node.result:
                        net.read(reader, slot, source)
            net.remove(node)
            net.remove(before)
        else:
            net.replace([before, node], "Transpose", [before.source], node.outputs, perm=perm)


def into_products(net: Net) -> None:
    """A product reads a factor as it was before its transposes, where it can turn it around itself: the last two dims, the first one in
    front of the last, or both."""
    for node in net.order():
        if node.op not in ("MatMul", "FusedMatMul"):
            continue
        for slot, value in enumerate(list(node.inputs)):
            rank = 0 if value is None else len(value.shape)
            behind = (*range(1, rank - 1), 0, rank - 1)
            turned = ((*range(rank - 2), rank - 1, rank - 2), behind, (*behind[:-2], behind[-1], behind[-2]))
            before = None if value is None else before_transposes(net, value, turned)
            if before is not None:
                net.read(node, slot, before)
                forget(net, value)
                node.op = "FusedMatMul"


def before_transposes(net: Net, value: Value, perms: Sequence[Perm]) -> Value | None:
    """What a value was before the transposes that lead to it alone, where they are one of these together; what is a view between them
    comes first then."""
    chain: list[Node] = []
    best, found = None, value
    while found.maker is not None and found.uses == 1 and found.maker.op in (*VIEWS, "Transpose"):
        node = found.maker
        chain.append(node)
        found = node.source
        dims = _lying(found.shape, chain[::-1], value.shape, perms) if node.op == "Transpose" else None
        best = best if dims is None else (found, dims)
    if best is None:
        return None
    source, shape = best
    if source.shape == shape:
        return source
    flat = like(source, f"{value.name}.view", shape)
    net.add("Reshape", [source, Value("", (len(shape),), "int64", "constant")], [flat], chain[0].layer)
    return flat


def forget(net: Net, value: Value | None) -> None:
    """Nodes that led to a value which nobody reads any more."""
    while value is not None and not value.uses and value.maker is not None:
        node = value.maker
        value = node.source
        net.remove(node)


def _lying(shape: Shape, chain: Sequence[Node], wanted: Shape, perms: Sequence[Perm]) -> Shape | None:
    """The dims of a tensor of a ``shape`` of which one of these transposes makes what the chain makes; None where none does."""
    strides: Shape | None = contiguous_strides(shape)
    for node in chain:
        if strides is None:
            return None
        if node.op == "Transpose":
            strides = tuple(strides[p] for p in node.attributes["perm"])
        else:
            strides = viewed_strides(node.source.shape, strides, node.result.shape)
    if strides is None:
        return None
    for perm in perms:
        dims = [0] * len(wanted)
        for to, where in enumerate(perm):
            dims[where] = wanted[to]
        lying = contiguous_strides(dims)
        fits = all(n == 1 or lying[where] == stride for n, where, stride in zip(wanted, perm, strides, strict=True))
        if fits and _is_cut(tuple(dims), shape):
            return tuple(dims)
    return None


def _is_cut(dims: Shape, shape: Shape) -> bool:
    """Whether ``dims`` are those of a shape, of which at most one is cut into several."""
    more = len(dims) - len(shape)
    if more <= 0:
        return dims == shape
    cuts = ((dims[:d], prod(dims[d : d + more + 1]), dims[d + more + 1 :]) for d in range(len(shape)))
    return any(shape == (*before, whole, *after) for before, whole, after in cuts)
