"""The order in which nodes run: depth first from what the network returns, the first operand first.

Source: openvino/core/graph_util.hpp (``topological_sort``), intel_cpu/src/graph.cpp (``SortTopologically``, which goes through the nodes as
they stand and puts before each what it reads).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memest.network.graph import Layer


def depth_first(layers: Sequence[Layer], first: Iterable[Layer]) -> tuple[Layer, ...]:
    """``layers`` so that each of ``first``, in turn, stands behind all that it reads; who is not reached is left out."""
    makers = {value: layer for layer in layers for value in layer.outputs}
    found: dict[str, Layer] = {}
    for root in first:
        waiting: list[tuple[Layer, int]] = [(root, 0)]
        while waiting:
            layer, at = waiting.pop()
            if layer.name in found:
                continue
            reads = layer.reads
            while at < len(reads) and (reads[at] not in makers or makers[reads[at]].name in found):
                at += 1
            if at == len(reads):
                found[layer.name] = layer
            else:
                waiting += [(layer, at + 1), (makers[reads[at]], 0)]
    return tuple(found.values())


def from_outputs(layers: Sequence[Layer], outputs: Sequence[str]) -> tuple[Layer, ...]:
    """As the model has its nodes: from the last output to the first."""
    makers = {value: layer for layer in layers for value in layer.outputs}
    return depth_first(layers, [makers[o] for o in reversed(outputs) if o in makers])


def resorted(layers: Sequence[Layer], listed: Sequence[Layer]) -> list[Layer]:
    """``layers`` as they run: those that stood in a list in its order, each behind what it reads; the others came behind them."""
    named = {layer.name: layer for layer in layers}
    before = [layer.name for layer in listed if layer.name in named]
    return list(depth_first(layers, [named[n] for n in dict.fromkeys((*before, *named))]))
