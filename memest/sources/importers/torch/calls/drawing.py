"""Calls that draw numbers. What fills a tensor in place is one kernel, whatever it draws from."""

from __future__ import annotations

from typing import Any

import torch

from memest.sources.importers.torch.calls.plain import Call, Request, bound, request

FILLS = ("exponential_", "cauchy_", "log_normal_", "geometric_", "random_")


def _randint(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``randint(high, size)`` and ``randint(low, high, size)``."""
    sized = len(args) > 1 and isinstance(args[1], tuple | list | torch.Size)
    names = ("high", "shape") if sized or ("size" in kwargs and len(args) < 2) else ("low", "high", "shape")
    given = {("shape" if n == "size" else n): v for n, v in bound(names, args, kwargs).items()}
    return request("randint", {n: v for n, v in given.items() if n != "dtype" or v is not None}, {})


def _randint_like(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """Whole numbers in a tensor like another: which ones, no size depends on."""
    given = bound(("input", "low", "high"), args, kwargs)
    return request("rand_like", {n: v for n, v in given.items() if n not in ("low", "high") and v is not None}, {})


def _randperm(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    return request("randperm", {n: v for n, v in bound(("n",), args, kwargs).items() if v is not None}, {})


def _normal(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """By tensors (by two numbers it is a shape that is filled, another call)."""
    given = bound(("mean", "std"), args, kwargs)
    mean, std = given["mean"], given.get("std", 1.0)
    numbers = {f"{n}_value": t for n, t in (("mean", mean), ("std", std)) if not isinstance(t, torch.Tensor)}
    return Request("normal", [t if isinstance(t, torch.Tensor) else None for t in (mean, std)], numbers)


def _bernoulli(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """By the tensor's own probabilities, or by one for all in a tensor like it (of which torch takes no derivative)."""
    given = bound(("input", "p"), args, kwargs)
    if given.pop("p", None) is not None:
        return request("empty_like", given, {})
    return request("bernoulli", given, {})


def _filled(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    return Request("uniform_", [args[0]], {})


CALLS: dict[str, Call] = {
    "normal": _normal,
    "randint": _randint,
    "randint_like": _randint_like,
    "randperm": _randperm,
    "bernoulli": _bernoulli,
    **dict.fromkeys(FILLS, _filled),
}
