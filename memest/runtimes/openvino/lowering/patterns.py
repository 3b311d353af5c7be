"""Chains of nodes that OpenVINO knows by another name.

Source: openvino/src/common/transformations/common_optimizations/shuffle_channels_fusion.cpp, nop_elimination.cpp, pad_fusion.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from memest.errors import UnsupportedError
from memest.network.graph import Layer
from memest.network.tensor import Shape, Spec
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


def broadcasts(r: Rewriting, shapes: Mapping[str, Shape]) -> None:
    """What is broadcast for a function of single elements, whose other operand has that shape, is broadcast by it
    (broadcast_elementwise_fusion.cpp)."""
    for layer in r.layers:
        readers = r.readers(layer.outputs[0]) if layer.op == "Broadcast" else ()
        if readers and not r.is_output(layer.outputs[0]) and all(_broadcasts(reader, layer, shapes) for reader in readers):
            r.bypass(layer, layer.reads[0])


def _broadcasts(reader: Layer, layer: Layer, shapes: Mapping[str, Shape]) -> bool:
    others = [name for name in reader.reads if name != layer.outputs[0]]
    return reader.op == "Eltwise" and len(others) == 1 and shapes[others[0]] == shapes[layer.outputs[0]]


def sliced_apart(r: Rewriting, shapes: Mapping[str, Shape]) -> None:
    """Slices that share out a dim among them are one Split (optimize_strided_slice.cpp, ``GroupedSliceToVSplitOptimization``)."""
    groups: dict[tuple[str, int], list[tuple[int, int, Layer]]] = {}
    order = {layer.name: n for n, layer in enumerate(r.layers)}
    for layer in r.layers:
        if layer.op == "StridedSlice" and told(layer, "what").startswith("part "):
            axis, start, end = map(int, told(layer, "what").split()[1:])
            groups.setdefault((layer.reads[0], axis), []).append((start, end, layer))
    for (value, axis), found in groups.items():
        found.sort(key=lambda part: (part[0], part[1]))
        starts, ends = [start for start, _, _ in found], [end for _, end, _ in found]
        if len(found) > 1 and starts == [0, *ends[:-1]] and ends[-1] == shapes[value][axis]:
            layers = [layer for _, _, layer in found]
            first = min(layers, key=lambda layer: order[layer.name])
            made = [layer.outputs[0] for layer in layers]
            split = node(first.name, "Split", (value,), [shapes[name] for name in made], what=f"axis {axis}", outputs=made)
            for layer in layers:
                if layer.name != first.name:
                    r.remove(layer)
            r.replace(first, split)


def joined_once(r: Rewriting) -> None:
    """What is joined only to be joined again along the same dim is joined once (concat_fusion.cpp)."""
    for layer in r.layers:
        inner = r.sole_reader(layer.outputs[0]) if layer.op == "Concatenation" else None
        if inner is not None and inner.op == "Concatenation" and told(inner, "what") == told(layer, "what"):
            reads = [n for name in inner.reads for n in (layer.reads if name == layer.outputs[0] else (name,))]
            r.remove(layer)
            r.replace(inner, replace(inner, tensors=(tuple(reads),)))


def check_rotations(r: Rewriting) -> None:
    """UnsupportedError for a rotary embedding, which the plugin has a node for (rope_fusion.cpp)."""
    for layer in r.layers:
        if layer.op != "Concatenation" or len(layer.reads) != 2:
            continue
        turned, kept = (r.maker(name) for name in layer.reads)
        source = r.maker(turned.reads[0]) if turned is not None and turned.op == "Eltwise" and len(turned.reads) == 1 else None
        if source is None or kept is None or turned is None or source.op not in ("Split", "StridedSlice"):
            continue
        if (kept.op, kept.reads) == (source.op, source.reads) and told(turned, "what") == "multiply":
            raise UnsupportedError(
                "a rotary embedding (halves of a dim joined the other way round, one negated): no rule for it on openvino"
            ).at(f"layer {layer.name!r} (cat)")


def grouped(r: Rewriting, shapes: Mapping[str, Shape]) -> None:
    """Convolutions alike of the pieces of a Split, joined again, are one in groups (split_conv_concat)."""
    for layer in r.layers:
        if layer.op == "Concatenation" and layer in r and told(layer, "what") == "axis 1":
            _grouped(r, layer, shapes)


def _grouped(r: Rewriting, joint: Layer, shapes: Mapping[str, Shape]) -> None:
    convolutions = [r.maker(name) for name in joint.reads]
    split = r.maker(convolutions[0].reads[0]) if convolutions[0] is not None else None
    if split is None or split.op != "Split" or told(split, "what") != "axis 1":
        return
    found = [c for c in convolutions if c is not None and c.op == "Convolution" and len(c.reads) == 2]
    alike = {(shapes[c.reads[0]], shapes[c.reads[1]], shapes[c.outputs[0]]) for c in found}
    if len(found) != len(joint.reads) or len(alike) != 1 or [c.reads[0] for c in found] != list(split.outputs):
        return
    if any(r.sole_reader(name) is None for name in (*split.outputs, *joint.reads)):
        return
    made = node(
        joint.name, "Convolution", (split.reads[0], *(c.reads[1] for c in found)), (shapes[joint.outputs[0]],), outputs=joint.outputs
    )
    r.replace(joint, made)
    for c in found:
        r.remove(c)
    r.remove(split)


RMS = ("mean", "add", "sqrt", "reciprocal", "mul", "mul")


def normed_by_squares(r: Rewriting, specs: Mapping[str, Spec], constants: frozenset[str]) -> None:
    """x * (mean(x ** 2) + eps) ** -1/2 * weight over the last dim, as exporters write it, is a norm without a mean (rms_fusion.cpp,
    ``RMSFusion``). These are torch's calls, before they are nodes."""
    for layer in r.layers:
        if layer.op == "pow" and dict(layer.attributes).get("exponent") == 2 and layer in r:
            _normed(r, layer, len(specs[layer.reads[0]].shape), constants)


def _normed(r: Rewriting, square: Layer, rank: int, constants: frozenset[str]) -> None:
    source, chain = square.reads[0], [square]
    for op in RMS:
        found = r.sole_reader(chain[-1].outputs[0])
        if found is None or found.op != op:
            return
        chain.append(found)
    given, scaled, last = dict(chain[1].attributes), chain[-2], chain[-1]
    weight = [name for name in last.reads if name in constants]
    last_dim = given.get("keepdim") and given.get("dim") in ((rank - 1,), (-1,))
    if not last_dim or source not in scaled.reads or len(weight) != 1 or len(last.reads) != 2:
        return
    for layer in chain[:-1]:
        r.remove(layer)
    r.replace(last, replace(last, op="rms_norm", tensors=(source, weight[0]), attributes=(("normalized_shape", (1,)),)))


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
