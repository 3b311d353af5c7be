"""Calls that move elements and compute none: views, orders of dims, parts, joints.

Source: openvino/src/common/transformations (TransposeToReshape, TransposeFuse, SharedOpOptimization …), intel_cpu/src/nodes/{reshape,
transpose,concat}.cpp.
"""

from __future__ import annotations

from typing import Any

from memest.errors import UnsupportedError
from memest.network.dtypes import FLOATING
from memest.network.graph import Layer
from memest.network.layers import ENDS
from memest.network.tensor import Shape
from memest.runtimes.openvino.lowering.translation import Translate, Translation


def _reshape(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    t.give(layer, t.reshape(b["input"], t.made(layer)))


def _permute(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    rank = len(t.shapes[b["input"]])
    t.give(layer, t.transpose(b["input"], [d % rank for d in a["dims"]]))


def _transpose(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    order = list(range(len(t.shapes[b["input"]])))
    x, y = (a["dim0"], a["dim1"]) if "dim0" in a else (0, len(order) - 1)
    order[x], order[y] = order[y], order[x]
    t.give(layer, t.transpose(b["input"], order))


def _cat(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    values, shape = b["tensors"], t.made(layer)
    t.give(layer, values[0] if len(values) == 1 else t.add("Concatenation", values, shape, f"axis {a['dim'] % len(shape)}"))


def _stack(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    shape = t.made(layer)
    dim = a["dim"] % len(shape)
    one: Shape = (*shape[:dim], 1, *shape[dim + 1 :])
    values = [t.reshape(v, one) for v in b["tensors"]]
    t.give(layer, values[0] if len(values) == 1 else t.add("Concatenation", values, shape, f"axis {dim}"))


def _pieces(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    shapes = [t.made(layer, n) for n in range(len(layer.outputs))]
    t.give(layer, *t.add_several("Split", (b["input"],), shapes, f"axis {a['dim'] % len(shapes[0])}"))


def _unbind(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    shapes = [t.made(layer, n) for n in range(len(layer.outputs))]
    dim = a["dim"] % (len(shapes[0]) + 1)
    pieces = t.add_several("Split", (b["input"],), [(*s[:dim], 1, *s[dim:]) for s in shapes], f"axis {dim}")
    t.give(layer, *[t.reshape(p, s) for p, s in zip(pieces, shapes, strict=True)])


def _slice(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    shape, before = t.made(layer), t.shapes[b["input"]]
    axis = a["dim"] % len(shape)
    end = a["start"] + a["length"] if "length" in a else a["end"]
    what = _part(axis, range(before[axis])[slice(a["start"], end, a.get("step", 1))])
    t.give(layer, b["input"] if before == shape else t.add("StridedSlice", (b["input"],), shape, what))


def _part(axis: int, places: range) -> str:
    """What a slice takes of a dim."""
    return f"part {axis} {places.start} {places.stop}" if places.step == 1 else f"places of axis {axis} {places}"


def _select(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    t.give(layer, t.add("Gather", (b["input"],), t.made(layer), f"axis {a['dim'] % len(t.shapes[b['input']])}"))


def _getitem(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """Dim by dim: parts of it, or one element. What was cut before is not cut again."""
    index: tuple[Any, ...] = a["index"]
    if index[-1:] == ("tensor",) and len(b["indices"]) == 1 and set(index[:-1]) <= {(None, None, None)} and t.is_constant(b["indices"][0]):
        t.give(layer, t.add("Gather", (b["input"], b["indices"][0]), t.made(layer), f"places of axis {len(index) - 1}"))
        return
    if b["indices"] or any(i is None or i == "tensor" for i in index):
        raise UnsupportedError("an index that is a tensor, or a new dim: no rule for it on openvino")
    value, at = b["input"], 0
    for n, i in enumerate(index):
        if i == "...":
            at = len(t.shapes[value]) - (len(index) - n - 1)
            continue
        shape = t.shapes[value]
        if isinstance(i, tuple):
            places = range(shape[at])[slice(*i)]
            if len(places) != shape[at]:
                value = t.shared("StridedSlice", value, (*shape[:at], len(places), *shape[at + 1 :]), _part(at, places))
            at += 1
        else:
            value = t.shared("Gather", value, (*shape[:at], *shape[at + 1 :]), f"axis {at}", i)
    t.give(layer, value)


def _expand(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    shape = t.made(layer)
    t.give(layer, b["input"] if t.shapes[b["input"]] == shape else t.add("Broadcast", (b["input"],), shape))


def _converted(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """Between floating types nothing: what is computed in is said once for all."""
    before, after = (t.specs[name].dtype for name in (layer.reads[0], layer.outputs[0]))
    same = before == after or {before, after} <= FLOATING
    t.give(layer, b["input"] if same else t.add("Convert", (b["input"],), t.made(layer)))


def _embedding(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    indices = t.add("Convert", (b["indices"],), t.shapes[b["indices"]], dtype="int32")
    t.give(layer, t.add("Gather", (b["weight"], indices), t.made(layer)))


def _index_select(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    index = b["index"]
    if not t.is_constant(index):
        index = t.add("Convert", (index,), t.shapes[index], dtype="int32")
    t.give(layer, t.add("Gather", (b["input"], index), t.made(layer)))


def _repeat(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    shape = t.made(layer)
    value = t.reshape(b["input"], (*[1] * (len(shape) - len(t.shapes[b["input"]])), *t.shapes[b["input"]]))
    t.give(layer, value if t.shapes[value] == shape else t.add("Tile", (value,), shape))


def _pad(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    shape = t.made(layer)
    around = a["mode"] == "constant" and not a["value"] and len(a["pad"]) <= 2 * (len(shape) - 2) and min(a["pad"]) >= 0
    what = "own" if layer.name.endswith(ENDS) else "zeros around" if around else a["mode"]
    t.give(layer, b["input"] if not any(a["pad"]) else t.add("Pad", (b["input"],), shape, what))


def _roll(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """Dim by dim: the end before the beginning."""
    shape, value = t.made(layer), b["input"]
    shifts, dims = ((v,) if isinstance(v, int) else v for v in (a["shifts"], a["dims"]))
    if not dims:
        raise UnsupportedError("roll without dims: no rule for it on openvino")
    for shift, dim in zip(shifts, dims, strict=True):
        at, last = dim % len(shape), shift % shape[dim]
        if last:
            pieces = [(*shape[:at], n, *shape[at + 1 :]) for n in (shape[at] - last, last)]
            begin, end = t.add_several("Split", (value,), pieces, f"axis {at}")
            value = t.add("Concatenation", (end, begin), shape, f"axis {at}")
    t.give(layer, value)


def _unshuffle(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """By hand: there is no such operator in ONNX in this order of elements."""
    batch, channels, height, width = t.shapes[b["input"]]
    r = a["downscale_factor"]
    apart = t.reshape(b["input"], (batch, channels, height // r, r, width // r, r))
    t.give(layer, t.reshape(t.transpose(apart, (0, 1, 3, 5, 2, 4)), t.made(layer)))


def _made_by(kind: str) -> Translate:
    def translate(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
        t.give(layer, t.add(kind, (b["input"],), t.made(layer)))

    return translate


TABLE: dict[str, Translate] = {
    **dict.fromkeys(("reshape", "view", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "unflatten", "reshape_as", "view_as"), _reshape),
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "t"), _transpose),
    "cat": _cat,
    "stack": _stack,
    **dict.fromkeys(("split", "chunk", "unsafe_split"), _pieces),
    "unbind": _unbind,
    **dict.fromkeys(("slice", "narrow"), _slice),
    "select": _select,
    "getitem": _getitem,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys(("to", "to_device", "type_as"), _converted),
    "embedding": _embedding,
    "index_select": _index_select,
    **dict.fromkeys(("repeat", "tile"), _repeat),
    "pad": _pad,
    "roll": _roll,
    "pixel_shuffle": _made_by("DepthToSpace"),
    "pixel_unshuffle": _unshuffle,
    "channel_shuffle": _made_by("ShuffleChannels"),
}
