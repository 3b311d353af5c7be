"""Values of small tensors that follow from what stands before the call: the module's own buffers and plain attributes, as they are now, and
lists of sizes written in the forward (``torch.tensor([x.shape[2], x.shape[3]])``). Sizes keep their symbols."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import reduce
from typing import Any

import numpy as np
import torch

from memest.network.graph import Layer

MOST = 4096
"""Elements of a tensor that is looked into."""
DEEPEST = 100
"""Calls that a tensor is followed back through."""
Array = np.ndarray[Any, np.dtype[Any]]
_AS_IT_IS = frozenset({"clone", "detach", "data", "alias", "contiguous", "to", "to_device"})
_OF_TWO: Mapping[str, Callable[[Any, Any], Any]] = {
    **{name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul")},
    "div": operator.truediv,
    "floor_divide": operator.floordiv,
    "maximum": max,
    "minimum": min,
}
_FOLDED: Mapping[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("amax", "_max", "max"), max),
    **dict.fromkeys(("amin", "_min", "min"), min),
    "sum": operator.add,
    "prod": operator.mul,
    "any": lambda a, b: bool(a) or bool(b),
    "all": lambda a, b: bool(a) and bool(b),
}


_LOOKED_INTO = {
    *_AS_IT_IS, *_FOLDED, *_OF_TWO, "getitem", "select", "view", "reshape", "flatten", "unsqueeze", "logical_not", "bitwise_not", "stack",
    "unbind",
}  # fmt: skip


def legible(t: torch.Tensor) -> torch.Tensor | None:
    """What can be read (:func:`of_tensor`) also when the tensor is gone; None where it is large or its numbers are not there."""
    if t.is_meta or t.numel() > MOST or t.layout is not torch.strided or t.dtype.is_complex:
        return None
    with torch._C.DisableTorchFunction():
        return t.detach()


def of_tensor(t: torch.Tensor) -> Array:
    """What a small tensor holds."""
    with torch._C.DisableTorchFunction():
        return np.array(t.cpu().tolist(), dtype=object).reshape(tuple(t.shape))


def of_list(numbers: Any) -> Array:
    """Nested lists of numbers; a size stays what it is."""
    shape: list[int] = []
    inner = numbers
    while isinstance(inner, list | tuple):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    made: Array = np.empty(tuple(shape), dtype=object)
    for place in np.ndindex(*shape):
        made[place] = reduce(operator.getitem, place, numbers)
    return made


def value_of(name: str, layers: Mapping[str, Layer], held: Callable[[str], Array | None], written: Set[str]) -> Array | None:
    """What the tensor ``name`` holds; ``held`` knows those that no layer made, ``written`` are those that something is written into.
    None where it does not follow."""
    return _Looked(layers, held, written).value(name, DEEPEST)


class _Looked:
    """One look for what tensors hold: at each once, and no further back than ``DEEPEST`` calls."""

    def __init__(self, layers: Mapping[str, Layer], held: Callable[[str], Array | None], written: Set[str]) -> None:
        self._layers, self._held, self._written = layers, held, written
        self._known: dict[str, Array | None] = {}

    def value(self, name: str, deep: int) -> Array | None:
        """What the tensor holds, if that follows."""
        if name not in self._known:
            self._known[name] = self._found(name, deep)
        return self._known[name]

    def _found(self, name: str, deep: int) -> Array | None:
        if name in self._written:
            return None
        known, layer = self._held(name), self._layers.get(name)
        if known is not None or layer is None or (len(layer.outputs) != 1 and layer.op != "unbind"):
            return known
        attributes = dict(layer.attributes)
        if not deep or attributes.get("inplace") or attributes.get("dtype") not in (None, "int64", "bool", "float32"):
            return None
        if layer.op == "arange":
            return _counted(**attributes)
        reads: list[Array] = []
        for read in layer.reads if layer.op in _LOOKED_INTO else ():
            given = self.value(read, deep - 1)
            if given is None:
                return None
            reads.append(given)
        try:
            if layer.op == "unbind":
                found = reads[0].take(layer.outputs.index(name), axis=attributes.get("dim", 0))
            else:
                found = _applied(layer.op, reads, attributes) if reads else None
        except (TypeError, ValueError, IndexError, ArithmeticError):  # a form of the call that is not looked into
            return None
        return None if found is None else _as_array(found)


def _counted(start: Any = 0, end: Any = 0, step: Any = 1, dtype: str | None = None) -> Array | None:
    """What ``torch.arange`` of whole numbers gives, where it is small and no size decides."""
    if any(type(n) is not int for n in (start, end, step)) or dtype not in (None, "int64") or not step:
        return None
    numbers = range(start, end, step)
    return np.array(numbers, dtype=object) if len(numbers) <= MOST else None


def _applied(op: str, given: Sequence[Array], attributes: Mapping[str, Any]) -> Any:
    first = given[0]
    if op in _AS_IT_IS:
        return _each(bool, first) if attributes.get("dtype") == "bool" else first
    if op in ("getitem", "select"):
        return first[_index(attributes)] if op == "getitem" else first.take(attributes["index"], axis=attributes["dim"])
    if op in ("view", "reshape"):
        return first.reshape(attributes["shape"])
    if op == "flatten":
        return first.reshape(-1) if attributes.get("start_dim", 0) == 0 and attributes.get("end_dim", -1) == -1 else None
    if op == "unsqueeze":
        return np.expand_dims(first, attributes["dim"])
    if op in ("logical_not", "bitwise_not"):
        return _each(operator.not_, first) if all(isinstance(v, bool) for v in first.flat) else None
    if op in _FOLDED:
        return _folded(_FOLDED[op], first, attributes)
    if op in _OF_TWO and not set(attributes) - {"value"}:
        other = given[1] if len(given) > 1 else _as_array(attributes["value"])
        return np.frompyfunc(_OF_TWO[op], 2, 1)(first, other)
    return np.stack(list(given), attributes.get("dim", 0)) if op == "stack" else None


def _index(attributes: Mapping[str, Any]) -> tuple[Any, ...]:
    words = {"...": Ellipsis}
    return tuple([slice(*i) if isinstance(i, tuple) else words.get(i, i) if isinstance(i, str) else i for i in attributes["index"]])


def _each(change: Callable[[Any], Any], values: Array) -> Any:
    return np.frompyfunc(change, 1, 1)(values)


def _folded(fold: Callable[[Any, Any], Any], values: Array, attributes: Mapping[str, Any]) -> Any:
    dim = attributes.get("dim")
    if dim in (None, ()):
        return reduce(fold, values.flat)
    if not isinstance(dim, int) or attributes.get("keepdim"):
        return None
    return np.frompyfunc(fold, 2, 1).reduce(values, axis=dim)


def _as_array(value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return value
    made: Array = np.empty((), dtype=object)
    made[()] = value
    return made


def attributes_of(modules: Iterable[torch.nn.Module]) -> list[torch.Tensor]:
    """The tensors that modules have as plain attributes."""
    return [v for m in modules for v in m.__dict__.values() if isinstance(v, torch.Tensor)]
