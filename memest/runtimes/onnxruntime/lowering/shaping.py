"""Views, concatenation, pieces and copies of tensors."""

from __future__ import annotations

from collections.abc import Sequence

from memest.network.layers import ENDS
from memest.network.tensor import same_shape
from memest.runtimes.onnxruntime.lowering.exporting import Call, Handler
from memest.runtimes.onnxruntime.lowering.nodes import Value
from memest.runtimes.rewriting import SAME_VALUE


def _view(c: Call) -> Value:
    return c.input if same_shape(c.input.shape, c.shape) else c.sizes(c.input, c.shape)


def _named_view(op: str) -> Handler:
    return lambda c: c.put(op, [c.input, c.constant((1,), "int64")])


def _permute(c: Call) -> Value:
    dims = [d % len(c.shape) for d in c["dims"]]
    return c.transposed(c.input, dims)


def _transpose(c: Call) -> Value:
    rank = len(c.shape)
    dims = list(range(rank))
    a, b = (0, 1) if c.op == "t" else (c[k] % rank for k in (("dim0", "dim1") if "dim0" in c.attributes else ("axis0", "axis1")))
    dims[a], dims[b] = dims[b], dims[a]
    return c.transposed(c.input, dims)


def _cat(c: Call) -> Value:
    parts = [t for t in c.tensors[0] if t.shape != (0,)]
    return parts[0] if len(parts) == 1 else c.put("Concat", parts, axis=c["dim"] % len(c.shape))


def _stack(c: Call) -> Value:
    dim = c["dim"] % len(c.shape)
    whole = tuple(1 if d == dim else n for d, n in enumerate(c.shape))
    return c.put("Concat", [c.put("Unsqueeze", [t, c.constant((1,), "int64")], whole) for t in c.tensors[0]], axis=dim)


def _split(c: Call) -> Sequence[Value]:
    shapes = [s.shape for s in c.gives if s is not None]
    return c.several("Split", [c.input], shapes, axis=c["dim"] % len(shapes[0]))


def _chunk(c: Call) -> Sequence[Value]:
    return _split(c)


def _unbind(c: Call) -> Sequence[Value]:
    shape = c.shape
    dim = c["dim"] % (len(shape) + 1)
    pieces = [cut(c, c.input, dim, i, 1) for i in range(len(c.gives))]
    return [c.put("Squeeze", [p, c.constant((1,), "int64")], shape) for p in pieces]


def _select(c: Call) -> Value:
    return c.put("Gather", [c.input, c.constant((), "int64")], axis=c["dim"] % len(c.input.shape), index=c["index"])


def _slice(c: Call) -> Value:
    """``slice`` and ``narrow``."""
    at = c["dim"] % len(c.shape)
    if "length" in c.attributes:
        start, step = c["start"], 1
    else:
        step = c["step"]
        start = range(*slice(c["start"], c["end"], step).indices(c.input.shape[at])).start
    return cut(c, c.input, at, start, c.shape[at], step)


def cut(c: Call, value: Value, axis: int, start: int, length: int, step: int = 1) -> Value:
    """A part of one dim, ``length`` long; the value itself where that is all of it."""
    if length == value.shape[axis]:
        return value
    shape = (*value.shape[:axis], length, *value.shape[axis + 1 :])
    part = {"axis": axis, "start": start, "end": start + length} if step == 1 else {}
    return c.put("Slice", [value, *(c.constant((1,), "int64") for _ in range(4))], shape, value.dtype, **part)


def _getitem(c: Call) -> Value:
    """Each dim that is cut is a slice, each number a gather, each None an unsqueeze; one tensor of places is a gather."""
    index = c["index"]
    items = list(index) if isinstance(index, tuple) else [index]
    if c["indices"]:
        if len(c["indices"]) != 1:
            if c.from_file:
                return c.put("GatherND", [c.input, *c["indices"]])
            raise c.refuse("indexing by several tensors")
        return c.put("Gather", [c.input, c["indices"][0]])
    found, at = c.input, 0
    given = sum(1 for item in items if item is not None and item != "...")
    for item in items:
        if item == "...":
            at += len(c.input.shape) - given
        elif item is None:
            found = c.put("Unsqueeze", [found, c.constant((1,), "int64")], (*found.shape[:at], 1, *found.shape[at:]), found.dtype)
            at += 1
        elif isinstance(item, tuple):
            places = range(*slice(*item).indices(found.shape[at]))
            found = cut(c, found, at, places.start, len(places), places.step)
            at += 1
        else:
            wanted = (*found.shape[:at], *found.shape[at + 1 :])
            found = c.put("Gather", [found, c.constant((), "int64")], wanted, found.dtype, axis=at, index=item)
    return found


def _by_place(op: str) -> Handler:
    """Elements at places of one dim, taken or put."""
    return lambda c: c.put(op, [c.input, c["index"], *([c["src"] or c.constant()] if op == "ScatterElements" else [])])


def _index_put(c: Call) -> Value:
    if not c.from_file:
        raise c.refuse("putting into a tensor at places")
    return c.put("ScatterND", [c.input, *c["indices"], c["other"]])


def _topk(c: Call) -> Sequence[Value]:
    values, places = (s for s in c.gives if s is not None)
    found, at = c.several("TopK", [c.input, c.constant((1,), "int64")], [values.shape, places.shape])
    at.dtype = places.dtype
    return [found, at]


def _embedding(c: Call) -> Value:
    return c.put("Gather", [c["weight"], c["indices"]])


def _index_select(c: Call) -> Value:
    return c.put("Gather", [c.input, c["index"]])


def _expand(c: Call) -> Value:
    return c.put("Expand", [c.input, c.constant((len(c.shape),), "int64")])


def _repeat(c: Call) -> Value:
    """The exporter expands to as many dims first, also where there is nothing to add."""
    whole = (1,) * (len(c.shape) - len(c.input.shape)) + c.input.shape
    dims = c.constant((len(c.shape),), "int64")
    return c.put("Tile", [c.input if c.from_file else c.put("Expand", [c.input, dims], whole), dims])


def _pad(c: Call) -> Value:
    """``sides`` are before and behind each dim; ``zeros``: that is what is put there; ``own``: the file has it in what reads it."""
    rank, given = len(c.shape), tuple(c["pad"])
    sides = [(0, 0)] * (rank - len(given) // 2) + [given[n : n + 2] for n in range(len(given) - 2, -1, -2)]
    zeros = c["mode"] == "constant" and not c["value"]
    return c.put("Pad", [c.input, c.constant((2 * rank,), "int64"), c.constant()], sides=sides, zeros=zeros, own=c.layer.endswith(ENDS))


def _roll(c: Call) -> Value:
    """Each dim in turn: two slices, joined."""
    shifts, dims = c["shifts"], c["dims"]
    shifts = (shifts,) if isinstance(shifts, int) else shifts
    dims = (dims,) if isinstance(dims, int) else dims
    found = c.input
    for shift, dim in zip(shifts, dims, strict=True):
        n = c.shape[dim]
        pieces = [cut(c, found, dim, n - shift % n, shift % n), cut(c, found, dim, 0, n - shift % n)]
        found = c.put("Concat", pieces, axis=dim)
    return found


def _channel_shuffle(c: Call) -> Value:
    n, channels, *sizes = c.shape
    groups = c["groups"]
    apart = c.sizes(c.input, (n, groups, channels // groups, *sizes))
    order = (0, 2, 1, *range(3, len(apart.shape)))
    return c.sizes(c.transposed(apart, order), c.shape)


def _same(c: Call) -> Value:
    return c.input


def _constant(c: Call) -> Value:
    return c.constant(c.shape)


def _cast(c: Call) -> Value:
    return c.input if c.input.dtype == c.dtype else c.put("Cast", [c.input])


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "_unsafe_view"), _view),
    **{"unsqueeze": _named_view("Unsqueeze"), "squeeze": _named_view("Squeeze")},
    **dict.fromkeys(("permute",), _permute),
    **dict.fromkeys(("transpose", "t", "swapaxes"), _transpose),
    **dict.fromkeys(("split", "tensor_split", "unsafe_split"), _split),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys(("full", "zeros", "ones", "arange", "full_like", "zeros_like", "ones_like", "new_zeros", "new_ones"), _constant),
    **dict.fromkeys(("to", "_to_copy"), _cast),
    **dict.fromkeys(SAME_VALUE, _same),
    "cat": _cat,
    "stack": _stack,
    "chunk": _chunk,
    "unbind": _unbind,
    "select": _select,
    "slice": _slice,
    "narrow": _slice,
    "getitem": _getitem,
    "embedding": _embedding,
    "index_select": _index_select,
    "gather": _by_place("GatherElements"),
    "scatter": _by_place("ScatterElements"),
    "index_put_": _index_put,
    "topk": _topk,
    "repeat": _repeat,
    "pad": _pad,
    "roll": _roll,
    "channel_shuffle": _channel_shuffle,
}
