"""Quantization that is only simulated: values rounded to a grid, beside a mask of those inside its range, which backward multiplies by.

The fused kernel of quantization-aware training observes the range first. Whether it observes and rounds stands in tensors, which the row
does not see: both are on where nothing else is said, as modules are prepared. Where it does not round it gives a copy, and a mask of ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import UnsupportedError
from memest.network.dtypes import HALVES
from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import elementwise, empty_like, incoming
from memest.ops.aten.views import wrapped
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32, POINTWISE_FACTS, called
from memest.ops.operator import Example, flag, integer, number
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _rounded(k: Tape, input: Tensor) -> Tensor:
    if input.dtype in HALVES:
        raise UnsupportedError(f"fake quantization of {input.dtype} has no rule: convert to float32 before")
    out = empty_like(k, input)
    mask = empty_like(k, input, "bool")
    k.save(mask=mask)
    return out


def _only_float32(input: Tensor) -> None:
    if input.dtype == "float64":
        raise UnsupportedError("torch has no fake quantization of float64 here: convert to float32 before")


def _by_channel(k: Tape, input: Tensor) -> Tensor:
    """Zero points are checked against their range first."""
    _only_float32(input)
    k.free(k.empty((), "int32"), k.empty((), "int32"))
    return _rounded(k, input)


def _masked(k: Tape, saved: Saved, grads: Grads, /, **attributes: Any) -> list[Tensor | None]:
    """The gradient times the mask, which is cast for that."""
    return [elementwise(k, incoming(grads), saved["mask"]), *[None] * (len(k.needs) - 1)]


def _per_tensor(k: Tape, input: Tensor, *, scale: float, zero_point: int, quant_min: int, quant_max: int) -> Tensor:
    return _rounded(k, input)


def _per_channel(k: Tape, input: Tensor, scale: Tensor, zero_point: Tensor, *, axis: int, quant_min: int, quant_max: int) -> Tensor:
    return _by_channel(k, input)


def _observed(
    k: Tape,
    input: Tensor,
    observer_on: Tensor,
    fake_quant_on: Tensor,
    running_min: Tensor,
    running_max: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    *,
    averaging_const: float,
    quant_min: int,
    quant_max: int,
    ch_axis: int,
    per_row_fake_quant: bool,
    symmetric_quant: bool,
    observes: bool,
    rounds: bool,
) -> Tensor:
    """``_fused_moving_avg_obs_fq_helper``: the extrema, of all or of each channel; then as it is observed."""
    if observes or (rounds and per_row_fake_quant):
        _only_float32(input)
        if input.dtype in HALVES:
            raise UnsupportedError(f"fake quantization of {input.dtype} has no rule: convert to float32 before")
        if per_row_fake_quant and not input.is_contiguous:
            raise UnsupportedError("a fake quantizer by channel is modelled for tensors that lie row-major")
    if observes:
        _extrema(k, input, (input.shape[wrapped(ch_axis, input.ndim)],) if per_row_fake_quant else ())
    if not rounds:
        mask, out = empty_like(k, input, "bool"), empty_like(k, input)
        k.save(mask=mask)
        return out
    if per_row_fake_quant:
        return _by_channel(k, input)
    enabled = k.empty((1,), "int64")
    out = empty_like(k, input)
    k.save(mask=empty_like(k, input, "bool"))
    k.free(enabled)
    return out


def _extrema(k: Tape, input: Tensor, sizes: Shape) -> None:
    """``_aminmax``: of all elements it looks at a dense copy."""
    least, most = k.empty(sizes, input.dtype), k.empty(sizes, input.dtype)
    dense = input if sizes else contiguous(k, input)
    k.free(None if dense is input else dense, most, least)


LIMITS = (attribute("quant_min", check=integer), attribute("quant_max", check=integer))
RANGE = {"quant_min": -128, "quant_max": 127}
SOURCE = "derivatives.yaml: {}_cachemask; aten/src/ATen/native/quantized/FakeQuantPer"
FUSED = {"averaging_const": 0.01, **RANGE, "ch_axis": 0}
SHAPE, ONE, BY_CHANNEL, BY_TENSOR = (4, 3, 5, 2), ((1,),) * 2, ((4,),) * 4, ((), (), (1,), (1,))
KINDS = ("float32", "int64", "int64", "float32", "float32", "float32", "int32")
STATE = (1, 2, 3, 4, 5, 6)
ROWS = (
    row(
        "fake_quantize_per_tensor_affine",
        _per_tensor,
        _masked,
        (attribute("scale", check=number), attribute("zero_point", check=integer), *LIMITS),
        (Example(shapes=(SHAPE,), attributes={"scale": 0.1, "zero_point": 0, **RANGE}, layout="channels_last"),),
        f"{SOURCE}TensorAffine.cpp",
        saves=("mask",),
        facts=POINTWISE_FACTS.but(autocast=called("fake_quantize_per_tensor_affine", FLOAT32)),
    ),
    row(
        "fake_quantize_per_channel_affine",
        _per_channel,
        _masked,
        (attribute("axis", check=integer), *LIMITS),
        (Example(shapes=(SHAPE, (4,), (4,)), attributes={"axis": 0, **RANGE}, dtypes=("float32", "float32", "int32"), frozen=(1,)),),
        f"{SOURCE}ChannelAffine.cpp",
        roles=("input", "scale", "zero_point"),
        saves=("mask",),
        facts=POINTWISE_FACTS,
    ),
    row(
        "fused_moving_avg_obs_fake_quant",
        _observed,
        _masked,
        (
            attribute("averaging_const", check=number),
            *LIMITS,
            attribute("ch_axis", check=integer),
            attribute("per_row_fake_quant", False, flag),
            attribute("symmetric_quant", False, flag),
            attribute("observes", True, flag),
            attribute("rounds", True, flag),
        ),
        (
            Example(shapes=(SHAPE, *ONE, *BY_TENSOR), attributes=FUSED, dtypes=KINDS, frozen=STATE, layout="channels_last"),
            Example(
                shapes=(SHAPE, *ONE, *BY_CHANNEL),
                attributes={**FUSED, "per_row_fake_quant": True, "symmetric_quant": True},
                dtypes=KINDS,
                frozen=STATE,
            ),
            *[
                Example(
                    shapes=(SHAPE, *ONE, (), (), (1,), (1,)),
                    attributes={**FUSED, **off},
                    dtypes=KINDS,
                    frozen=STATE,
                    layout="channels_last",
                )
                for off in ({"observes": False}, {"rounds": False}, {"observes": False, "rounds": False})
            ],
            Example(
                shapes=(SHAPE, *ONE, *BY_CHANNEL),
                attributes={**FUSED, "per_row_fake_quant": True, "observes": False},
                dtypes=KINDS,
                frozen=STATE,
            ),
        ),
        "derivatives.yaml: _fused_moving_avg_obs_fq_helper; aten/src/ATen/native/quantized/cpu/fused_obs_fake_quant.cpp",
        roles=("input", "observer_on", "fake_quant_on", "running_min", "running_max", "scale", "zero_point"),
        saves=("mask",),
        facts=EVERYWHERE_FACTS,
        oracle="fused_moving_avg_obs_fake_quant",
    ),
)
COMPOSITE_ROWS = ()
