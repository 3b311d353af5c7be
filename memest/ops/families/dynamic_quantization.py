"""Linear layers whose weights are int8 or float16 (``torch.ao.quantization.quantize_dynamic``): what they read and give is float32.

FBGEMM packs weights into memory of its own, which torch's allocator does not see, and so are its threads' buffers; int8 products are
summed in a tensor of int32 beside the result. There is no gradient.

Source: aten/src/ATen/native/quantized/cpu/qlinear_dynamic.cpp (``PackedLinearWeight``, ``PackedLinearWeightFp16``).
"""

from __future__ import annotations

from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.ops.aten.copies import contiguous
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.composite import Composite
from memest.ops.facts import EVERYWHERE_FACTS, product_of
from memest.ops.operator import Example
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import row


def _checked(k: Tape, input: Tensor, weight: Tensor) -> tuple[int, ...]:
    """The shape of the result."""
    refuse_on_cuda(k)
    if input.dtype != "float32":
        raise UnsupportedError(f"torch has no quantized linear layer of {input.dtype}: convert to float32 before")
    if input.ndim < 2 or weight.ndim != 2 or input.shape[-1] != weight.shape[1]:
        raise ShapeError(f"a quantized linear layer of weight {list(weight.shape)} takes two dims or more, got {list(input.shape)}")
    return (*input.shape[:-1], weight.shape[0])


def _int8(k: Tape, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The sums, as large as the result, go first."""
    shape = _checked(k, input, weight)
    dense = contiguous(k, input)
    out = k.empty(shape)
    k.free(k.empty(shape, "int32"), None if dense is input else dense)
    return out


def _fp16(k: Tape, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    shape = _checked(k, input, weight)
    dense = contiguous(k, input)
    out = k.empty(shape)
    k.free(None if dense is input else dense)
    return out


def _examples(dtype: str) -> tuple[Example, ...]:
    shapes: tuple[tuple[Any, ...], ...] = (((7, 40), (30, 40), (30,)), ((2, 7, 40), (30, 40), None), ((64, 512), (300, 512), (300,)))
    kinds = ("float32", dtype, "float32")
    frozen = (0, 1, 2)
    plain = tuple(Example(shapes=s, attributes={}, dtypes=kinds, frozen=frozen) for s in shapes)
    return (*plain, Example(shapes=shapes[0], attributes={}, dtypes=kinds, frozen=frozen, layout="transposed"))


ROWS = tuple(
    row(
        name,
        forward,
        None,
        (),
        _examples(dtype),
        "aten/src/ATen/native/quantized/cpu/qlinear_dynamic.cpp",
        facts=EVERYWHERE_FACTS.but(flops=product_of(0)),
        roles=("input", "weight", "bias?"),
        torch="torch.ops.quantized.{}",
        oracle=name,
    )
    for name, forward, dtype in (("linear_dynamic", _int8, "int8"), ("linear_dynamic_fp16", _fp16, "float16"))
)
COMPOSITE_ROWS: tuple[Composite, ...] = ()
