"""Arithmetic of tensors and numbers on CUDA: kernels cast as they load, and a number stays with the host."""

from __future__ import annotations

from dataclasses import replace

from memest.network.dtypes import FLOATING
from memest.ops.aten.iterator import wrapped_dtype
from memest.ops.families import elementwise
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor

FAMILY = {row.name: row for row in elementwise.ROWS}


def _rpow(k: Tape, input: Tensor, *, value: float) -> Tensor:
    """The number is wrapped on the exponent's device once the result is there; to the power of 1 is a fill."""
    k.save(input=input)
    dtype = "float32" if isinstance(value, float) and input.dtype not in FLOATING else input.dtype
    out = k.empty(input.shape, "int64" if dtype == "bool" else dtype)
    if value != 1:
        k.free(k.empty((), wrapped_dtype(value)))
    k.save(result=out)
    return out


ROWS: tuple[Operator, ...] = (replace(FAMILY["rpow"], forward=_rpow, source="aten/src/ATen/native/Pow.cpp (pow_Scalar_out)"),)
SAME = (
    "add",
    "sub",
    "rsub",
    "mul",
    "div",
    "pow",
    "floor_divide",
    "remainder",
)
