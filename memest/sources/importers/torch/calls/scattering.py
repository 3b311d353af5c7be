"""Calls that write to places that an index names, and those that look at diagonals."""

from __future__ import annotations

from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.sources.importers.torch.calls.plain import Call, Request, bound, request, signature


def _scatter(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x.scatter(dim, index, src)``; a number in place of ``src``, or by the name ``value``; ``reduce`` makes it another call."""
    given = bound(("input", "dim", "index", "src"), args, kwargs)
    if given.pop("reduce", None) is not None:
        raise UnsupportedError("scatter with reduce= has no rule: scatter_reduce or scatter_add is modelled")
    if "src" in given and not isinstance(given["src"], torch.Tensor):
        given["value"] = given.pop("src")
    return request("scatter", given, {"inplace": True} if name.endswith("_") else {})


def _scatter_reduce(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """Out of place; of extrema, means and sums."""
    given = bound(("input", "dim", "index", "src", "reduce"), args, kwargs)
    if name.endswith("_"):
        raise UnsupportedError("scatter_reduce_ in place has no rule: x = x.scatter_reduce(…) is modelled")
    if given["reduce"] not in ("sum", "mean", "amax", "amin"):
        raise UnsupportedError(f"scatter_reduce by {given['reduce']!r} has no rule: sum, mean, amax and amin are modelled")
    return request("scatter_reduce", given, {})


def _index_fill(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """A tensor of no dims is read as its number."""
    given = bound(("input", "dim", "index", "value"), args, kwargs)
    if isinstance(given["value"], torch.Tensor):
        raise UnsupportedError("index_fill with a tensor as its value has no rule: give a number")
    return request("index_fill", given, {"inplace": True} if name.endswith("_") else {})


def _index_put(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x.index_put_((i, j), values)``; out of place it is a copy first."""
    given = bound(("input", "indices", "values", "accumulate"), args, kwargs)
    indices = list(given["indices"])
    if any(t is None for t in indices) or any(t.dtype == torch.bool for t in indices):
        raise UnsupportedError(f"{name} with a mask or a missing index has no rule: x[…] = value is modelled")
    dims, accumulate = tuple(range(len(indices))), bool(given.get("accumulate", False))
    return Request("index_put_", [given["input"], indices, given["values"]], {"dims": dims, "accumulate": accumulate})


def _masked_scatter(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    return request("masked_scatter", bound(("input", "mask", "source"), args, kwargs), {"inplace": True} if name.endswith("_") else {})


NAMES = {
    "scatter_add": "input dim index src",
    "index_add": "input dim index source",
    "index_copy": "input dim index source",
    "tril": "input diagonal",
    "triu": "input diagonal",
}
CALLS: dict[str, Call] = {
    **dict.fromkeys(("scatter", "scatter_"), _scatter),
    **dict.fromkeys(("scatter_reduce", "scatter_reduce_"), _scatter_reduce),
    **dict.fromkeys(("index_fill", "index_fill_"), _index_fill),
    "index_put_": _index_put,
    **dict.fromkeys(("masked_scatter", "masked_scatter_"), _masked_scatter),
    **{name: signature(op, names) for op, names in NAMES.items() for name in (op, f"{op}_")},
    "rot90": signature("rot90", "input k dims"),
    "take": signature("take", "input index"),
    "diagonal": signature("diagonal", "input offset dim1 dim2"),
    "unfold_backward.default": signature("unfold_backward", "input input_sizes dim size step"),
    "linalg_diagonal": signature("diagonal", "input offset dim1 dim2", dim1=-2, dim2=-1),
    "diag_embed": signature("diag_embed", "input offset dim1 dim2"),
    "trace": signature("trace", "input"),
}
