"""Arithmetic of sizes, done while the file is read: the chains over ``Shape`` that exporters write. Sizes that are free stay symbols.

A fold takes the known numbers of a node and gives those of its output, or None where there are too many of them to be followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, floor, prod
from typing import Any

import numpy as np

from memest.errors import GraphError
from memest.network.dtypes import FLOATING
from memest.sizes.dims import Dim
from memest.sources.importers.onnx.call import Call, axis
from memest.sources.importers.onnx.values import MOST_KNOWN, Known, dtype_name, initial, numbers
from memest.sources.importers.onnx.writing import dtype_of, shape_of

Fold = Callable[[Call, Sequence[Known]], Known | list[Known] | None]


def each(function: Callable[..., Any], dtype: str | None = None) -> Callable[[Call, Sequence[Known]], Known | None]:
    """Element by element, broadcast."""

    def fold(c: Call, given: Sequence[Known]) -> Known | None:
        shape = np.broadcast_shapes(*(k.shape for k in given))
        if prod(shape) > MOST_KNOWN:
            return None
        made = np.empty(shape, dtype=object)
        for at, values in zip(np.ndindex(shape), zip(*(np.broadcast_to(k.array, shape).flat for k in given), strict=True), strict=True):
            made[at] = _bounded(function(*values))
        return Known(made, dtype or dtype_of(given[-1]))

    return fold


def _bounded(n: Any) -> Any:
    """``n``, unless it is longer than any number in a file."""
    if isinstance(n, int) and not -(1 << 63) <= n < 1 << 64:
        raise GraphError("comes to a number of more than 64 bits")
    return n


def _power(a: Any, b: Any) -> Any:
    if abs(b) > 64:
        raise GraphError(f"has the exponent {b}")
    return a**b


def times(a: Any, b: Any) -> Any:
    """A product; by a whole factor a size stays one."""
    whole = [int(n) if isinstance(n, float) and n.is_integer() and isinstance(m, Dim) else n for n, m in ((a, b), (b, a))]
    return whole[0] * whole[1]


def _divided(c: Call, given: Sequence[Known]) -> Known | None:
    exact = given[0].dtype in FLOATING
    return each(_ratio if exact else _quotient)(c, given)


def _ratio(a: Any, b: Any) -> Any:
    if b == 0:
        raise GraphError("divides by zero")
    b = int(b) if isinstance(b, float) and b.is_integer() else b
    return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b


def _quotient(a: Any, b: Any) -> Any:
    """Division of whole numbers, towards zero."""
    if b == 0:
        raise GraphError("divides by zero")
    return a // b if (a >= 0) == (b > 0) else -(-a // b)


def _cast(c: Call, given: Sequence[Known]) -> Known:
    dtype = dtype_name(c.attribute("to", 1), "the result") if c.op == "Cast" else dtype_of(c.input(1))
    made = np.empty(given[0].shape, dtype=object)
    for at in np.ndindex(made.shape):
        made[at] = _as(given[0].array[at], dtype)
    return Known(made, dtype)


def _as(n: Any, dtype: str) -> Any:
    if dtype == "bool":
        return bool(n)
    if dtype in FLOATING:
        return n if isinstance(n, Dim) else float(n)
    return n if isinstance(n, int) and not isinstance(n, bool) else int(n)


def _shape(c: Call, given: Sequence[Known]) -> Known:
    sizes = list(shape_of(c.input(0)))
    return numbers(sizes[c.attribute("start", 0) : c.attribute("end", None)])


def _size(c: Call, given: Sequence[Known]) -> Known:
    return numbers(prod(shape_of(c.input(0))))


def _gather(c: Call, given: Sequence[Known]) -> Known | None:
    at = c.axis(0, len(given[0].shape))
    places = np.empty(given[1].shape, dtype=np.int64)
    size = given[0].shape[at]
    if places.size * (given[0].array.size // max(size, 1)) > MOST_KNOWN:
        return None
    for i in np.ndindex(places.shape):
        places[i] = n = int(given[1].array[i])
        if not -size <= n < size:
            raise GraphError(f"takes number {n} of {size}")
    return Known(_array(np.take(given[0].array, places, axis=at)), given[0].dtype)


def _array(value: Any) -> Any:
    """What numpy gave: of no dims it gives the object itself."""
    return value if isinstance(value, np.ndarray) else numbers(value).array


def _concat(c: Call, given: Sequence[Known]) -> Known | None:
    parts = [k.array for k in given]
    if sum(part.size for part in parts) > MOST_KNOWN:
        return None
    return Known(np.concatenate(parts, axis=c.axis(0, parts[0].ndim)), given[0].dtype)


def _slice(c: Call, given: Sequence[Known]) -> Known:
    """Parts of known numbers."""
    array = given[0].array
    for at, start, end, step in slices(c, array.ndim):
        index: list[Any] = [slice(None)] * array.ndim
        index[at] = slice(int(start), int(end) if step > 0 or end >= -array.shape[at] else None, int(step))
        array = array[tuple(index)]
    return Known(array, given[0].dtype)


def slices(c: Call, ndim: int) -> list[tuple[int, Any, Any, int]]:
    """The axis, start, end and step of each part that a Slice takes: inputs, before opset 10 attributes."""
    if c.version < 10:
        starts, ends, axes, steps = c.attribute("starts"), c.attribute("ends"), c.attribute("axes"), None
    else:
        starts, ends = c.numbers(1), c.numbers(2)
        axes, steps = (c.numbers(i) if c.given(i) else None for i in (3, 4))
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or any(s == 0 for s in steps):
        raise GraphError("has not one start, end, axis and step for each")
    return [(axis(a, ndim), s, e, int(step)) for a, s, e, step in zip(axes, starts, ends, steps, strict=True)]


def _unsqueeze(c: Call, given: Sequence[Known]) -> Known:
    axes = c.attribute("axes") or c.numbers(1)
    ndim = len(given[0].shape) + len(axes)
    array = given[0].array
    for at in sorted(axis(a, ndim) for a in axes):
        array = np.expand_dims(array, at)
    return Known(array, given[0].dtype)


def _squeeze(c: Call, given: Sequence[Known]) -> Known:
    axes = c.axes(1, len(given[0].shape))
    return Known(_array(np.squeeze(given[0].array, axis=axes)), given[0].dtype)


def _reshape(c: Call, given: Sequence[Known]) -> Known:
    wanted = [int(n) for n in c.numbers(1)]
    wanted = [given[0].shape[i] if n == 0 and i < len(given[0].shape) else n for i, n in enumerate(wanted)]
    return Known(given[0].array.reshape(wanted), given[0].dtype)


def _transpose(c: Call, given: Sequence[Known]) -> Known:
    return Known(np.transpose(given[0].array, c.attribute("perm")), given[0].dtype)


def filling(c: Call) -> tuple[Any, str]:
    """The number that a ConstantOfShape is full of, and its dtype."""
    value = c.attribute("value")
    found = None if value is None else initial(value, "value").numbers
    return (0.0, "float32") if found is None or found.array.size != 1 else (found.array.flat[0], found.dtype)


def _filled(c: Call, given: Sequence[Known]) -> Known | None:
    shape, (number, dtype) = c.numbers(0), filling(c)
    if any(isinstance(n, Dim) for n in shape) or prod(shape) > MOST_KNOWN:
        return None
    return Known(np.full(shape, number, dtype=object), dtype)


def _range(c: Call, given: Sequence[Known]) -> Known | None:
    start, end, step = (c.number(i) for i in range(3))
    if isinstance(end - start, Dim) or isinstance(step, Dim) or step == 0 or (end - start) / step > MOST_KNOWN:
        return None
    return numbers(np.arange(start, end, step).astype(object), given[0].dtype)


def _expand(c: Call, given: Sequence[Known]) -> Known | None:
    wanted = c.numbers(1)
    if any(isinstance(n, Dim) for n in wanted) or prod(wanted) > MOST_KNOWN:
        return None
    return Known(np.broadcast_to(given[0].array, np.broadcast_shapes(given[0].shape, wanted)), given[0].dtype)


def _reduced(function: Callable[[Any, Any], Any], empty: Any) -> Fold:
    def fold(c: Call, given: Sequence[Known]) -> Known | None:
        array = given[0].array
        axes = c.axes(1, array.ndim)
        if array.ndim > 1 or (axes is None and c.attribute("noop_with_empty_axes", 0)):
            return None
        result = empty
        for n in array.flat:
            result = n if result is None else function(result, n)
        return numbers([result] if c.attribute("keepdims", 1) and array.ndim else result, given[0].dtype)

    return fold


def _split(c: Call, given: Sequence[Known]) -> list[Known] | None:
    array = given[0].array
    at = c.axis(0, array.ndim)
    sizes = c.attribute("split") or (c.numbers(1) if c.given(1) else None)
    if sizes is None:
        count = len(c.node.output)
        part = -(-array.shape[at] // max(count, 1))
        sizes = [part] * (count - 1) + [array.shape[at] - part * (count - 1)]
    places = np.cumsum([int(n) for n in sizes])[:-1]
    return [Known(part, given[0].dtype) for part in np.split(array, places, axis=at)]


def _where(a: Any, b: Any, c: Any) -> Any:
    return b if a else c


def _nonzero(c: Call, given: Sequence[Known]) -> Known:
    array = given[0].array
    found = [at for at in np.ndindex(array.shape) if array[at]]
    return numbers(np.array(found, dtype=object).reshape(len(found), array.ndim).T)


def _numbers_of_node(c: Call, given: Sequence[Known]) -> Known | None:
    """The numbers in a Constant, where they are few."""
    value = c.attribute("value")
    if value is not None:
        return initial(value, "value").numbers
    for name, dtype in (("value_int", "int64"), ("value_float", "float32"), ("value_ints", "int64"), ("value_floats", "float32")):
        found = c.attribute(name)
        if found is not None:
            return numbers(found, dtype)
    raise c.refuse("a Constant of text or of a sparse tensor")


ALWAYS: dict[str, Fold] = {"Shape": _shape, "Size": _size, "Constant": _numbers_of_node}
"""What is known of any tensor."""
FOLDS: dict[str, Fold] = {
    "Add": each(lambda a, b: a + b),
    "Sub": each(lambda a, b: a - b),
    "Mul": each(times),
    "Div": _divided,
    "Mod": each(lambda a, b: a % b),
    "Neg": each(lambda a: -a),
    "Abs": each(abs),
    "Min": each(min),
    "Max": each(max),
    "Pow": each(_power),
    "Floor": each(floor),
    "Ceil": each(ceil),
    "Sqrt": each(lambda a: a**0.5),
    "Reciprocal": each(lambda a: 1 / a),
    "Equal": each(lambda a, b: bool(a == b), "bool"),
    "Greater": each(lambda a, b: bool(a > b), "bool"),
    "GreaterOrEqual": each(lambda a, b: bool(a >= b), "bool"),
    "Less": each(lambda a, b: bool(a < b), "bool"),
    "LessOrEqual": each(lambda a, b: bool(a <= b), "bool"),
    "Not": each(lambda a: not a, "bool"),
    "And": each(lambda a, b: bool(a) and bool(b), "bool"),
    "Or": each(lambda a, b: bool(a) or bool(b), "bool"),
    "Where": each(_where),
    "Cast": _cast,
    "CastLike": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "ConstantOfShape": _filled,
    "Range": _range,
    "Expand": _expand,
    "ReduceProd": _reduced(lambda a, b: a * b, 1),
    "ReduceSum": _reduced(lambda a, b: a + b, 0),
    "ReduceMax": _reduced(max, None),
    "ReduceMin": _reduced(min, None),
    "Split": _split,
    "NonZero": _nonzero,
}


def folded(c: Call) -> list[Known] | None:
    """The outputs of a node of which all is known; None where it is not, or too much."""
    fold = ALWAYS.get(c.op)
    if fold is None:
        fold = FOLDS.get(c.op)
        given = [c.known(i) if c.given(i) else None for i in range(len(c.inputs))]
        if fold is None or not given or any(k is None and c.given(i) for i, k in enumerate(given)):
            return None
        if any(getattr(v, "trainable", False) for v in c.inputs):
            return None
        made = fold(c, [k for k in given if k is not None])
    else:
        made = fold(c, [])
    if made is None:
        return None
    return made if isinstance(made, list) else [made]
