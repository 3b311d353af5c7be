"""ONNX Runtime's own rewriting before the layout is chosen: levels "basic" and "extended", in the order of its transformers.

Sources: onnxruntime/core/optimizer: pad_fusion.cc, matmul_add_fusion.cc, conv_mul_fusion.cc, conv_add_fusion.cc, gemm_activation_fusion.cc,
conv_activation_fusion.cc, quick_gelu_fusion.cc, bias_gelu_fusion.cc; functions without a kernel are inlined between the levels.
"""

from __future__ import annotations

from memest.network.tensor import numel
from memest.runtimes.onnxruntime.lowering import turning
from memest.runtimes.onnxruntime.lowering.nodes import Net, Node, Value, is_a_channel, like

WINDOWS = frozenset({"Conv", "AveragePool"})
OWN_PADS = WINDOWS | {"MaxPool"}
ACTIVATIONS = frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"})


def basic(net: Net) -> None:
    """What every level above "disabled" does."""
    drop_identities(net)
    drop_expands(net)
    pads_into_windows(net)
    turned_choices(net)
    mul_into_conv(net)
    add_to_gemm(net)
    turning.moved(net)


def inlined(net: Net) -> None:
    """Operators that are functions and have no kernel of their own, written out."""
    for node in list(net.nodes.values()):
        if node.op == "HardSwish":
            inner = like(node.source, f"{node.result.name}.inner")
            net.remove(node)
            net.add("HardSigmoid", [node.source], [inner], node.layer)
            net.add("Mul", [node.source, inner], [node.result], node.layer)
        elif node.op == "Mish":
            plus, tanh = (like(node.source, f"{node.result.name}.{n}") for n in ("plus", "tanh"))
            net.remove(node)
            net.add("Softplus", [node.source], [plus], node.layer)
            net.add("Tanh", [plus], [tanh], node.layer)
            net.add("Mul", [node.source, tanh], [node.result], node.layer)


def extended(net: Net) -> None:
    """Level "extended"."""
    activation_into(net, ("Conv",), "FusedConv")
    pieces_to_split(net)
    scaled_into_products(net)
    turning.into_products(net)
    fast_gelu(net)
    quick_gelu(net)
    scaled_into_products(net)


def drop_identities(net: Net) -> None:
    """Identities between nodes."""
    for node in list(net.nodes.values()):
        if node.op == "Identity" and not node.result.given_back:
            net.bypass(node)


def drop_expands(net: Net) -> None:
    """What expands nothing (expand_elimination.cc)."""
    for node in list(net.nodes.values()):
        if node.op == "Expand" and node.source.shape == node.result.shape and node.source.maker is not None:
            net.bypass(node)


def pads_into_windows(net: Net, *, own: bool = False) -> None:
    """Zeros around the spatial dims are put there by the convolution or average pool that alone reads them; its ``own`` pads always."""
    for node in list(net.nodes.values()):
        after = node.single_reader
        if node.op != "Pad" or after is None or after.op not in (OWN_PADS if own else WINDOWS) or after.source is not node.result:
            continue
        sides = node.attributes["sides"]
        zeros = node.attributes["zeros"] and not any(map(any, sides[:2])) and min(map(min, sides)) >= 0
        if node.attributes["own"] if own else zeros:
            after.attributes["pads"] = tuple(sum(side) + n for side, n in zip(sides[2:], after.attributes["pads"], strict=True))
            net.bypass(node)


def turned_choices(net: Net) -> None:
    """What is chosen where something does not hold is the other one where it holds (not_where_fusion.cc)."""
    for node in list(net.nodes.values()):
        readers = list(node.result.readers)
        if node.op != "Not" or node.result.given_back or any(r.op != "Where" or r.source is not node.result for r in readers):
            continue
        net.bypass(node)
        for reader in readers:
            condition, one, other = reader.inputs
            reader.inputs = [condition, other, one]


def mul_into_conv(net: Net) -> None:
    """A product with numbers, or one a channel, goes into the weights."""
    for node in net.order():
        after = node.single_reader
        if node.op != "Conv" or after is None or after.op not in ("Mul", "Add") or node.number not in net.nodes:
            continue
        others = [v for v in after.reads if v is not node.result]
        channels = node.result.shape[1]
        if len(others) != 1 or not others[0].is_weight or not _is_folded(others[0], len(node.result.shape), channels):
            continue
        if after.op == "Add" and numel(others[0].shape) != channels:
            continue
        result = after.result
        net.remove(after)
        if after.op == "Add" and (len(node.inputs) < 3 or node.inputs[2] is None):
            node.inputs = [*node.inputs[:2], None]
            net.read(node, 2, Value(others[0].name, (channels,), others[0].dtype, others[0].category))
        node.outputs[0] = result
        result.maker = node


def _is_folded(value: Value, rank: int, channels: int) -> bool:
    return numel(value.shape) == 1 or is_a_channel(value, rank, channels)


def add_to_gemm(net: Net) -> None:
    """A matrix product and its bias are one Gemm; of more dims than two, between two reshapes."""
    for node in net.order():
        if node.op != "MatMul":
            continue
        after = node.single_reader
        left, right = node.inputs
        assert left is not None and right is not None
        if after is None or after.op != "Add" or len(right.shape) != 2 or not right.is_weight:
            continue
        bias = next((v for v in after.reads if v is not node.result), None)
        if bias is None or not bias.is_weight or bias.shape not in ((right.shape[1],), (1, right.shape[1])):
            continue
        layer, result, shape = after.layer, after.result, node.result.shape
        net.remove(node)
        net.remove(after)
        if len(shape) == 2:
            net.add("Gemm", [left, right, bias], [result], layer)
            continue
        rows = numel(shape[:-1])
        flat, made = like(left, f"{result.name}.rows", (rows, left.shape[-1])), like(result, f"{result.name}.flat", (rows, shape[-1]))
        net.add("Reshape", [left, Value("", (2,), "int64", "constant")], [flat], layer)
        net.add("Gemm", [flat, right, bias], [made], layer)
        net.add("Reshape", [made, Value("", (len(shape),), "int64", "constant")], [result], layer)


def activation_into(net: Net, ops: tuple[str, ...], name: str) -> None:
    """An activation that alone reads a convolution is done by it."""
    for node in net.order():
        if node.op not in ops or node.number not in net.nodes:
            continue
        after = node.single_reader
        if after is not None and after.op in ACTIVATIONS:
            net.replace([node, after], name, node.inputs, after.outputs, **node.attributes, activation=after.op)
            continue


def hard_swish_into(net: Net) -> None:
    """A hard swish behind a convolution, whose two nodes alone read it, is done by it (for the layout in blocks alone)."""
    for node in net.order():
        swish = _hard_swish(node) if node.op == "Conv" else None
        if swish is not None:
            net.replace([node, *swish], "FusedConv", node.inputs, swish[-1].outputs, **node.attributes, activation="HardSwish")


def _hard_swish(node: Node) -> list[Node] | None:
    """The two nodes of a hard swish behind a node, where nobody else reads what is between."""
    result = node.result
    if result.given_back or len(result.readers) != 2:
        return None
    found = sorted(result.readers, key=lambda n: n.op)
    if [n.op for n in found] != ["HardSigmoid", "Mul"] or found[0].single_reader is not found[1]:
        return None
    return found


def quick_gelu(net: Net) -> None:
    """x * sigmoid(x) is one node, also where the sigmoid is of a multiple of x."""
    for node in net.order():
        if node.op != "Sigmoid" or node.number not in net.nodes:
            continue
        after, scaled, source = node.single_reader, node.source.maker, node.source
        if after is None or after.op != "Mul":
            continue
        factors = [] if scaled is None or scaled.op != "Mul" or scaled.single_reader is not node else list(scaled.reads)
        if scaled is not None and any(v.is_weight and numel(v.shape) == 1 for v in factors):
            source = next(v for v in factors if not v.is_weight)
        if source in after.inputs:
            olds = [node, after] if source is node.source or scaled is None else [scaled, node, after]
            net.replace(olds, "QuickGelu", [source], after.outputs)


def fast_gelu(net: Net) -> None:
    """x / 2 * (1 + tanh(a * (x + b * x ** 3))), written out, is one node (fast_gelu_fusion.cc)."""
    for node in net.order():
        if node.op != "Tanh" or node.number not in net.nodes:
            continue
        inner = _behind(node, "Mul", "Add", "Mul", "Pow")
        one = node.single_reader
        outer = one.single_reader if one is not None and one.op == "Add" else None
        if inner is None or one is None or outer is None or outer.op != "Mul":
            continue
        source = inner[-1].source
        half = next((v.maker for v in outer.reads if v is not one.result), None)
        if half is not None and half.op == "Mul" and half.single_reader is outer and source in half.inputs and source in inner[1].inputs:
            net.replace([*inner[::-1], node, one, half, outer], "FastGelu", [source], outer.outputs)


def _behind(node: Node, *ops: str) -> list[Node] | None:
    """The nodes that lead to a node, of these kinds, the last one first; each is read by the next alone."""
    found: list[Node] = []
    for op in ops:
        makers = [v.maker for v in node.reads if v.maker is not None and v.maker.op == op and v.maker.single_reader is node]
        if len(makers) != 1:
            return None
        node = makers[0]
        found.append(node)
    return found


def pieces_to_split(net: Net) -> None:
    """Gathers of single places and slices that share out a dim among them are one split; a gather's piece is squeezed."""
    for node in net.order():
        if node.number not in net.nodes or part_of(node) is None:
            continue
        source, axis = node.source, node.attributes["axis"]
        parts = [part_of(n) if n.attributes.get("axis") == axis else None for n in source.readers]
        found = sorted((p, n.number) for p, n in zip(parts, source.readers, strict=True) if p is not None)
        ends = [0, *(end for (_, end), _ in found)]
        if len(found) < 2 or source.given_back or ends[-1] != source.shape[axis]:
            continue
        if any(start != end for ((start, _), _), end in zip(found, ends, strict=False)):
            continue
        nodes = [net.nodes[number] for _, number in found]
        shapes = [(*source.shape[:axis], end - start, *source.shape[axis + 1 :]) for (start, end), _ in found]
        pieces = [n.result if n.op == "Slice" else like(source, f"{n.result.name}.piece", s) for n, s in zip(nodes, shapes, strict=True)]
        for n in nodes:
            net.remove(n)
        net.add("Split", [source, Value("", (len(nodes),), "int64", "constant")], pieces, node.layer, axis=axis)
        for n, piece in zip(nodes, pieces, strict=True):
            if n.op == "Gather":
                net.add("Squeeze", [piece, Value("", (1,), "int64", "constant")], n.outputs, n.layer)


def part_of(node: Node) -> tuple[int, int] | None:
    """The part of its dim that a gather of a single place, or a slice, takes; None for what is neither."""
    given = node.attributes
    if node.op == "Gather" and "index" in given:
        place = given["index"] % node.source.shape[given["axis"]]
        return place, place + 1
    return (given["start"], given["end"]) if node.op == "Slice" and "start" in given else None


def scaled_into_products(net: Net) -> None:
    """A product multiplies by a factor's scale itself."""
    for node in net.order():
        if node.op not in ("MatMul", "FusedMatMul"):
            continue
        for slot, value in enumerate(list(node.inputs)):
            before = value.maker if value is not None else None
            if value is None or before is None or before.op not in ("Mul", "Div") or value.uses != 1:
                continue
            others = [v for v in before.reads if v.is_weight and numel(v.shape) == 1]
            if len(others) == 1 and before.inputs.index(others[0]) in (1, 0 if before.op == "Mul" else 1):
                net.read(node, slot, next(v for v in before.reads if v is not others[0]))
                net.remove(before)
                node.op = "FusedMatMul"
