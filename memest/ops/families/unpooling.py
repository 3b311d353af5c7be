"""Max unpooling: values go back to the places their indices name; the rest is zero. The indices are kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from memest.errors import ShapeError
from memest.network.tensor import Shape, channels_last_strides
from memest.ops.aten.copies import contiguous, scatter_into, suggests_channels_last
from memest.ops.aten.iterator import incoming
from memest.ops.aten.views import inferred_shape, reshaped
from memest.ops.composite import Caller
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, FALLS_THROUGH, FLOAT32
from memest.ops.operator import REQUIRED, Attribute, Example, expand, integers, optional, per_dim
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import FUNCTIONAL, NATIVE, composite, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def check_unpool(input: Tensor, indices: Tensor, output_size: Shape) -> None:
    """Refuse what torch refuses."""
    if input.shape != indices.shape:
        raise ShapeError(f"input of shape {list(input.shape)} and indices of shape {list(indices.shape)}")
    if any(n < 1 for n in output_size):
        raise ShapeError(f"output of spatial size {list(output_size)} has no elements; give a smaller padding or another output_size")


def _max_unpool(k: Tape, input: Tensor, indices: Tensor, *, output_size: Shape) -> Tensor:
    check_unpool(input, indices, output_size)
    k.save(indices=indices)
    shape = (*input.shape[: input.ndim - len(output_size)], *output_size)
    last = len(output_size) == 2 and suggests_channels_last(input)
    copies = [contiguous(k, t, last) for t in (input, indices)]
    out = k.empty(shape, input.dtype, channels_last_strides(shape) if last else None)
    k.free(*reversed(copies))
    return out


def _max_unpool_backward(k: Tape, saved: Saved, grads: Grads, *, output_size: Shape) -> list[Tensor | None]:
    """max_pool_double_backward: the gradient gathered at the indices, its spatial dims as one; from 2.14 on by a view if it can be."""
    grad, indices = incoming(grads), saved["indices"]
    if k.target.version >= (2, 14):
        lead = grad.shape[: grad.ndim - len(output_size)]
        reshaped(k, grad, inferred_shape((*lead, -1), grad.numel))
    else:
        contiguous(k, grad, suggests_channels_last(indices))
    out = k.empty(indices.shape, grad.dtype)
    scatter_into(k, out)
    return [out, None]


def _unpool(spatial: int) -> Any:
    def compose(c: Caller, input: Any, indices: Any, *, kernel_size: Any, stride: Any, padding: Any, output_size: Any) -> Any:
        kernel = expand(kernel_size, spatial)
        step = kernel if stride is None else expand(stride, spatial)
        pad = expand(padding, spatial)
        lead = len(input.shape) - spatial
        default = tuple((n - 1) * s + k - 2 * p for n, s, k, p in zip(input.shape[lead:], step, kernel, pad, strict=True))
        sizes = default if output_size is None else tuple(output_size)[-spatial:]
        if spatial > 1:
            return c.call("_max_unpool", input, indices, output_size=sizes)
        flat = [c.call("unsqueeze", t, dim=-1) for t in (input, indices)]
        return c.call("squeeze", c.call("_max_unpool", *flat, output_size=(*sizes, 1)), dim=-1)

    return compose


KERNEL = Attribute(name="kernel_size", default=REQUIRED, check=per_dim)
STRIDE = Attribute(name="stride", default=None, check=optional(per_dim))
PADDING = Attribute(name="padding", default=0, check=per_dim)
SHAPES: dict[int, Shape] = {1: (2, 3, 9), 2: (2, 3, 7, 8), 3: (2, 3, 5, 6, 7)}
UNPOOL = (KERNEL, STRIDE, PADDING, Attribute(name="output_size", default=None, check=optional(integers)))
_row = partial(row, torch=FUNCTIONAL)
_composite = partial(composite, torch=FUNCTIONAL)
ROWS = (
    _row(
        "_max_unpool",
        _max_unpool,
        _max_unpool_backward,
        (Attribute(name="output_size", default=REQUIRED, check=integers),),
        (Example(shapes=(SHAPES[2], SHAPES[2]), attributes={"output_size": (14, 16)}, dtypes=("float32", "int64")),),
        f"derivatives.yaml: max_unpool2d, max_unpool3d; {NATIVE}/MaxUnpooling.cpp",
        facts=EVERYWHERE_FACTS,
        saves=("indices",),
        roles=("input", "indices"),
        torch="torch.ops.aten.max_unpool2d",
    ),
)
COMPOSITE_ROWS = (
    *(
        _composite(
            f"max_unpool{n}d",
            _unpool(n),
            UNPOOL,
            (Example(shapes=(SHAPES[n], SHAPES[n]), attributes={"kernel_size": 2}, dtypes=("float32", "int64")),),
            f"torch/nn/functional.py (max_unpool{n}d)",
            facts=EVERYWHERE_CALLS.but(autocast=FALLS_THROUGH if n == 1 else FLOAT32),
            roles=("input", "indices"),
        )
        for n in (1, 2, 3)
    ),
)
