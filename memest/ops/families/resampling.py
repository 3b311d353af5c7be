"""Resizing images and volumes. The gradient needs sizes only, so nothing is kept; but kernels make tables of indices and weights (one
pair a tap and dim), or copy both ends into channels_last, by rules on the output's size and the input's format.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, inf
from struct import pack, unpack
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import FLOATING
from memest.network.tensor import Shape, channels_last_strides, is_channels_last
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.aten.iterator import incoming
from memest.ops.composite import Caller, Composite
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, Attributes, Window, Windows, repeated, window_by
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, choice, expand, flag, integer, integers, number, optional
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
TAPS = {"nearest": 1, "nearest-exact": 1, "linear": 2, "bilinear": 2, "trilinear": 2, "bicubic": 4, "lanczos": 6}
LANCZOS_SINCE = (2, 12)
LARGEST_DENOMINATOR = 1 << 10
NDIM = {"linear": 1, "bilinear": 2, "bicubic": 2, "lanczos": 2, "trilinear": 3}


def _formatted(k: Tape, shape: Shape, dtype: str, last: bool) -> Tensor:
    return k.empty(shape, dtype, channels_last_strides(shape) if last else None)


def _copies(k: Tape, last: bool, *tensors: Tensor) -> None:
    """Those of ``tensors`` that do not lie as the kernel wants, copied for its time."""
    made = [d for t in tensors if (d := contiguous(k, t, last)) is not t]
    k.free(*reversed(made))


def _blocked(k: Tape, input: Tensor, shape: Shape, mode: str) -> bool:
    """True for the kernels that work on channels_last (UpSampleKernel.cpp, _use_vectorized_kernel_cond_2d/3d, and for bilinear one
    more: images on a single thread)."""
    if mode == "bicubic" or input.ndim == 3:
        return False
    wide = is_channels_last(input.shape, input.strides) and input.shape[1] > 3
    if wide or input.ndim == 5:
        return wide
    return shape[2] + shape[3] <= 128 or (mode == "bilinear" and k.target.cpu.threads == 1 and input.shape[1] == 3)


def _upsample(k: Tape, input: Tensor, *, output_size: Shape, mode: str, align_corners: bool, antialias: bool, scales: Any) -> Tensor:
    shape = (*input.shape[:2], *output_size)
    _check_dtype(input.dtype, mode, antialias)
    if mode == "lanczos" and k.target.version < LANCZOS_SINCE:
        raise UnsupportedError("resizing by mode 'lanczos' begins with torch 2.12: take 'bicubic', or a later torch")
    if any(n <= 0 for n in (*output_size, *input.shape[1:])):
        raise ShapeError(f"resizing of shape {list(input.shape)} to {list(output_size)}")
    k.note(sizes=input.shape)
    out = _formatted(k, shape, input.dtype, input.ndim > 3 and suggests_channels_last(input))
    if antialias:
        _antialiased(k, input, shape, mode, align_corners, scales)
    elif _blocked(k, input, shape, mode):
        _copies(k, True, input, out)
    else:
        _tables(k, output_size, TAPS[mode], "float32" if input.dtype == "uint8" else input.dtype)
    return out


def _check_dtype(dtype: str, mode: str, antialias: bool) -> None:
    plain = dtype in ("float32", "float64")
    if not (plain or (dtype in FLOATING and not antialias) or (dtype == "uint8" and TAPS[mode] == 1)):
        raise UnsupportedError(
            f"resizing of {dtype} by mode {mode!r}{' with antialias' if antialias else ''} has no rule: convert it to float32 first"
        )


def _tables(k: Tape, output_size: Shape, taps: int, dtype: str) -> None:
    """upsample_generic_Nd_kernel_impl: for each dim and tap, an index and a weight for each place of the output."""
    made: list[Tensor] = []
    for n in output_size:
        for _ in range(taps):
            made += [k.empty((n,), "int64"), k.empty((n,), dtype)]
    k.free(*reversed(made))


def _single(x: float) -> float:
    rounded: float = unpack("f", pack("f", x))[0]
    return rounded


def _taps(dtype: str, taps: int, size: int, out: int, align_corners: bool, given: float | None) -> int:
    """Places a filter of ``taps`` has, wider where the step between outputs (area_pixel_compute_scale) exceeds one input; in the
    element type's precision."""
    rounded = float if dtype == "float64" else _single
    if given is not None and not align_corners:
        step = rounded(1.0 / given)
    elif out >= size or (align_corners and out == 1):
        step = 1.0
    else:
        step = rounded((size - 1) / (out - 1) if align_corners else size / out)
    return ceil(rounded(taps * 0.5 * max(step, 1.0))) * 2 + 1


def _antialiased(k: Tape, input: Tensor, shape: Shape, mode: str, align_corners: bool, scales: Any) -> None:
    """Width first, into a tensor of its own, then height; each with its tables, whose taps grow with the shrinkage."""
    resized = [d for d in (3, 2) if input.shape[d] != shape[d]]
    between = None
    if len(resized) == 2:
        between = _formatted(k, (*shape[:2], input.shape[2], shape[3]), input.dtype, suggests_channels_last(input))
    for d in resized:
        given = None if scales is None else scales[d - 2]
        n = shape[d]
        taps = _taps(input.dtype, TAPS[mode], input.shape[d], n, align_corners, given)
        made = [k.empty((n,), "int64") for _ in range(3)]
        made += [k.empty((n * taps,), input.dtype), k.empty((n,), "int64")]
        k.free(*reversed(made))
    k.free(between)


def _upsample_backward(
    k: Tape, saved: Saved, grads: Grads, *, output_size: Shape, mode: str, align_corners: bool, antialias: bool, scales: Any
) -> list[Tensor | None]:
    grad = incoming(grads)
    sizes: Shape = saved["sizes"]
    if antialias and mode == "bilinear":
        out = _formatted(k, sizes, grad.dtype, suggests_channels_last(grad))
        _copies(k, False, grad, out)
        return [out]
    if mode in ("bicubic", "lanczos") or len(sizes) == 3:
        out = k.empty(sizes, grad.dtype)
        _copies(k, False, grad)
        return [out]
    volume_of_nearest = len(sizes) == 5 and mode in ("nearest", "nearest-exact")
    out = _formatted(k, sizes, grad.dtype, suggests_channels_last(grad) and not volume_of_nearest)
    _copies(k, is_channels_last(grad.shape, grad.strides), grad, out)
    return [out]


def _output_size(shape: Shape, size: Any, scale_factor: Any) -> tuple[int, ...]:
    spatial = shape[2:]
    if (size is None) == (scale_factor is None):
        raise ShapeError("interpolate needs either size or scale_factor")
    given = scale_factor if size is None else size
    values = tuple(given) if isinstance(given, list | tuple) else (given,) * len(spatial)
    if len(values) != len(spatial):
        raise ShapeError(f"interpolate over {len(spatial)} dimensions got {len(values)} sizes or scales")
    return values if size is not None else tuple(_scaled(n, f) for n, f in zip(spatial, values, strict=True))


def _scaled(n: int, factor: float) -> int:
    """``floor(float(n) * factor)``, by integers where the factor is the double nearest to a small fraction and the rounded product
    never falls below a whole number that the fraction gives: its relative error down is at most 2^-54, which rounds away."""
    near = Fraction(factor).limit_denominator(LARGEST_DENOMINATOR)
    if 0 < near.numerator <= 1 << 16 and float(near) == factor and Fraction(factor) >= near * (1 - Fraction(1, 1 << 54)):
        return n * near.numerator // near.denominator
    return int(float(n) * factor)


def _interpolate(
    c: Caller,
    input: Any,
    *,
    size: Any,
    scale_factor: Any,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
    antialias: bool,
) -> Any:
    shape = input.shape
    wanted = NDIM.get(mode)
    if len(shape) not in (3, 4, 5) or (wanted is not None and len(shape) != wanted + 2):
        raise ShapeError(f"interpolate with mode {mode!r} does not take {len(shape)} dimensions")
    if antialias and not (mode in ("bilinear", "bicubic", "lanczos") and len(shape) == 4):
        raise ShapeError("antialias needs mode bilinear, bicubic or lanczos and 4 dimensions")
    if mode == "lanczos" and (align_corners or not antialias):
        raise ShapeError("mode 'lanczos' needs antialias and does not align corners")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ShapeError(f"align_corners has no meaning for mode {mode!r}")
    if recompute_scale_factor and size is not None:
        raise ShapeError("recompute_scale_factor has no meaning where a size is given")
    sizes = _output_size(shape, size, scale_factor)
    if mode == "area":
        return c.call(f"adaptive_avg_pool{len(shape) - 2}d", input, output_size=sizes)
    scales = None if scale_factor is None or recompute_scale_factor else scale_factor
    if scales is not None and not isinstance(scales, tuple):
        scales = (scales,) * len(sizes)
    return c.call("_upsample", input, output_size=sizes, mode=mode, align_corners=bool(align_corners), antialias=antialias, scales=scales)


def size_or_sizes(value: Any) -> Any:
    """A size for all dims, or one a dim."""
    return None if value is None else integers(value) if isinstance(value, list | tuple) else integer(value)


def scale(value: Any) -> float:
    """A factor: finite, greater than 0."""
    checked: float = number(value)
    if not 0 < checked < inf:
        raise ValueError("expected a number greater than 0")
    return checked


def scale_or_scales(value: Any) -> Any:
    """A factor for all dims, or one a dim."""
    return None if value is None else tuple(scale(v) for v in value) if isinstance(value, list | tuple) else scale(value)


def _enlarged(given: Attributes, shapes: Sequence[Shape | None], dims: int) -> Windows:
    """Of whole factors: nearest reads ``floor(i / factor)``, linear the two neighbours of ``(i + 0.5) / factor - 0.5``."""
    scale = given["scale_factor"]
    scales = expand(scale, dims) if isinstance(scale, tuple) else (scale,) * dims
    if given["align_corners"] or given["mode"] not in SEEN or any(s is None or s != int(s) for s in scales):
        return (None,) * dims
    return [SEEN[given["mode"]](int(s)) for s in scales]


def _linear(factor: int) -> Window:
    shift = Fraction(factor - 1, 2 * factor)
    return Window(Fraction(1, factor), shift + 1, 1 - shift)


SEEN = {"nearest": repeated, "nearest-exact": repeated, "linear": _linear, "bilinear": _linear, "trilinear": _linear}
MODES = (*TAPS, "area")
SHAPES: dict[int, Shape] = {1: (2, 3, 5), 2: (2, 5, 4, 6), 3: (2, 5, 3, 4, 5)}
CALLS: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {"scale_factor": 2}),
    (1, {"size": 7, "mode": "linear"}),
    (2, {"scale_factor": 2}),
    (2, {"scale_factor": 2, "mode": "nearest-exact"}),
    (2, {"scale_factor": 2.0, "mode": "bilinear", "align_corners": True}),
    (2, {"size": (70, 90), "mode": "bilinear"}),
    (2, {"scale_factor": 1.5, "mode": "bicubic"}),
    (2, {"scale_factor": 0.5, "mode": "area"}),
    (2, {"size": (3, 4), "mode": "bilinear", "antialias": True}),
    (2, {"scale_factor": 1.3, "mode": "lanczos", "antialias": True}),
    (3, {"scale_factor": 2}),
    (3, {"scale_factor": (2, 1.5, 2), "mode": "trilinear"}),
)
ALIGN = Attribute(name="align_corners", default=None, check=optional(flag))
ROWS = (
    Operator(
        name="_upsample",
        torch="torch.nn.functional.interpolate",
        oracle="upsample",
        roles=("input",),
        attributes=(
            Attribute(name="output_size", default=REQUIRED, check=integers),
            Attribute(name="mode", default="nearest", check=choice(*TAPS)),
            Attribute(name="align_corners", default=False, check=flag),
            Attribute(name="antialias", default=False, check=flag),
            Attribute(name="scales", default=None, check=scale_or_scales),
        ),
        forward=_upsample,
        saves=(),
        backward=_upsample_backward,
        examples=tuple(
            Example(shapes=(SHAPES[n],), attributes={"output_size": (7,) * n, "mode": mode})
            for n, mode in ((1, "linear"), (2, "nearest"), (2, "bicubic"), (3, "trilinear"))
        ),
        facts=EVERYWHERE_FACTS,
        source="derivatives.yaml: upsample_nearest1d and the like; aten/src/ATen/native/cpu/UpSampleKernel.cpp, UpSampleMoreKernel.cpp",
    ),
)
COMPOSITE_ROWS = (
    Composite(
        name="interpolate",
        torch="torch.nn.functional.interpolate",
        roles=("input",),
        attributes=(
            Attribute(name="size", default=None, check=size_or_sizes),
            Attribute(name="scale_factor", default=None, check=scale_or_scales),
            Attribute(name="mode", default="nearest", check=choice(*MODES)),
            ALIGN,
            Attribute(name="recompute_scale_factor", default=None, check=optional(flag)),
            Attribute(name="antialias", default=False, check=flag),
        ),
        compose=_interpolate,
        examples=(
            *(Example(shapes=(SHAPES[n],), attributes=a) for n, a in CALLS),
            *(Example(shapes=(SHAPES[n],), attributes=a, layout="channels_last") for n, a in CALLS if n > 1),
        ),
        facts=EVERYWHERE_CALLS.but(reach=window_by(_enlarged)),
        source="torch/nn/functional.py (interpolate); aten/src/ATen/native/UpSample.cpp",
    ),
)
