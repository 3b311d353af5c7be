"""How far a network sees: which inputs one position of the output depends on, from the geometry of its layers.

Position i of a value depends on the inputs from ``i * jump - left`` to ``i * jump + right`` along each spatial dim, where nothing is
padded. Convolutions, pooling and enlarging widen that reach, everything pointwise joins the reach of what it reads (the deepest path
wins). Normalisation over a sample (instance, group norm) counts as pointwise: its statistics are those of the window it sees, and a
window's result then is an approximation, as it is in nnU-Net. What reaches everywhere (global pooling, a linear layer over pixels,
attention) has no such field: UnsupportedError names the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

from memest.errors import UnsupportedError
from memest.network.graph import Graph, Layer
from memest.network.tensor import Shape
from memest.ops.operator import expand
from memest.ops.table import operator_named

CONVOLUTIONS = {f"conv{n}d": n for n in (1, 2, 3)}
TRANSPOSED = {f"conv_transpose{n}d": n for n in (1, 2, 3)}
POOLING = {f"{kind}_pool{n}d": n for kind in ("max", "avg") for n in (1, 2, 3)}
POINTWISE = frozenset(
    (
        *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "sigmoid"),
        *("tanh", "softplus", "prelu", "rrelu", "threshold", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"),
        *("feature_alpha_dropout", "batch_norm", "instance_norm", "group_norm", "add", "sub", "mul", "div", "cat", "clone", "contiguous"),
    )
)


@dataclass(frozen=True, slots=True)
class Reach:
    """Of one value along one dim."""

    jump: Fraction
    left: Fraction
    right: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceptiveField:
    """Inputs to either side that an output position depends on, one entry a spatial dim, and the coarsest step of the network: windows
    that begin at its multiples see what the whole volume would show them."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def halo(self) -> tuple[int, ...]:
        """The least multiple of the step that covers the field on both sides."""
        return tuple(ceil(max(a, b) / s) * s for a, b, s in zip(self.left, self.right, self.step, strict=True))


def receptive_field(graph: Graph) -> ReceptiveField:
    """The field of the first output; UnsupportedError names a layer whose reach is not known or has no end."""
    graph = graph if graph.inference is None else graph.inference
    dims = len(graph.inputs[0].shape) - 2
    start = (Reach(Fraction(1), Fraction(0), Fraction(0)),) * dims
    reaches: dict[str, tuple[Reach, ...]] = {i.name: start for i in graph.inputs if len(i.shape) == dims + 2}
    coarsest = [Fraction(1)] * dims
    weights = {p.name: p.shape for p in graph.parameters}
    for layer in graph.layers:
        read = [reaches[name] for name in layer.reads if name in reaches]
        if not read:
            continue
        try:
            reach = tuple(_after(layer, weights, [r[d] for r in read], d, dims) for d in range(dims))
        except UnsupportedError as e:
            raise e.at(f"layer {layer.name!r} ({layer.op})") from None
        coarsest = [max(c, r.jump) for c, r in zip(coarsest, reach, strict=True)]
        reaches.update(dict.fromkeys(layer.outputs, reach))
    found = reaches[graph.outputs[0]]
    if any(r.jump != 1 for r in found):
        raise UnsupportedError(f"{graph.name}: the output is not of the input's size; windows cannot be joined")
    return ReceptiveField(
        left=tuple(ceil(r.left) for r in found), right=tuple(ceil(r.right) for r in found), step=tuple(ceil(c) for c in coarsest)
    )


def _after(layer: Layer, weights: Mapping[str, Shape], read: list[Reach], d: int, dims: int) -> Reach:
    """The reach of a layer's output along dim ``d``."""
    known: Mapping[str, Any] = operator_named(layer.op).canonical(dict(layer.attributes))
    before = read[0]
    if layer.op in POINTWISE:
        if len({r.jump for r in read}) > 1:
            raise UnsupportedError("joins values of different steps; give a halo")
        return Reach(before.jump, max(r.left for r in read), max(r.right for r in read))
    if layer.op in POOLING:
        kernel = expand(known["kernel_size"], dims)
        stride = kernel if known["stride"] is None else expand(known["stride"], dims)
        padding, dilation = expand(known["padding"], dims), expand(known.get("dilation", 1), dims)
        return _slid(before, stride[d], padding[d], dilation[d] * (kernel[d] - 1))
    if layer.op in CONVOLUTIONS or layer.op in TRANSPOSED:
        stride, dilation = expand(known["stride"], dims), expand(known["dilation"], dims)
        width = dilation[d] * (weights[str(layer.tensors[1])][2 + d] - 1)
        padding = _padding(known["padding"], width, dims)
        return (_slid if layer.op in CONVOLUTIONS else _spread)(before, stride[d], padding[d], width)
    if layer.op == "interpolate":
        return _enlarged(before, known, d)
    raise UnsupportedError("how far it sees is not known here, or has no end; give a halo")


def _padding(given: Any, width: int, dims: int) -> tuple[int, ...]:
    """``same`` pads half the width, ``valid`` nothing."""
    if isinstance(given, str):
        return (width // 2 if given == "same" else 0,) * dims
    return expand(given, dims)


def _slid(before: Reach, stride: int, padding: int, width: int) -> Reach:
    """Output i reads from ``i * stride - padding`` to ``width`` further."""
    jump = before.jump
    return Reach(stride * jump, before.left + padding * jump, before.right + (width - padding) * jump)


def _spread(before: Reach, stride: int, padding: int, width: int) -> Reach:
    """Input n is spread from ``n * stride - padding`` to ``width`` further, so output i reads from ``(i + padding - width) / stride`` to
    ``(i + padding) / stride``."""
    jump = before.jump / stride
    return Reach(jump, before.left + (width - padding) * jump, before.right + padding * jump)


def _enlarged(before: Reach, known: Mapping[str, Any], d: int) -> Reach:
    """Nearest reads ``floor(i / scale)``; linear the two neighbours of ``(i + 0.5) / scale - 0.5``."""
    given = known["scale_factor"]
    scale = given[d] if isinstance(given, tuple) else given
    if (
        scale is None
        or scale != int(scale)
        or known["align_corners"]
        or known["mode"] not in ("nearest", "linear", "bilinear", "trilinear")
    ):
        raise UnsupportedError("how far it sees depends on the size; give a halo")
    factor = int(scale)
    jump = before.jump / factor
    if known["mode"] == "nearest":
        return Reach(jump, before.left + (factor - 1) * jump, before.right)
    shift = Fraction(factor - 1, 2) * jump
    return Reach(jump, before.left + shift + before.jump, before.right + before.jump - shift)
