"""Tensors made by torch's older constructors: ``torch.Tensor([1, 2])``, ``torch.FloatTensor(n, 3)``, ``torch.from_numpy(array)``.

torch tells nobody of these calls. While a forward is recorded they are calls of functions that it does tell of, in whatever thread: they
make the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from memest.sources.importers.torch.contexts.loading import torch_loads_without

DTYPES = {
    "FloatTensor": torch.float32,
    "DoubleTensor": torch.float64,
    "HalfTensor": torch.float16,
    "BFloat16Tensor": torch.bfloat16,
    "LongTensor": torch.int64,
    "IntTensor": torch.int32,
    "ShortTensor": torch.int16,
    "CharTensor": torch.int8,
    "ByteTensor": torch.uint8,
    "BoolTensor": torch.bool,
}


def made(dtype: torch.dtype, arguments: tuple[Any, ...]) -> torch.Tensor:
    """What a constructor of this ``dtype`` makes: of a tensor another on its memory, of data or an array what they hold, of sizes (none: 0)
    a tensor that holds nothing yet."""
    first = arguments[0] if arguments else 0
    if isinstance(first, torch.Size):
        return torch.empty(first, dtype=dtype)
    if isinstance(first, torch.Tensor) and first.ndim:
        if first.dtype != dtype:
            raise TypeError(f"expected {dtype} (got {first.dtype})")
        return first.detach()
    if isinstance(first, list | tuple):
        return torch.tensor(first, dtype=dtype)
    if hasattr(first, "__array_interface__") and getattr(first, "shape", None):
        return torch.as_tensor(first, dtype=dtype)
    return torch.empty(arguments or (0,), dtype=dtype)


class _Kind(type):
    """What stands for ``torch.FloatTensor`` and the like."""

    dtype: torch.dtype

    def __call__(cls, *arguments: Any, device: Any = None) -> Any:
        return made(cls.dtype, arguments)

    def __instancecheck__(cls, other: Any) -> bool:
        return isinstance(other, torch.Tensor) and other.dtype == cls.dtype


def _new_tensor(cls: type[torch.Tensor], *arguments: Any, **named: Any) -> torch.Tensor:
    """``torch.Tensor(…)``."""
    if cls is not torch.Tensor or named:
        return torch._C.TensorBase.__new__(cls, *arguments, **named)
    return made(torch.get_default_dtype(), arguments)


def _range(start: float = 0, end: float = 0, step: float = 1, **named: Any) -> torch.Tensor:
    """``torch.range``, which reaches its end, and whose numbers are floats."""
    return torch.empty(int((end - start) / step) + 1, **{"dtype": torch.get_default_dtype(), **named})


_OF_TORCH = {name: getattr(torch, name) for name in (*DTYPES, "from_numpy", "range")}
_SEEN = {
    **{name: _Kind(name, (), {"dtype": dtype, "__module__": "torch"}) for name, dtype in DTYPES.items()},
    "from_numpy": torch.as_tensor,
    "range": _range,
}


def _put(constructors: Mapping[str, Any], *, told: bool) -> None:
    for name, value in constructors.items():
        setattr(torch, name, value)
    if told:
        torch.Tensor.__new__ = _new_tensor
    elif "__new__" in vars(torch.Tensor):
        del torch.Tensor.__new__


@contextmanager
def seen() -> Iterator[None]:
    """Until here these constructors are functions that a recorder is told of; what torch loads meanwhile finds its own."""
    away, back = partial(_put, _OF_TORCH, told=False), partial(_put, _SEEN, told=True)
    back()
    try:
        with torch_loads_without(away, back):
            yield
    finally:
        away()


def _new(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``x.new(sizes)``, ``x.new([1, 2])``, ``x.new(other)``: the same in the dtype of ``x``, where that lies."""
    like, first = args[0], args[1] if len(args) > 1 else 0
    with recorder:
        if isinstance(first, torch.Tensor) and first.ndim:
            return first.detach()
        if isinstance(first, list | tuple) and not isinstance(first, torch.Size):
            return like.new_tensor(first)
        return like.new_empty(first if isinstance(first, torch.Size) else args[1:] or (0,))


def _type(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``x.type()`` is a text, ``x.type(torch.FloatTensor)`` and ``x.type("torch.FloatTensor")`` are casts."""
    if len(args) + len(kwargs) == 1:
        return next((f"torch.{name}" for name, dtype in DTYPES.items() if dtype == args[0].dtype), NotImplemented)
    wanted = args[1] if len(args) > 1 else kwargs.get("dtype")
    known = DTYPES.get(wanted.removeprefix("torch.")) if isinstance(wanted, str) else getattr(wanted, "dtype", None)
    if not isinstance(known, torch.dtype) or isinstance(wanted, torch.Tensor):
        return NotImplemented
    with recorder:
        return args[0].to(known)


ANSWERS: dict[str, Any] = {"new": _new, "type": _type}
