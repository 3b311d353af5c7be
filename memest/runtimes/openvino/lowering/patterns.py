"""Chains of nodes that OpenVINO knows by another name.

Source: openvino/src/common/transformations/common_optimizations/shuffle_channels_fusion.cpp, depth_to_space_fusion.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping

from memest.network.graph import Layer
from memest.network.tensor import Shape
from memest.runtimes.openvino.rows import node, told
from memest.runtimes.rewriting import Rewriting


def find_patterns(r: Rewriting, shapes: Mapping[str, Shape]) -> None:
    """All of them."""
    for layer in r.layers:
        if layer.op == "Reshape" and layer in r:
            _channels(r, layer, shapes)


def _channels(r: Rewriting, first: Layer, shapes: Mapping[str, Shape]) -> None:
    """A view by groups, groups and channels changing places, and the view back."""
    transposed = r.follower(first, ("Transpose",))
    last = None if transposed is None else r.follower(transposed, ("Reshape",))
    if transposed is None or last is None:
        return
    source, apart = shapes[first.reads[0]], shapes[first.outputs[0]]
    order = tuple(map(int, told(transposed, "what").split(",")))
    if shapes[last.outputs[0]] != source or len(source) < 3 or len(apart) != len(source) + 1:
        return
    if apart[0] == source[0] and apart[3:] == source[2:] and order == (0, 2, 1, *range(3, len(apart))):
        r.remove(first)
        r.remove(transposed)
        r.replace(last, node(last.name, "ShuffleChannels", first.reads, (source,), outputs=last.outputs))
