"""What becomes of transposes: moved behind gathers, joined with one another, read by products as their factors were.

Sources: onnxruntime/core/optimizer/transpose_optimization (a part: a transpose moves on where another one follows it, and two in a row are
one) and matmul_transpose_fusion.cc (``transA``, ``transBatchA`` and their like: the last two dims turned around, the first dim moved in
front of the last one).
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.runtimes.onnxruntime.lowering.nodes import Net, Node, Value, like

Perm = tuple[int, ...]


LEADING = frozenset({"Squeeze", "Mul", "Add", "Softmax", "MatMul", "Slice", "Gather"})
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
    """A product reads a factor as it was before its transposes, where it can turn it around itself."""
    for node in net.order():
        if node.op not in ("MatMul", "FusedMatMul"):
            continue
        for slot, value in enumerate(list(node.inputs)):
            if value is None:
                continue
            perm, source, chain = _behind(value)
            if not chain or not _is_read(perm):
                continue
            shape = [0] * len(perm)
            for to, where in enumerate(perm):
                shape[where] = value.shape[to]
            if len(source.shape) != len(shape):
                flat = like(source, f"{value.name}.view", tuple(shape))
                net.add("Reshape", [source, Value("", (len(shape),), "int64", "constant")], [flat], node.layer)
                source = flat
            net.read(node, slot, source)
            for gone in chain:
                net.remove(gone)
            node.op = "FusedMatMul"


def _behind(value: Value) -> tuple[Perm, Value, list[Node]]:
    """The transposes that alone lead to a value, as one, over reshapes that only put dims of one in front; what they begin with."""
    perm: Perm = tuple(range(len(value.shape)))
    chain: list[Node] = []
    found = value
    while found.maker is not None and found.uses == 1:
        node = found.maker
        if node.op == "Transpose":
            inner = node.attributes["perm"]
            if len(inner) < len(perm):  # the dims of one stay in front of all but the first
                inner = _with_ones(inner, len(perm) - len(inner))
            perm = tuple(inner[p] for p in perm)
        elif node.op == "Reshape" and _puts_ones_in_front(node):
            pass
        else:
            break
        chain.append(node)
        found = node.source
    while chain and chain[-1].op != "Transpose":
        found = chain.pop().result
    return perm, found, chain


def _with_ones(perm: Sequence[int], ones: int) -> Perm:
    """A transpose of fewer dims, with dims of one in front of its result that lie behind the first dim of its source."""
    places = [p if p == 0 else p + ones for p in perm]
    return (*range(1, 1 + ones), *places)


def _puts_ones_in_front(node: Node) -> bool:
    more = len(node.result.shape) - len(node.source.shape)
    return more > 0 and node.result.shape[:more] == (1,) * more and node.result.shape[more:] == node.source.shape


def _is_read(perm: Perm) -> bool:
    """Whether a product can read through it: the last two turned around, the first moved in front of the last, or both."""
    rank = len(perm)
    behind = (*range(1, rank - 1), 0, rank - 1)
    turned = [(*p[:-2], p[-1], p[-2]) for p in (tuple(range(rank)), behind)]
    return perm in (*turned, behind)
