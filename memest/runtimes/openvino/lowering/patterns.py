"""Chains of nodes that OpenVINO knows by another name.

Source: openvino/src/common/transformations/common_optimizations/shuffle_channels_fusion.cpp, nop_elimination.cpp, pad_fusion.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping

from memest.network.graph import Layer
from memest.network.tensor import Shape
from memest.runtimes.openvino.rows import node, told
from memest.runtimes.rewriting import Rewriting


def shuffled_channels(r: Rewriting, shapes: Mapping[str, Shape]) -> None:
    """Views and transpositions that shuffle channels are one node."""
    for layer in r.layers:
        if layer.op == "Reshape" and layer in r:
            _channels(r, layer, shapes)


def padded(r: Rewriting) -> None:
    """Zeros around an image go into the convolution or the average that alone reads it; a window's own are there already."""
    for layer in r.layers:
        if layer.op == "Pad" and told(layer, "what") in ("zeros around", "own"):
            reader = r.follower(layer, ("Convolution", "Pooling"))
            if reader is not None and (told(layer, "what") == "own" or told(reader, "what") != "max"):
                r.bypass(layer, layer.reads[0])


def views_around(r: Rewriting, shapes: Mapping[str, Shape]) -> None:
    """Views for the sake of a function of single elements are left out."""
    for layer in r.layers:
        if layer.op == "Reshape" and layer in r:
            _around(r, layer, shapes)


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


def _around(r: Rewriting, first: Layer, shapes: Mapping[str, Shape]) -> None:
    """A dim of 1 put in front for a function of single elements, and taken away behind it."""
    inner = r.follower(first, ("Eltwise",))
    last = None if inner is None else r.follower(inner, ("Reshape",))
    source = shapes[first.reads[0]]
    if inner is not None and last is not None and shapes[first.outputs[0]] == (1, *source) == (1, *shapes[last.outputs[0]]):
        r.remove(first)
        r.remove(inner)
        reads = (first.reads[0], *inner.reads[1:])
        r.replace(last, node(inner.name, "Eltwise", reads, (source,), what=told(inner, "what"), outputs=last.outputs))
