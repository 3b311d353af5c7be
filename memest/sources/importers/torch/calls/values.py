"""Calls whose sizes depend on values: masks as an index, where a tensor is not 0, its different values. How many, the recorder's
assumptions say (``assuming``); without any these calls are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from memest.errors import UnsupportedError
from memest.sources.assumptions import UNIQUE
from memest.sources.importers.torch.assuming.following import apart
from memest.sources.importers.torch.calls.plain import Call, Request, bound
from memest.sources.importers.torch.calls.special import index_entries, is_mask
from memest.sources.importers.torch.calls.windows import at_the_beginning

BY_MASK = "x[mask]"
SWITCHED = "fused_moving_avg_obs_fake_quant"  # which buffers switch off
PACKED = frozenset({"_pack_padded_sequence", "lstm", "gru", "rnn_tanh", "rnn_relu"})
COUNTED = frozenset({"nonzero", "argwhere", "masked_select", "_unique2", "bincount", "_ctc_loss", "nms"}) | PACKED

_INDEXING, _LITERAL = frozenset({"__getitem__", "__setitem__"}), frozenset({"tensor", "as_tensor"})


def depends_on_values(name: str, args: Any) -> bool:
    """Whether a call comes to something else with other values."""
    if name in _INDEXING:
        index = args[1]
        return any(map(is_mask, index)) if type(index) is tuple else is_mask(index)
    if name in _LITERAL and args and isinstance(args[0], int | float | list | tuple):
        return True  # numbers that may be read again
    return name in COUNTED or name == SWITCHED


def _entries(index: Any) -> tuple[Any, ...]:
    """The entries of an index, numpy's whole numbers as Python's."""
    return tuple([_pythons(i) for i in index]) if isinstance(index, tuple) else (_pythons(index),)


def _pythons(entry: Any) -> Any:
    if isinstance(entry, slice):
        return slice(_pythons(entry.start), _pythons(entry.stop), _pythons(entry.step))
    return int(entry) if isinstance(entry, np.integer) else entry


def counts_of(tensors: list[torch.Tensor], recorder: Any, written: str = BY_MASK) -> tuple[int, ...]:
    """How many elements each mask among the tensors picks."""
    return tuple(recorder.assumed.of_mask(t, written) for t in tensors if is_mask(t))


def _getitem(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x[...]``: basic entries as they are, index tensors and masks beside them."""
    index = _index(args, recorder)
    entries, tensors = index_entries(index)
    counts = counts_of(tensors, recorder)
    attributes = {"index": entries, **({"counts": counts} if counts else {})}
    return Request("getitem", [args[0], tensors], attributes, own_result=bool(counts), args=(args[0], index))


def _index(args: Any, recorder: Any) -> tuple[Any, ...]:
    """The entries of an index, its windows moved where they may lie as a number read from a tensor says."""
    index = _entries(args[1])
    return at_the_beginning(index, recorder.live.known(args[0]).value.spec.shape) if recorder.numbers.anywhere else index


def _setitem(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x[...] = value``; at index tensors and masks with nothing beside them but whole dims (the rest is a view before, see ANSWERS).
    Which number is written decides nothing."""
    index = _index(args, recorder)
    entries, tensors = index_entries(index)
    value = args[2] if isinstance(args[2], torch.Tensor) else None
    number = {"value": 0 if recorder.numbers.anywhere and isinstance(args[2], int) else args[2]} if value is None else {}
    if not tensors:
        return Request("setitem", [args[0], value], {"index": entries, **number}, args=(args[0], index, args[2]))
    written = isinstance(value, torch.Tensor) and value.numel() != 1
    masks = [t for t in tensors if is_mask(t)]
    if written and len(masks) == 1 and value is not None and value.ndim == args[0].ndim - masks[0].ndim + 1 and len(tensors) == 1:
        recorder.assumed.learn(masks[0], value.shape[0])
    counts = counts_of(tensors, recorder, "x[mask] = value") if written or len(tensors) > 1 else tuple(0 for _ in masks)
    dims, at = [], 0
    left = iter(tensors)
    for entry in entries:
        if entry == "tensor":
            t = next(left)
            dims.append(at)
            at += t.ndim if is_mask(t) else 1
        elif entry == "...":
            at = args[0].ndim - sum(t.ndim if is_mask(t) else 1 for t in left)
        else:
            at += 1
    return Request("index_put_", [args[0], tensors, value], {"dims": tuple(dims), "counts": counts, **number}, own_result=True)


def _nonzero(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.nonzero(x)`` and ``torch.argwhere(x)``, one tensor."""
    return Request("nonzero", [args[0]], {"count": recorder.assumed.of_mask(args[0], f"torch.{name}()")}, own_result=True)


def _masked_select(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    given = bound(("input", "mask"), args, kwargs)
    count = recorder.assumed.of_mask(given["mask"], "torch.masked_select()")
    return Request("masked_select", [given["input"], given["mask"]], {"count": count}, own_result=True)


def _unique(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """What ``torch.unique`` calls."""
    given = bound(("input", "sorted", "return_inverse", "return_counts"), args, kwargs)
    input = given.pop("input")
    count = recorder.assumed.count(UNIQUE, _numel(input, recorder), "torch.unique()")
    return Request("unique", [input], {"count": count, **given}, own_result=True)


def _bincount(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    given = bound(("input", "weights", "minlength"), args, kwargs)
    count = recorder.assumed.bins(given.get("minlength", 0))
    return Request("bincount", [given["input"], given.get("weights")], {"count": count}, own_result=True)


def _numel(t: torch.Tensor, recorder: Any) -> int:
    total: Any = 1
    for n in recorder.live.known(t).value.spec.shape:
        total = n * total
    return int(total) if type(total) is bool else total


CALLS: dict[str, Call] = {
    "__getitem__": _getitem,
    "__setitem__": _setitem,
    **dict.fromkeys(("nonzero", "argwhere"), _nonzero),
    "masked_select": _masked_select,
    "_unique2": _unique,
    "bincount": _bincount,
}


# what is taken apart before it is recorded -------------------------------------------------------------------------------


def _where(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``torch.where(mask)``: the places, dim by dim."""
    return NotImplemented if len(args) + len(kwargs) > 1 else _places(recorder, args[0])


def _nonzero_by_dim(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``torch.nonzero(mask, as_tuple=True)``."""
    return _places(recorder, args[0]) if kwargs.get("as_tuple") else NotImplemented


def _places(recorder: Any, mask: torch.Tensor) -> Any:
    with recorder:
        return torch.nonzero(mask if mask.ndim else mask.unsqueeze(0)).unbind(1)


def _is_moved(entry: Any) -> bool:
    """Whether an entry of an index is a window that tensors bound."""
    return isinstance(entry, slice) and any(isinstance(b, torch.Tensor) for b in (entry.start, entry.stop))


def _settled(recorder: Any, t: torch.Tensor, index: Any) -> Any:
    """An index whose windows lie where that is known, or are as long as is stated."""
    entries, dim = list(_entries(index)), 0
    for i, entry in enumerate(entries):
        if entry is Ellipsis:
            dim = t.ndim - sum(e.ndim if is_mask(e) else e is not None for e in entries[i + 1 :])
            continue
        if _is_moved(entry):
            width = _width(recorder, entry)
            if width is not None:
                entries[i] = slice(0, width)
                dim += 1
                continue
            start, stop = (recorder.assumed.bound(b) if isinstance(b, torch.Tensor) else b for b in (entry.start, entry.stop))
            if start is not None and start == stop and all(isinstance(b, torch.Tensor) for b in (entry.start, entry.stop)):
                line = recorder.assumed.line()
                raise UnsupportedError(
                    f"a window between two numbers in tensors, the same by what is stated: state both, assume={{{line!r}: [0, 9]}}"
                )
            unknown = [b for b, n in ((entry.stop, stop), (entry.start, start)) if isinstance(b, torch.Tensor) and n is None]
            if len(unknown) == 2 and not recorder.assumed.says_size():
                line = recorder.assumed.line()
                raise UnsupportedError(
                    f"a window between two numbers in tensors depends on values; state both, where it begins and where it ends:"
                    f" assume={{{line!r}: [0, 9]}}, in a command --assume {line}=0,9; or how long it is: assume={{'size': 9}}"
                )
            if unknown:
                start, stop = 0, min(recorder.assumed.size(unknown[0]), t.shape[dim])
            entries[i] = slice(start, stop, entry.step)
        dim += entry.ndim if is_mask(entry) else entry is not None
    return tuple(entries) if isinstance(index, tuple) else entries[0]


def _width(recorder: Any, window: slice) -> int | None:
    """How wide a window between two tensors is, wherever it lies; None where that does not follow."""
    bounds = [recorder.live.known(b).names[-1] for b in (window.start, window.stop) if isinstance(b, torch.Tensor)]
    found = apart(recorder.layers, *bounds) if len(bounds) == 2 and window.step in (None, 1) else None
    recorder.assumed.asked = recorder.assumed.asked or found is not None
    return found


def _is_opened(entry: Any) -> bool:
    """Whether an entry of an index is an array, a list of whole numbers, or a tensor of one, which torch reads: its place is a view."""
    if isinstance(entry, torch.Tensor):
        return entry.ndim == 0 and not is_mask(entry) and not entry.is_floating_point()
    if not isinstance(entry, list):
        return isinstance(entry, np.ndarray)
    return bool(entry) and all(isinstance(i, int) and not isinstance(i, bool) for i in entry)


def _opened(recorder: Any, index: Any) -> Any:
    """An index with a tensor for each list of whole numbers and each array, as torch makes it for the call; which place a number in a
    tensor says decides nothing."""
    found = list(filter(_is_opened, [index] if isinstance(index, list) else _entries(index)))
    numbers = all(isinstance(entry, torch.Tensor) for entry in found)
    recorder.refuse_card("an index that is read from the card" if numbers else "a list as an index, which is copied to the card")
    if _is_opened(index):
        return _as_index(index)
    return tuple(_as_index(i) if _is_opened(i) else i for i in index)


def _as_index(entry: Any) -> Any:
    """A list is copied, an array is not where it holds what an index does."""
    if isinstance(entry, torch.Tensor):
        return 0
    if isinstance(entry, np.ndarray) and entry.dtype in (np.int64, np.bool_):
        return torch.as_tensor(entry)
    return torch.tensor(entry, dtype=torch.int64)


def _listed(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``x[:, [0, 2]]``."""
    if any(map(_is_moved, _entries(args[1]))):
        with recorder:
            return args[0][_settled(recorder, args[0], args[1])]
    if not (_is_opened(args[1]) or any(map(_is_opened, _entries(args[1])))):
        return NotImplemented
    with recorder:
        return args[0][_opened(recorder, args[1])]


def _put(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``x[1, mask] = value``: the view that the numbers and slices make, then at the tensors; lists are tensors."""
    if any(map(_is_moved, _entries(args[1]))):
        with recorder:
            args[0][_settled(recorder, args[0], args[1])] = args[2]
        return None
    if _is_opened(args[1]) or any(map(_is_opened, _entries(args[1]))):
        with recorder:
            args[0][_opened(recorder, args[1])] = args[2]
        return None
    index = _entries(args[1])
    if not any(isinstance(i, torch.Tensor) and i.ndim for i in index):
        return NotImplemented
    if all(isinstance(i, torch.Tensor) or i is Ellipsis or i == slice(None) for i in index):
        return NotImplemented
    if any(i is None or i is Ellipsis for i in index):
        raise UnsupportedError("x[None, mask] = value has no rule; index without None and ...")
    first: list[Any] = []
    rest: list[Any] = []
    for i in index:
        if isinstance(i, torch.Tensor):
            width = i.ndim if is_mask(i) else 1
            first += [slice(None)] * width
            rest.append(i)
        else:
            first.append(i)
            rest += [] if isinstance(i, int) else [slice(None)]
    with recorder:
        part = args[0][tuple(first)]
        part[tuple(rest)] = args[2]
    return None


def _spread(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``torch.masked_select(x, mask)`` where the mask is spread to the shape of ``x`` before."""
    given = bound(("input", "mask"), args, kwargs)
    x, mask = given["input"], given["mask"]
    if x.shape == mask.shape:
        return NotImplemented
    with recorder:
        if torch.broadcast_shapes(x.shape, mask.shape) != x.shape:
            raise UnsupportedError("masked_select of a tensor that its mask spreads has no rule; expand it before: x.expand(mask.shape)")
        return torch.masked_select(x, mask.expand(x.shape))


# truths ------------------------------------------------------------------------------------------------------------------


def _allclose(recorder: Any, func: Any, args: Any, kwargs: Any) -> bool:
    """``at::allclose``: whether all of ``isclose`` is true, below autograd."""
    with recorder, torch.no_grad():
        return bool(torch.isclose(*args, **kwargs).all())


def _contains(recorder: Any, func: Any, args: Any, kwargs: Any) -> bool:
    """``element in x``."""
    with recorder:
        return bool((args[0] == args[1]).any())


def _equal(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """``torch.equal`` takes nothing (``cpu_equal``); tensors of other shapes are not equal."""
    a, b = bound(("input", "other"), args, kwargs).values()
    return recorder.assumed.way("torch.equal()") if a.shape == b.shape else False


def _is_nonzero(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    return recorder.assumed.way("torch.is_nonzero()", args[0])


def _repeat_interleave(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """By a tensor of counts, which add up to how many there are in all (Repeat.cpp and Repeat.h)."""
    given = dict(zip(("input", "repeats", "dim"), args, strict=False)) | kwargs
    x, repeats, dim = given.get("input", given.get("self")), given.get("repeats"), given.get("dim")
    if not isinstance(repeats, torch.Tensor) or not isinstance(x, torch.Tensor):
        return NotImplemented
    with recorder:
        total = given.get("output_size")
        known = recorder.assumed.numbers_in(repeats) if repeats.numel() != 1 else None
        if total is None and known is not None and len(known) == repeats.numel():
            total = sum(known)
        if total is None:
            total = recorder.assumed.stated_or_refused(
                "torch.repeat_interleave() by a tensor of counts depends on values; say what they add up to"
            )
        x, dim = (x.flatten(), 0) if dim is None else (x, dim)
        repeats = repeats.reshape(1).expand(x.shape[dim]) if repeats.numel() == 1 else repeats
        in_a_row, ends = repeats.contiguous(), repeats.cumsum(0)
        if given.get("output_size") is None:
            counts = repeats >= 0
            counts.all()
            del counts
        index = torch.empty(total, dtype=repeats.dtype, device=repeats.device)
        del ends, in_a_row
        return x.index_select(dim, index)


ANSWERS: dict[str, Any] = {
    "where": _where,
    "repeat_interleave": _repeat_interleave,
    "nonzero": _nonzero_by_dim,
    "__getitem__": _listed,
    "__setitem__": _put,
    "masked_select": _spread,
    "allclose": _allclose,
    "__contains__": _contains,
    "equal": _equal,
    "is_nonzero": _is_nonzero,
}
