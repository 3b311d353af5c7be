"""What TensorFlow's graph optimizers make of a net before it runs: nothing that nobody needs, sums put together, convolutions with what
follows them in one kernel.

Source: tensorflow/core/grappler/optimizers (arithmetic_optimizer, remapper) and tensorflow/core/common_runtime/mkl_layout_pass.cc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import prod

from memest.runtimes.tensorflow.kernels import ASSIGNING
from memest.runtimes.tensorflow.nodes import Net, Node, Value, needed, node_of, readers

COMMUTATIVE = frozenset({"AddV2", "AddN", "Mul", "Maximum", "Minimum", "SquaredDifference"})
MONOTONIC = frozenset({"Relu", "Relu6", "Sigmoid", "Tanh"})
POOLS = frozenset({"MaxPool", "MaxPool3D"})
STATEFUL = frozenset({"ReadVariableOp", *ASSIGNING})
FUSED_2D = frozenset({"Relu", "Relu6", "Elu", "LeakyRelu"})
COMPOSED = frozenset({
    "Elu", "Exp", "Log1p", "Neg", "Reciprocal", "Relu", "Relu6", "Rsqrt", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Square",
    "Tanh",
})  # fmt: skip

Nodes = dict[str, Node]


def optimized(net: Net, onednn: bool) -> list[Node]:
    """The nodes that run, in an order that they can run in."""
    nodes = {node.name: node for node in needed(net)}
    for rewrite in (
        _once,
        _pool_before_activation,
        _sum_together,
        _fusing(onednn),
        _bias_with_filter(onednn),
        _pads_inside(onednn),
        _workspaces(onednn),
        _swish(onednn),
        _composed,
        _in_order_of_names,
    ):
        nodes = rewrite(nodes, frozenset(map(node_of, net.fetched)))
    return sorted_topologically(nodes)


def sorted_topologically(nodes: Nodes) -> list[Node]:
    """Each node after those that it needs, otherwise as they stand."""
    placed: dict[str, Node] = {}
    for start in nodes:
        stack = [(start, False)]
        while stack:
            name, ready = stack.pop()
            if name in placed or name not in nodes:
                continue
            if ready:
                placed[name] = nodes[name]
                continue
            stack.append((name, True))
            node = nodes[name]
            stack += [(n, False) for n in reversed([*map(node_of, node.inputs), *node.after]) if n not in placed]
    return list(placed.values())


def _only_reader(nodes: Nodes, read: dict[str, list[str]], node: Node, kept: frozenset[str]) -> Node | None:
    found = read.get(node.outputs[0].name, [])
    return nodes[found[0]] if len(found) == 1 and node.name not in kept else None


def _renamed(node: Node, names: dict[str, str]) -> Node:
    inputs = tuple([names.get(i, i) for i in node.inputs])
    after = tuple([names.get(a, a) for a in node.after])
    return node if (inputs, after) == (node.inputs, node.after) else replace(node, inputs=inputs, after=after)


def _once(nodes: Nodes, kept: frozenset[str]) -> Nodes:
    """What is computed twice of the same is computed once."""
    made: Nodes = {}
    names: dict[str, str] = {}
    known: dict[object, Node] = {}
    for node in nodes.values():
        node = _renamed(node, names)
        if node.op in STATEFUL:
            made[node.name] = node
            continue
        inputs = tuple(sorted(node.inputs)) if node.op in COMMUTATIVE else node.inputs
        shapes = tuple([(v.shape, v.dtype) for v in node.outputs])
        key = (node.op, inputs, node.after, shapes, tuple(sorted((k, str(v)) for k, v in node.attributes.items())))
        first = known.setdefault(key, node)
        if first is node:
            made[node.name] = node
        else:
            names.update(zip([v.name for v in node.outputs], [v.name for v in first.outputs], strict=True))
            made[first.name] = replace(made[first.name], merged=(*made[first.name].merged, node.name))
    return made


def _pool_before_activation(nodes: Nodes, kept: frozenset[str]) -> Nodes:
    """An activation that grows with its input, read by a pool alone, is applied to what is pooled."""
    read, made, names = readers(nodes), dict(nodes), {}
    for node in nodes.values():
        pool = _only_reader(nodes, read, node, kept) if node.op in MONOTONIC else None
        if pool is not None and pool.op in POOLS:
            made[pool.name] = replace(pool, inputs=node.inputs)
            made[node.name] = replace(node, inputs=(pool.name,), outputs=(pool.outputs[0]._replace(name=node.name),))
            names[pool.outputs[0].name] = node.name
    turned = {pool for name, pool in ((n, node_of(made[n].inputs[0])) for n in names.values())}
    return {n: node if node.name in names.values() else _renamed(node, names) for n, node in made.items()} if turned else made


def _sum_together(nodes: Nodes, kept: frozenset[str]) -> Nodes:
    """A sum whose summands are sums that nobody else reads: what is of one shape is added first, then the smaller to the larger."""
    read, made = readers(nodes), dict(nodes)
    absorbed: set[str] = set()
    for root in reversed(list(nodes.values())):
        if root.op != "AddV2" or root.name in absorbed or len(root.inputs) < 2:
            continue
        leaves: list[str] = []
        inner: list[str] = []
        _collect(nodes, read, root, kept, leaves, inner)
        if inner:
            absorbed.update(inner)
            for name in inner:
                made.pop(name)
            made = _replaced(made, root, _sums(nodes, root, leaves))
    return made


def _collect(nodes: Nodes, read: dict[str, list[str]], node: Node, kept: frozenset[str], leaves: list[str], inner: list[str]) -> None:
    for name in node.inputs:
        other = nodes.get(name)
        if other is not None and other.op == "AddV2" and len(other.inputs) == 2 and _only_reader(nodes, read, other, kept) is not None:
            inner.append(other.name)
            _collect(nodes, read, other, kept, leaves, inner)
        else:
            leaves.append(name)


def _sums(nodes: Nodes, root: Node, leaves: list[str]) -> list[Node]:
    known = {v.name: v for n in nodes.values() for v in n.outputs}
    groups: dict[tuple[int, ...], list[Value]] = {}
    for name in leaves:
        groups.setdefault(known[name].shape, []).append(known[name])
    ordered = sorted(groups.items(), key=lambda g: (g[1][0].nbytes, len(g[0])))
    scope, _, last_name = root.name.rpartition("/")
    prefix = f"{scope}/ArithmeticOptimizer/AddOpsRewrite" if scope else "ArithmeticOptimizer/AddOpsRewrite"
    if len(ordered) == 1:
        name = f"{prefix}_{last_name}"
        return [replace(root, name=name, op="AddN", inputs=tuple(leaves), outputs=(root.outputs[0]._replace(name=name),))]
    made: list[Node] = []
    partial: list[Value] = []
    for n, (shape, values) in enumerate(ordered):
        if len(values) == 1:
            partial.append(values[0])
            continue
        name = f"{prefix}_Leaf_{n}_{last_name}"
        total = Value(name, shape, values[0].dtype)
        made.append(replace(root, name=name, op="AddN", inputs=tuple([v.name for v in values]), outputs=(total,)))
        partial.append(total)
    while len(partial) > 1:
        last = len(partial) == 2
        name = f"{prefix}_{last_name}" if last else f"{prefix}_Internal_{len(partial)}_{last_name}"
        total = Value(name, root.outputs[0].shape if last else partial[1].shape, partial[1].dtype)
        made.append(replace(root, name=name, inputs=(partial[0].name, partial[1].name), outputs=(total,)))
        partial = [total, *partial[2:]]
    return made


def _replaced(nodes: Nodes, old: Node, new: list[Node]) -> Nodes:
    made: Nodes = {}
    names = {old.outputs[0].name: new[-1].name}
    for name, node in nodes.items():
        if name == old.name:
            made.update((n.name, n) for n in new)
        else:
            made[name] = _renamed(node, names)
    return made


def _fusing(onednn: bool) -> Callable[[Nodes, frozenset[str]], Nodes]:
    """Convolutions and products with the bias and the activation that follow, under the name of the last."""
    biased = {"Conv2D": "_FusedConv2D", "MatMul": "_FusedMatMul"}
    if onednn:
        biased |= {"Conv3D": "_FusedConv3D", "DepthwiseConv2dNative": "_FusedDepthwiseConv2dNative"}

    def fuse(nodes: Nodes, kept: frozenset[str]) -> Nodes:
        read, made = readers(nodes), dict(nodes)

        def follower(node: Node) -> Node | None:
            found = _only_reader(nodes, read, node, kept)
            return found if found is not None and made.get(found.name) is found else None

        def biased_by(node: Node) -> Node | None:
            found = follower(node) if node.op in biased else None
            takes = found is not None and found.op in _adds(onednn) and len(found.inputs) == 2 and node.outputs[0].name in found.inputs
            return found if takes else None

        for node in nodes.values():
            last = biased_by(node)
            if last is None:
                continue
            chain, inputs = [node, last], [*node.inputs, next(i for i in last.inputs if i != node.outputs[0].name)]
            added = follower(last) if onednn and last.op == "BiasAdd" and node.op in ADDED_TO else None
            if added is not None and added.op == "AddV2" and _adds_alike(nodes, added) and _first_summand(nodes, added, biased_by) is last:
                inputs.append(next(i for i in added.inputs if i != last.outputs[0].name))
                chain.append(added)
            active = follower(chain[-1])
            if active is not None and active.op in _activations(node.op, onednn):
                chain.append(active)
            for gone in chain[:-1]:
                made.pop(gone.name)
            parts = ["BiasAdd", *("Add" if n.op == "AddV2" else n.op for n in chain[2:])]
            attributes = {**node.attributes, "fused": parts}
            made[chain[-1].name] = replace(chain[-1], op=biased[node.op], inputs=tuple(inputs), after=node.after, attributes=attributes)
        return made

    return fuse


ADDED_TO = frozenset({"Conv2D", "Conv3D", "MatMul"})
"""With oneDNN their kernels add what they give to another tensor, over which they write."""


def _adds_alike(nodes: Nodes, node: Node) -> bool:
    """Whether a sum is of two tensors of one shape."""
    known = {v.name: v.shape for n in nodes.values() for v in n.outputs}
    return len(set(node.inputs)) == 2 and all(known.get(i) == node.outputs[0].shape for i in node.inputs)


def _first_summand(nodes: Nodes, node: Node, biased_by: Callable[[Node], Node | None]) -> Node | None:
    """Of two summands the first that is a convolution with its bias."""
    for name in node.inputs:
        bias = nodes.get(name)
        if bias is not None and any(i in nodes and nodes[i].op in ADDED_TO and biased_by(nodes[i]) is bias for i in bias.inputs):
            return bias
    return None


def _adds(onednn: bool) -> Iterable[str]:
    return ("BiasAdd", "AddV2") if onednn else ("BiasAdd",)


def _activations(op: str, onednn: bool) -> frozenset[str]:
    if op == "MatMul":
        return frozenset({"Relu", "Relu6", "Elu", "Tanh", "Sigmoid", "LeakyRelu"}) if onednn else FUSED_2D
    return FUSED_2D


def _bias_with_filter(onednn: bool) -> Callable[[Nodes, frozenset[str]], Nodes]:
    """oneDNN's filter gradient of a convolution in two dims gives the bias's as well."""

    def join(nodes: Nodes, kept: frozenset[str]) -> Nodes:
        if not onednn:
            return nodes
        filters = {n.inputs[1]: n for n in nodes.values() if n.op == "Conv2DBackpropFilter"}
        made, names = dict(nodes), {}
        for node in nodes.values():
            by_filter = filters.get(node.inputs[0]) if node.op == "BiasAddGrad" else None
            if by_filter is not None:
                second = node.outputs[0]._replace(name=f"{by_filter.name}:1")
                made[by_filter.name] = replace(by_filter, op="Conv2DBackpropFilterWithBias", outputs=(by_filter.outputs[0], second))
                made.pop(node.name)
                names[node.outputs[0].name] = second.name
        return {n: _renamed(node, names) for n, node in made.items()}

    return join


def _pads_inside(onednn: bool) -> Callable[[Nodes, frozenset[str]], Nodes]:
    """oneDNN's convolutions in two dims pad by themselves what they alone read."""

    def join(nodes: Nodes, kept: frozenset[str]) -> Nodes:
        if not onednn:
            return nodes
        read, made = readers(nodes), dict(nodes)
        for node in nodes.values():
            reader = _only_reader(nodes, read, node, kept) if node.op == "Pad" else None
            if reader is not None and reader.op in ("Conv2D", "_FusedConv2D"):
                made.pop(node.name)
                made[reader.name] = replace(made[reader.name], inputs=(node.inputs[0], *reader.inputs[1:]))
        return made

    return join


def _swish(onednn: bool) -> Callable[[Nodes, frozenset[str]], Nodes]:
    """oneDNN multiplies a value by its own sigmoid in one kernel."""

    def join(nodes: Nodes, kept: frozenset[str]) -> Nodes:
        if not onednn:
            return nodes
        read, made = readers(nodes), dict(nodes)
        for node in nodes.values():
            product = _only_reader(nodes, read, node, kept) if node.op == "Sigmoid" else None
            if product is not None and product.attributes.get("silu"):
                made.pop(node.name)
                made[product.name] = replace(product, op="_MklSwish", inputs=node.inputs)
        return made

    return join


def _workspaces(onednn: bool) -> Callable[[Nodes, frozenset[str]], Nodes]:
    """oneDNN's max pooling gives a second output, a byte for each element, which its gradient reads."""

    def add(nodes: Nodes, kept: frozenset[str]) -> Nodes:
        if not onednn:
            return nodes
        made = dict(nodes)
        for node in nodes.values():
            if node.op in POOLS:
                second = Value(f"{node.name}:1", (prod(node.outputs[0].shape),), "uint8")
                made[node.name] = replace(node, outputs=(node.outputs[0], second))
            elif node.op in ("MaxPoolGrad", "MaxPool3DGrad"):
                made[node.name] = replace(node, inputs=(*node.inputs, f"{node_of(node.inputs[1])}:1"))
        return made

    return add


def _composed(nodes: Nodes, kept: frozenset[str]) -> Nodes:
    """Functions of one tensor whose result the next alone reads are one kernel, named after the last."""
    read, made = readers(nodes), dict(nodes)
    for node in nodes.values():
        if node.op not in COMPOSED or node.name not in made or len(node.inputs) != 1:
            continue
        chain = [node]
        while (
            (following := _only_reader(nodes, read, chain[-1], kept)) is not None
            and following.op in COMPOSED
            and len(following.inputs) == 1
        ):
            chain.append(following)
        if len(chain) > 1:
            for inner in chain:
                made.pop(inner.name)
            name = f"{chain[-1].name}/unary_ops_composition"
            output = chain[-1].outputs[0]._replace(name=name)
            made[name] = replace(chain[-1], name=name, op="_UnaryOpsComposition", inputs=node.inputs, outputs=(output,))
            names = {chain[-1].name: name}
            made = {n: _renamed(v, names) for n, v in made.items()}
    return made


def _composes(node: Node) -> bool:
    return node.op in COMPOSED and len(node.inputs) == 1 and not node.after


def _in_order_of_names(nodes: Nodes, kept: frozenset[str]) -> Nodes:
    """Where the order of inputs does not matter it is that of their names."""
    return {n: replace(v, inputs=tuple(sorted(v.inputs))) if v.op in COMMUTATIVE else v for n, v in nodes.items()}
