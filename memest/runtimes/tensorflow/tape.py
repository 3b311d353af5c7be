"""Gradients in the order in which ``tf.GradientTape`` makes them: of the operations whose outputs have all their gradients, the first so.

Source: tensorflow/c/eager/tape.h (GradientTape::ComputeGradient). Several gradients of a value are added by one AddN, when the operation
that gives it has its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from memest.runtimes.tensorflow.gradients.table import gradient_of
from memest.runtimes.tensorflow.nodes import Net, Value, node_of


def differentiate(net: Net, seeds: Mapping[str, Value], sources: Iterable[str]) -> dict[str, Value]:
    """The gradient by each variable of ``sources`` that a value of the ``seeds``, whose gradients are given, depends on; new nodes go
    behind the others."""
    wanted = frozenset(sources)
    reads, missing = _relevant(net, seeds, wanted)
    gradients = {name: [gradient] for name, gradient in seeds.items()}
    ready = deque(node_of(name) for name in seeds)
    found: dict[str, list[Value]] = {}
    net.phase = "backward"
    while ready:
        node = net.nodes[ready.popleft()]
        net.layer = node.layer
        given = [_sum(net, gradients.pop(v.name, [])) for v in node.outputs]
        if node.op == "ReadVariableOp":
            if given[0] is not None:
                found.setdefault(node.variable, []).append(given[0])
            continue
        made = gradient_of(net, node, given) if any(g is not None for g in given) else [None] * len(node.inputs)
        for n, (name, gradient) in enumerate(zip(node.inputs, made, strict=True)):
            if name not in reads or n in node.attributes.get("stops", ()):
                continue
            if gradient is not None:
                gradients.setdefault(name, []).append(gradient)
            reads[name] -= 1
            if reads[name] == 0:
                maker = node_of(name)
                missing[maker] -= 1
                if missing[maker] == 0:
                    ready.append(maker)
    return {name: total for name, several in found.items() if (total := _sum(net, several)) is not None}


def _sum(net: Net, gradients: list[Value]) -> Value | None:
    if len(gradients) < 2:
        return gradients[0] if gradients else None
    return net.op("AddN", "AddN", gradients, gradients[0].shape)


def _relevant(net: Net, seeds: Iterable[str], wanted: frozenset[str]) -> tuple[dict[str, int], dict[str, int]]:
    """How often each value on the way from a source to a seed is read there, and how many outputs of a node are so. What a node reads
    behind ``stop_gradient`` (it ``stops`` there) is on no way."""
    depends: set[str] = set()
    for node in net.nodes.values():
        if (node.variable in wanted and node.op == "ReadVariableOp") or any(node_of(i) in depends for i in node.inputs):
            depends.add(node.name)
    reads: dict[str, int] = {}
    seen: set[str] = set()
    stack = [node_of(name) for name in seeds]
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        stops = net.nodes[name].attributes.get("stops", ())
        for n, value in enumerate(net.nodes[name].inputs):
            if node_of(value) in depends and n not in stops:
                reads[value] = reads.get(value, 0) + 1
                stack.append(node_of(value))
    missing: dict[str, int] = {}
    for value in reads:
        missing[node_of(value)] = missing.get(node_of(value), 0) + 1
    return reads, missing
