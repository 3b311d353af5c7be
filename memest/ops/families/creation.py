"""New tensors: from sizes, or in the likeness of another. Nothing here has a gradient."""

from __future__ import annotations

from math import ceil
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import check_dtype
from memest.network.tensor import Shape
from memest.ops.aten.iterator import on_host, preserved_strides
from memest.ops.facts import EVERYWHERE_FACTS, POINTWISE_FACTS, Facts
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, integer, integers, number, number_or_flag, optional
from memest.ops.tape import Tape, Tensor

FILLED = ("zeros", "ones", "empty", "rand", "randn")
LIKE = ("zeros_like", "ones_like", "empty_like", "rand_like", "randn_like")
NEW = ("new_zeros", "new_ones", "new_empty")


def _from_shape(k: Tape, *, shape: Shape, dtype: str) -> Tensor:
    if any(n < 0 for n in shape):
        raise ShapeError(f"sizes must not be negative, got {list(shape)}")
    return k.empty(shape, dtype)


def _full(k: Tape, *, shape: Shape, fill_value: float, dtype: str | None) -> Tensor:
    return _from_shape(k, shape=shape, dtype=dtype or _number_dtype(fill_value))


def _number_dtype(*values: float | None) -> str:
    if any(isinstance(v, float) for v in values):
        return "float32"
    return "bool" if all(isinstance(v, bool) for v in values) else "int64"


def _arange(k: Tape, *, start: float, end: float, step: float, dtype: str | None) -> Tensor:
    if step == 0 or (end - start) * step < 0:
        raise ShapeError(f"arange from {start} to {end} by {step}")
    if isinstance(start, int) and isinstance(end, int) and isinstance(step, int):
        size = (end - start + step - 1) // step if step > 0 else (start - end - step - 1) // -step
    else:
        size = ceil((end - start) / step)
    return k.empty((size,), dtype or _number_dtype(start, end, step))


def _linspace(k: Tape, *, start: float, end: float, steps: int, dtype: str) -> Tensor:
    return _from_shape(k, shape=(steps,), dtype=dtype)


def _eye(k: Tape, *, n: int, m: int | None, dtype: str) -> Tensor:
    return _from_shape(k, shape=(n, n if m is None else m), dtype=dtype)


def _randint(k: Tape, *, low: int, high: int, shape: Shape, dtype: str) -> Tensor:
    if low >= high:
        raise ShapeError(f"randint from {low} to {high}")
    return _from_shape(k, shape=shape, dtype=dtype)


def _randperm(k: Tape, *, n: int, dtype: str) -> Tensor:
    """The count becomes a tensor, to see whether the dtype holds it."""
    out = k.empty((n,), dtype)
    k.free(on_host(k, (), dtype))
    return out


def _from_numpy(k: Tape, *, shape: Shape, strides: Shape | None, dtype: str) -> Tensor:
    """An array's own memory, of which torch's allocator knows nothing."""
    if k.target.on_cuda:
        raise UnsupportedError("an array lies on the host: what torch-cuda does with it is not modelled; ask for torch-cpu")
    return k.view(k.empty((0,), dtype), shape, strides)


def _like(k: Tape, input: Tensor, *, dtype: str | None) -> Tensor:
    return k.empty(input.shape, dtype or input.dtype, preserved_strides(input))


def _full_like(k: Tape, input: Tensor, *, fill_value: float, dtype: str | None) -> Tensor:
    return _like(k, input, dtype=dtype)


def _new(k: Tape, input: Tensor, *, size: Shape, dtype: str | None) -> Tensor:
    return _from_shape(k, shape=size, dtype=dtype or input.dtype)


def _new_full(k: Tape, input: Tensor, *, size: Shape, fill_value: float, dtype: str | None) -> Tensor:
    return _new(k, input, size=size, dtype=dtype)


def _row(
    name: str,
    forward: Any,
    roles: tuple[str, ...],
    attributes: tuple[Attribute, ...],
    examples: tuple[Example, ...],
    source: str = "TensorFactories.cpp",
    facts: Facts = EVERYWHERE_FACTS,
) -> Operator:
    return Operator(
        name=name,
        torch=f"torch.Tensor.{name}" if name.startswith("new_") else f"torch.{name}",
        roles=roles,
        attributes=attributes,
        forward=forward,
        saves=(),
        backward=None,
        examples=examples,
        facts=facts,
        source=f"aten/src/ATen/native/{source}",
    )


SHAPE = Attribute(name="shape", default=REQUIRED, check=integers)
SIZE = Attribute(name="size", default=REQUIRED, check=integers)
FLOAT = Attribute(name="dtype", default="float32", check=check_dtype)
DTYPE = Attribute(name="dtype", default=None, check=optional(check_dtype))
FILL = Attribute(name="fill_value", default=REQUIRED, check=number_or_flag)
NUMBERS = tuple(Attribute(name=n, default=d, check=number) for n, d in (("start", 0), ("end", REQUIRED), ("step", 1)))


def _calls(*attributes: dict[str, Any]) -> tuple[Example, ...]:
    return tuple(Example(shapes=(), attributes=a) for a in attributes)


def _of_input(*attributes: dict[str, Any]) -> tuple[Example, ...]:
    return tuple(Example(shapes=((2, 3, 4, 5),), attributes=a, layout="channels_last") for a in attributes)


ROWS = (
    *(_row(name, _from_shape, (), (SHAPE, FLOAT), _calls({"shape": (3, 4)}, {"shape": (), "dtype": "float64"})) for name in FILLED),
    _row("full", _full, (), (SHAPE, FILL, DTYPE), _calls({"shape": (3, 4), "fill_value": 1.5}, {"shape": (3,), "fill_value": 2})),
    _row(
        "arange",
        _arange,
        (),
        (*NUMBERS, DTYPE),
        _calls({"end": 5}, {"start": 1, "end": 6, "step": 2}, {"start": 0.0, "end": 2.0, "step": 0.3}),
        "RangeFactories.cpp",
    ),
    _row(
        "linspace",
        _linspace,
        (),
        (*NUMBERS[:2], Attribute(name="steps", default=REQUIRED, check=integer), FLOAT),
        _calls({"start": 0, "end": 1, "steps": 7}),
        "RangeFactories.cpp",
    ),
    _row(
        "eye",
        _eye,
        (),
        (Attribute(name="n", default=REQUIRED, check=integer), Attribute(name="m", default=None, check=optional(integer)), FLOAT),
        _calls({"n": 3}, {"n": 2, "m": 4}),
    ),
    _row(
        "randint",
        _randint,
        (),
        (
            Attribute(name="low", default=0, check=integer),
            Attribute(name="high", default=REQUIRED, check=integer),
            SHAPE,
            Attribute(name="dtype", default="int64", check=check_dtype),
        ),
        _calls({"high": 5, "shape": (3, 4)}),
    ),
    _row(
        "randperm",
        _randperm,
        (),
        (Attribute(name="n", default=REQUIRED, check=integer), Attribute(name="dtype", default="int64", check=check_dtype)),
        _calls({"n": 7}, {"n": 3, "dtype": "int32"}),
    ),
    Operator(
        name="from_numpy",
        torch="torch.from_numpy",
        roles=(),
        attributes=(SHAPE, Attribute(name="strides", default=None, check=optional(integers)), FLOAT),
        forward=_from_numpy,
        saves=(),
        backward=None,
        examples=_calls({"shape": (3, 4)}, {"shape": (4, 3), "strides": (1, 4)}, {"shape": (5,), "dtype": "int64"}),
        facts=EVERYWHERE_FACTS,
        source="torch/csrc/utils/tensor_numpy.cpp (tensor_from_numpy)",
        oracle="from_numpy",
    ),
    *(_row(name, _like, ("input",), (DTYPE,), _of_input({}, {"dtype": "float64"}), facts=POINTWISE_FACTS) for name in LIKE),
    _row("full_like", _full_like, ("input",), (FILL, DTYPE), _of_input({"fill_value": 1.0}), facts=POINTWISE_FACTS),
    *(_row(name, _new, ("input",), (SIZE, DTYPE), _of_input({"size": (3, 2)}, {"size": (4,), "dtype": "float64"})) for name in NEW),
    _row("new_full", _new_full, ("input",), (SIZE, FILL, DTYPE), _of_input({"size": (3, 2), "fill_value": 1.0})),
)
COMPOSITE_ROWS = ()
