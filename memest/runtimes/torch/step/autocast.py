"""``torch.autocast`` on CPU: what it casts by a row's policy, and which casts it remembers.

Promises the casts that torch's wrappers make around a call, as calls of ``_to_copy`` that autograd sees, and the life of those that are
cached. Says nothing of what the kernels do with the types they get: that is in their rows.

A wrapped call casts its arguments by its policy and runs with autocast off; any other call falls through, and what it is made of is looked
at call by call. A context stands around the step (:class:`Autocast`, a lever), or around calls of the network's own code
(:class:`memest.network.graph.Casting`).

Sources: aten/src/ATen/autocast_mode.h (WrapFunction_, is_eligible, promote_type), autocast_mode.cpp (cached_cast, the
AutocastCPU lists), torch/amp/autocast_mode.py (the cache is cleared when the context ends).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memest.errors import UnsupportedError
from memest.network.dtypes import FLOATING
from memest.ops.composite import Composite
from memest.ops.facts import LOWER, PROMOTE, Policy
from memest.ops.operator import Operator
from memest.ops.reading import Items
from memest.runtimes.torch.autograd import AccumulateGrad
from memest.runtimes.torch.ledger import Ledger, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Autocast:
    """The context around a step: the type it casts to, whether the loss is computed inside it, whether casts of parameters are cached, and
    whether a gradient scaler stands around backward and the optimizer's step."""

    dtype: str = "bfloat16"
    loss_inside: bool = True
    cache: bool = True
    scaler: bool = False


def asked_for_float32(row: Operator | Composite, tensors: list[Any], attributes: Items) -> Items:
    """The attributes of a call that autocast asks for a float32 result, where its first tensor is eligible and nothing else is asked."""
    names = dict(attributes)
    if not _is_eligible(tensors[0]) or names.get("dtype") is not None:
        return attributes
    if "dtype" not in names:
        raise UnsupportedError(f"{row.name} is not modelled in autocast on CUDA: it has no dtype")
    return tuple((name, "float32" if name == "dtype" else value) for name, value in attributes)


Cast = Callable[[Value, str, bool], Value]


class Casts:
    """The casts that the contexts around a call remember until the outermost of them ends."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._cached: dict[int, tuple[Value, Value]] = {}

    def applied(self, context: Autocast, policy: Policy, tensors: list[Any], cast: Cast) -> list[Any]:
        """``tensors`` as the wrapper hands them on; the last is cast first, as compilers order the arguments of a call. ``cast`` makes one:
        it gets a value, a dtype and whether it is kept, and gives the unheld result."""
        wanted = _wanted(context, policy, tensors)
        handed: list[Any] = [None] * len(tensors)
        for i in reversed(range(len(tensors))):
            t = tensors[i]
            if isinstance(t, list):
                handed[i] = [self._as(context, v, wanted, cast) for v in t]
            else:
                handed[i] = self._as(context, t, wanted, cast)
        return handed

    def forget(self) -> None:
        """The outermost context ends: what is cached goes."""
        for _, kept in self._cached.values():
            self._ledger.let_go(kept)
        self._cached.clear()

    def _as(self, context: Autocast, value: Value | None, dtype: str, cast: Cast) -> Value | None:
        if value is None or not _is_eligible(value) or value.spec.dtype == dtype:
            return value
        if not (context.cache and dtype == context.dtype and _is_trained_leaf(value)):
            return cast(value, dtype, False)
        if id(value) not in self._cached:
            self._cached[id(value)] = value, self._ledger.hold(cast(value, dtype, True))
        return self._cached[id(value)][1]


def _wanted(context: Autocast, policy: Policy, tensors: list[Any]) -> str:
    if policy != PROMOTE:
        return context.dtype if policy == LOWER else "float32"
    found = {v.spec.dtype for t in tensors for v in (t if isinstance(t, list) else [t]) if _is_eligible(v)}
    if not found <= {context.dtype, "float32"}:
        raise UnsupportedError(f"autocast to {context.dtype} cannot promote {' and '.join(sorted(found))} tensors")
    return "float32" if "float32" in found else context.dtype


def _is_eligible(value: Value | None) -> bool:
    return value is not None and value.spec.dtype in FLOATING and value.spec.dtype != "float64"


def _is_trained_leaf(value: Value) -> bool:
    """A float32 parameter (it says that it requires grad under ``no_grad``, too), not a view of one."""
    leaf = value.node is None or isinstance(value.node, AccumulateGrad)
    return value.spec.dtype == "float32" and value.requires_grad and leaf and value.base is None
