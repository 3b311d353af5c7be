"""Tensors that become NumPy's arrays and come back: a matching by ``scipy``, boxes that NumPy filters, anchors that it makes.

Nobody knows what stands in such an array, so random numbers do, others in each recording: where two recordings differ, something depends on
them. Neither way allocates anything: the array has the memory of the tensor, which lives as long, and ``torch.from_numpy`` has the array's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from memest.sizes.dims import Dim
from memest.sources.importers.torch.calls.plain import Call, Request, plain
from memest.sources.importers.torch.calls.special import CALLS as SPECIAL_CALLS
from memest.sources.importers.torch.tensors.numbers import STAND_INS

ALIKE = 1
"""The recording in which all numbers of an array are one."""
MOST_WHOLE = (100, 0, 3)
"""The largest whole number of an array, recording by recording."""
GRADIENT = "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."


class Array(NamedTuple):
    """What torch sees of an array."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


class _Memory:
    """The memory of a tensor as an array sees it: the tensor lives as long."""

    def __init__(self, tensor: torch.Tensor, values: np.ndarray[Any, Any]) -> None:
        self._of = tensor, values
        self.__array_interface__ = values.__array_interface__


def _drawn(shape: tuple[int, ...], dtype: str, stand_in: float) -> np.ndarray[Any, Any]:
    """What stands in an array: random numbers, of another size for each number that stands in; one recording has the same everywhere."""
    nth = STAND_INS.index(stand_in) if stand_in in STAND_INS else 0
    random = np.random.default_rng(nth)
    if dtype == "bool":
        return np.asarray(random.integers(0, 2, shape) > (nth == ALIKE))
    if dtype.startswith(("int", "uint")):
        return np.asarray(random.integers(0, MOST_WHOLE[nth] + 1, shape)).astype(dtype)
    values: Any = np.full(shape, -stand_in) if nth == ALIKE else random.standard_normal(shape) * stand_in
    return np.asarray(values).astype(dtype)


def _numpy(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``t.numpy()``, ``np.asarray(t)``."""
    t, numbers = args[0], recorder.numbers
    entry = recorder.live.known(t)
    if entry.grad and not kwargs.get("force"):
        raise RuntimeError(GRADIENT)
    recorder.refuse_card("a tensor as an array")
    for size in entry.value.spec.shape:
        if isinstance(size, Dim):
            recorder.taken(size)
    numbers.place = numbers.place or recorder.place()
    numbers.read += 1
    dtype = plain(t.dtype)
    values = _drawn(tuple(int(n) for n in entry.value.spec.shape), "float32" if dtype == "bfloat16" else dtype, numbers.stand_in)
    found = np.asarray(_Memory(t, values))
    wanted = args[1] if len(args) > 1 else kwargs.get("dtype")
    return found if wanted is None else found.astype(wanted, copy=False)


def opened(value: Any) -> Any:
    """An array as torch sees it; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    return Array(value.shape, tuple(s // value.itemsize for s in value.strides), value.dtype.name)


def _taken(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``torch.as_tensor(array)``, ``torch.tensor(array)``."""
    if not args or not isinstance(args[0], np.ndarray):
        return NotImplemented
    recorder.refuse_card("an array as a tensor")
    if func is torch.asarray:
        func = torch.as_tensor
    with recorder:
        return func(opened(args[0]), **{name: value for name, value in kwargs.items() if name in ("dtype", "device")})


def _as_tensor(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """An array is taken as it is, unless it becomes another dtype."""
    array = args[0] if args else None
    if not isinstance(array, Array):
        return SPECIAL_CALLS[name](name, args, kwargs, recorder)
    dtype = plain(kwargs.get("dtype")) or array.dtype
    if name == "tensor" or dtype != array.dtype:
        return Request("empty", [], {"shape": array.shape, "dtype": dtype}, own_result=True)
    return Request("from_numpy", [], {"shape": array.shape, "strides": array.strides, "dtype": dtype}, own_result=True)


CALLS: dict[str, Call] = dict.fromkeys(("as_tensor", "tensor"), _as_tensor)
ANSWERS: dict[str, Any] = {
    **dict.fromkeys(("numpy", "__array__"), _numpy),
    **dict.fromkeys(("as_tensor", "tensor", "asarray"), _taken),
}
