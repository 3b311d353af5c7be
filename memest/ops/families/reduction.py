"""Reductions: sums, means, extrema, norms. A large reduction to one element runs in two passes, with one partial result a thread."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import COMPLEX, FLOATING, check_dtype
from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous
from memest.ops.aten.cuda_reduce import unchanged
from memest.ops.aten.iterator import elementwise, empty_like, incoming, with_number
from memest.ops.aten.reductions import deviation_into, judge_into, locate_into, mean_into, product_into, reduce_into, sum_into
from memest.ops.aten.selecting import scattered_back, shared_by_count, shared_out
from memest.ops.aten.views import (
    dim_or_dims,
    expanded,
    reduced_dims,
    reduction_shape,
    restored,
    wrapped,
)
from memest.ops.composite import Caller, Composite
from memest.ops.facts import ALONG_DIM_CALLS, ALONG_DIM_FACTS, EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import REQUIRED, Attribute, Example, flag, integer, number, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, NATIVE, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _spread(k: Tape, grad: Tensor, sizes: Shape, dim: Any, keepdim: bool) -> Tensor:
    """sum_backward: the gradient expanded to the input's sizes."""
    whole = dim is None or dim == ()
    return expanded(k, grad if whole else restored(k, grad, dim, keepdim, len(sizes)), sizes)


def accumulated(dtype: str, wanted: str | None) -> str:
    """The dtype of a sum: the one wanted, else the input's own, or int64 for integers."""
    return wanted or (dtype if dtype in FLOATING else "int64")


def _sum(k: Tape, input: Tensor, *, dim: Any, keepdim: bool, dtype: str | None) -> Tensor:
    k.note(sizes=input.shape)
    if input.dtype in COMPLEX and k.target.on_cuda:
        raise UnsupportedError("sums of complex numbers are not modelled on torch-cuda yet; ask for torch-cpu")
    kind = dtype or (input.dtype if input.dtype in COMPLEX else accumulated(input.dtype, None))
    out = k.empty(reduction_shape(input, dim, keepdim), kind)
    sum_into(k, input, out, reduced_dims(dim, input.ndim))
    return out


def _sum_backward(k: Tape, saved: Saved, grads: Grads, *, dim: Any, keepdim: bool, dtype: str | None) -> list[Tensor | None]:
    return [_spread(k, incoming(grads), saved["sizes"], dim, keepdim)]


def mean(k: Tape, input: Tensor, dim: Any, keepdim: bool, dtype: str | None = None) -> Tensor:
    """``at::mean``: half types are summed in float32."""
    kind = dtype or input.dtype
    if kind not in FLOATING:
        raise ShapeError(f"mean of {kind}: cast to a floating type first")
    out = k.empty(reduction_shape(input, dim, keepdim), kind)
    mean_into(k, input, out, reduced_dims(dim, input.ndim))
    return out


def _mean(k: Tape, input: Tensor, *, dim: Any, keepdim: bool, dtype: str | None) -> Tensor:
    k.note(sizes=input.shape)
    return mean(k, input, dim, keepdim, dtype)


def _mean_backward(k: Tape, saved: Saved, grads: Grads, *, dim: Any, keepdim: bool, dtype: str | None) -> list[Tensor | None]:
    return [with_number(k, _spread(k, incoming(grads), saved["sizes"], dim, keepdim), 1)]


def _var(k: Tape, input: Tensor, *, dim: Any, correction: float | None, keepdim: bool) -> Tensor:
    k.save(input=input)
    out = k.empty(reduction_shape(input, dim, keepdim), input.dtype)
    deviation_into(k, input, out, reduced_dims(dim, input.ndim))
    return out


def _var_of(k: Tape, grad: Tensor, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """var_backward: 2 / (n - correction) * grad * (self - self.mean(dim, keepdim=True))."""
    if dim is None or not input.ndim:
        middle = mean(k, input, None, False)
    else:
        grad = restored(k, grad, dim, keepdim or input.ndim == 1, input.ndim)
        middle = mean(k, input, dim, True)
    centred = elementwise(k, input, middle)
    scaled = with_number(k, grad, 2.0)
    out = elementwise(k, scaled, centred)
    k.free(scaled, centred, middle)
    return out


def _var_backward(k: Tape, saved: Saved, grads: Grads, *, dim: Any, correction: float | None, keepdim: bool) -> list[Tensor | None]:
    return [_var_of(k, incoming(grads), saved["input"], dim, keepdim)]


def _std(k: Tape, input: Tensor, *, dim: Any, correction: float | None, keepdim: bool) -> Tensor:
    out = _var(k, input, dim=dim, correction=correction, keepdim=keepdim)
    k.save(result=out)
    return out


def _of_variance(k: Tape, result: Tensor, grad: Tensor) -> Tensor:
    """(grad / (result * 2)).masked_fill_(result == 0, 0): what the variance gets."""
    twice = with_number(k, result, 2)
    of_variance = elementwise(k, grad, twice)
    k.free(with_number(k, result, 0, "bool"), twice)
    return of_variance


def _std_backward(k: Tape, saved: Saved, grads: Grads, *, dim: Any, correction: float | None, keepdim: bool) -> list[Tensor | None]:
    of_variance = _of_variance(k, saved["result"], incoming(grads))
    return [_var_of(k, of_variance, saved["input"], dim, keepdim)]


def _var_mean(k: Tape, input: Tensor, *, dim: Any, correction: float | None, keepdim: bool) -> tuple[Tensor, Tensor]:
    k.save(input=input)
    shape = reduction_shape(input, dim, keepdim)
    variance, middle = k.empty(shape, input.dtype), k.empty(shape, input.dtype)
    deviation_into(k, input, variance, reduced_dims(dim, input.ndim), beside=middle)
    return variance, middle


def _var_mean_backward(k: Tape, saved: Saved, grads: Grads, *, dim: Any, correction: float | None, keepdim: bool) -> list[Tensor | None]:
    of_var, of_mean = grads
    input: Tensor = saved["input"]
    first = None if of_var is None else _var_of(k, of_var, input, dim, keepdim)
    if of_mean is None:
        return [first]
    second = with_number(k, _spread(k, of_mean, input.shape, dim, keepdim), 1)
    return [second if first is None else elementwise(k, first, second)]


def _std_mean(k: Tape, input: Tensor, *, dim: Any, correction: float | None, keepdim: bool) -> tuple[Tensor, Tensor]:
    deviation, middle = _var_mean(k, input, dim=dim, correction=correction, keepdim=keepdim)
    k.save(result=deviation)
    return deviation, middle


def _std_mean_backward(k: Tape, saved: Saved, grads: Grads, *, dim: Any, correction: float | None, keepdim: bool) -> list[Tensor | None]:
    of_std, of_mean = grads
    input: Tensor = saved["input"]
    first = None
    if of_std is not None:
        of_variance = _of_variance(k, saved["result"], of_std)
        first = _var_of(k, of_variance, input, dim, keepdim)
        k.free(of_variance)
    if of_mean is None:
        return [first]
    second = with_number(k, _spread(k, of_mean, input.shape, dim, keepdim), 1)
    return [second if first is None else elementwise(k, first, second)]


def _extremum_along(k: Tape, input: Tensor, *, dim: Any, keepdim: bool) -> Tensor:
    k.save(input=input)
    out = k.empty(reduction_shape(input, dim, keepdim), input.dtype)
    reduce_into(k, input, out, reduced_dims(dim, input.ndim), unchanged)
    k.save(result=out)
    return out


def _extremum_along_backward(k: Tape, saved: Saved, grads: Grads, *, dim: Any, keepdim: bool) -> list[Tensor | None]:
    return [shared_by_count(k, incoming(grads), saved["result"], saved["input"], dim, keepdim)]


def _extremum(k: Tape, input: Tensor) -> Tensor:
    k.save(input=input)
    out = k.empty((), input.dtype)
    locate_into(k, contiguous(k, input), out, None, unchanged)
    k.save(result=out)
    return out


def _selected(k: Tape, input: Tensor, *, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    k.note(sizes=input.shape)
    shape = reduction_shape(input, dim, keepdim)
    values, indices = k.empty(shape, input.dtype), k.empty(shape, "int64")
    locate_into(k, input, indices, (dim,))
    k.save(indices=indices)
    return values, indices


def _arg_extremum(k: Tape, input: Tensor, *, dim: int | None, keepdim: bool) -> Tensor:
    out = k.empty(reduction_shape(input, dim, keepdim and dim is not None), "int64")
    if dim is None:
        input = k.alias(contiguous(k, input), (input.numel,))
    elif input.shape and input.shape[wrapped(dim, input.ndim)] == 1:
        return out
    locate_into(k, input, out, None if dim is None else (dim,))
    return out


def _any(k: Tape, input: Tensor, *, dim: Any, keepdim: bool) -> Tensor:
    out = k.empty(reduction_shape(input, dim, keepdim), "bool")
    judge_into(k, input, out, reduced_dims(dim, input.ndim))
    return out


def _prod(k: Tape, input: Tensor, *, dim: int | None, keepdim: bool, dtype: str | None) -> Tensor:
    k.save(input=input)
    out = k.empty(reduction_shape(input, dim, keepdim), accumulated(input.dtype, dtype))
    product_into(k, input, out, None if dim is None else (dim,))
    k.save(result=out)
    return out


def prod_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int | None, keepdim: bool, dtype: str | None) -> list[Tensor | None]:
    """prod_backward where no element is zero: grad * (result / self), after counting the zeros."""
    input: Tensor = saved["input"]
    if not input.ndim:
        return [incoming(grads)]
    if input.dtype != incoming(grads).dtype:
        input = empty_like(k, input, incoming(grads).dtype)
    zeros = with_number(k, input, 0, "bool")
    if dim is None:
        k.free(zeros)
    else:
        counts = k.empty(reduction_shape(input, dim, False), "int64")
        sum_into(k, zeros, counts, reduced_dims(dim, zeros.ndim))
        total = k.empty((), "int64")
        sum_into(k, counts, total)
        k.free(total)
    grad = restored(k, incoming(grads), dim, keepdim, input.ndim) if dim is not None else incoming(grads)
    result = restored(k, saved["result"], dim, keepdim, input.ndim) if dim is not None else saved["result"]
    return [elementwise(k, elementwise(k, result, input), grad)]


def _cumsum(k: Tape, input: Tensor, *, dim: int, dtype: str | None) -> Tensor:
    wrapped(dim, input.ndim)
    k.note(dtype=input.dtype)
    out = k.empty(input.shape, accumulated(input.dtype, dtype))
    if input.dtype != out.dtype:
        k.free(empty_like(k, input, out.dtype))
    return out


def _cumsum_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, dtype: str | None) -> list[Tensor | None]:
    """cumsum_backward(grad.to(self.scalar_type()), dim): grad.flip(dim).cumsum(dim).flip(dim)."""
    grad = incoming(grads)
    if grad.dtype != saved["dtype"]:
        grad = empty_like(k, grad, saved["dtype"])
    if grad.numel <= 1 or grad.shape[wrapped(dim, grad.ndim)] == 1:
        return [grad]
    flipped = empty_like(k, grad)
    return [empty_like(k, k.empty(flipped.shape, flipped.dtype))]


def _choose(name: str) -> Any:
    def compose(c: Caller, input: Any, other: Any, *, dim: int | None, keepdim: bool) -> Any:
        if other is not None:
            return c.call(f"{name}imum", input, other)
        return c.call(f"_{name}", input) if dim is None else c.call(f"_{name}_dim", input, dim=dim, keepdim=keepdim)

    return compose


DIMS = Attribute(name="dim", default=None, check=dim_or_dims)
DIM = Attribute(name="dim", default=REQUIRED, check=integer)
DTYPE = Attribute(name="dtype", default=None, check=optional(check_dtype))
KEEP = Attribute(name="keepdim", default=False, check=flag)
CORRECTION = Attribute(name="correction", default=1, check=optional(number))
BCHW = (2, 3, 4, 5)
SOURCE = "aten/src/ATen/native/ReduceOps.cpp"


def _examples(*calls: dict[str, Any]) -> tuple[Example, ...]:
    return (
        *(Example(shapes=(BCHW,), attributes=a) for a in calls),
        Example(shapes=(BCHW,), attributes=calls[-1], layout="channels_last"),
    )


ALONG = _examples({}, {"dim": 1}, {"dim": (2, 3), "keepdim": True})
CASTING = (
    Example(shapes=(BCHW,), attributes={"dim": 1, "dtype": "float64"}),
    Example(shapes=(BCHW,), attributes={"dim": 1, "dtype": "float32"}, dtypes=("bfloat16",)),
    Example(shapes=(BCHW,), attributes={"dim": 1, "dtype": "float32"}, dtypes=("bool",)),
)
COMPLEXES = tuple(Example(shapes=(BCHW,), attributes=a, dtypes=("complex64",)) for a in ({}, {"dim": 1}))
LARGE = Example(shapes=((8, 16, 16, 17),), attributes={})


_row = partial(row, facts=ALONG_DIM_FACTS, source=f"{DERIVED}/ReduceOps.cpp")


ROWS = (
    _row("sum", _sum, _sum_backward, (DIMS, KEEP, DTYPE), (*ALONG, LARGE, *CASTING, *COMPLEXES)),
    _row("mean", _mean, _mean_backward, (DIMS, KEEP, DTYPE), (*ALONG, LARGE, *CASTING)),
    _row("var", _var, _var_backward, (DIMS, CORRECTION, KEEP), (*ALONG, LARGE), saves=("input",)),
    _row("std", _std, _std_backward, (DIMS, CORRECTION, KEEP), ALONG, saves=("input", "result")),
    _row("var_mean", _var_mean, _var_mean_backward, (DIMS, CORRECTION, KEEP), ALONG, saves=("input",)),
    _row("std_mean", _std_mean, _std_mean_backward, (DIMS, CORRECTION, KEEP), ALONG, saves=("input", "result")),
    _row(
        "amax",
        _extremum_along,
        _extremum_along_backward,
        (Attribute(name="dim", default=(), check=dim_or_dims), KEEP),
        ALONG,
        saves=("input", "result"),
    ),
    _row(
        "amin",
        _extremum_along,
        _extremum_along_backward,
        (Attribute(name="dim", default=(), check=dim_or_dims), KEEP),
        ALONG,
        saves=("input", "result"),
    ),
    *(
        _row(
            name,
            _extremum,
            shared_out,
            (),
            _examples({}),
            source=f"{DERIVED}/ReduceAllOps.cpp",
            saves=("input", "result"),
            torch=f"torch.{name[1:4]}",
            facts=EVERYWHERE_FACTS,
        )
        for name in ("_max", "_min")
    ),
    *(
        _row(
            name,
            _selected,
            scattered_back,
            (DIM, KEEP),
            _examples({"dim": 1}, {"dim": -1, "keepdim": True}),
            source=f"{DERIVED}/TensorCompare.cpp",
            saves=("indices",),
            torch=f"torch.{name[1:4]}",
        )
        for name in ("_max_dim", "_min_dim")
    ),
    *(
        _row(
            name,
            _arg_extremum,
            None,
            (Attribute(name="dim", default=None, check=optional(integer)), KEEP),
            _examples({"dim": 1}, {}),
            source=f"{NATIVE}/ReduceOps.cpp",
        )
        for name in ("argmax", "argmin")
    ),
    *(
        _row(
            name,
            _any,
            None,
            (DIMS, KEEP),
            (
                Example(shapes=(BCHW,), attributes={}, dtypes=("bool",)),
                Example(shapes=(BCHW,), attributes={"dim": 1}),
                Example(shapes=((1,),), attributes={}),
            ),
            source=f"{NATIVE}/ReduceOps.cpp",
        )
        for name in ("any", "all")
    ),
    _row(
        "prod",
        _prod,
        prod_backward,
        (Attribute(name="dim", default=None, check=optional(integer)), KEEP, DTYPE),
        (Example(shapes=(BCHW,), attributes={}), Example(shapes=(BCHW,), attributes={"dim": 1}), *CASTING),
        facts=ALONG_DIM_FACTS.but(autocast=FLOAT32, assumes="no element is zero"),
        saves=("input", "result"),
    ),
    _row("cumsum", _cumsum, _cumsum_backward, (DIM, DTYPE), (*_examples({"dim": 1}, {"dim": -1}), *CASTING)),
)
COMPOSITE_ROWS = (
    *(
        Composite(
            name=name,
            torch=f"torch.{name}",
            roles=("input", "other?"),
            attributes=(Attribute(name="dim", default=None, check=optional(integer)), KEEP),
            compose=_choose(name),
            examples=(
                Example(shapes=(BCHW, None), attributes={}),
                Example(shapes=(BCHW, BCHW), attributes={}),
                Example(shapes=(BCHW, None), attributes={"dim": 1}, layout="channels_last"),
            ),
            facts=ALONG_DIM_CALLS,
            source="torch/_torch_docs.py (max, min: by their arguments the extremum of all, along a dim, or of two tensors)",
        )
        for name in ("max", "min")
    ),
)
