"""``torch.autocast`` on CPU: which calls it casts, to what, and which casts it remembers.

Promises the casts that torch's wrappers make around a call, as calls of ``_to_copy`` that autograd sees, and the life of those that are
cached. Says nothing of what the kernels do with the types they get: that is in their rows.

A wrapped call casts its arguments by its policy and runs with autocast off; any other call falls through, and what it is made of is looked
at call by call. Sources: aten/src/ATen/autocast_mode.h (WrapFunction_, is_eligible, promote_type), autocast_mode.cpp (cached_cast, the
AutocastCPU lists), torch/amp/autocast_mode.py (the cache is cleared when the context ends).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from memest.errors import UnsupportedError
from memest.network.dtypes import FLOATING
from memest.runtimes.torch.autograd import AccumulateGrad
from memest.runtimes.torch.ledger import Ledger, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Autocast:
    """The context around a step: the type it casts to, whether the loss is computed inside it, whether casts of parameters are cached."""

    dtype: str = "bfloat16"
    loss_inside: bool = True
    cache: bool = True


LOWER, FLOAT32, PROMOTE = "lower", "float32", "promote"

POLICIES: Mapping[str, str] = {
    # lower_precision_fp: all floating arguments become the context's dtype
    **dict.fromkeys(
        (
            "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "matmul", "mm", "bmm",
            "addmm", "baddbmm", "prelu", "scaled_dot_product_attention", "_native_multi_head_attention", "_multi_head",
        ),
        LOWER,
    ),
    # fp32: all floating arguments become float32
    **dict.fromkeys(
        (
            "avg_pool3d", "max_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool3d", "max_unpool2d", "max_unpool3d", "_border_pad",
            "grid_sample", "prod", "cross_entropy", "nll_loss_forward", "nll_loss2d_forward", "l1_loss", "mse_loss", "smooth_l1_loss",
            "huber_loss", "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits",
        ),
        FLOAT32,
    ),
    # promote: float32 as soon as one argument is
    **dict.fromkeys(("cat", "stack"), PROMOTE),
}  # fmt: skip
"""Rows and composites by the policy torch registers for them; those that are absent fall through."""

ATEN_NAMES: Mapping[str, tuple[str, ...]] = {
    "_multi_head": ("_native_multi_head_attention",),
    "_border_pad": ("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "replication_pad3d"),
    "cross_entropy": ("cross_entropy_loss",),
    "grid_sample": ("grid_sampler",),
    "nll_loss": ("nll_loss_nd",),
    "nll_loss_forward": ("nll_loss",),
    "nll_loss2d_forward": ("nll_loss2d",),
}
"""What the dispatcher calls a row, where that is not the row's own name."""

UNLISTED: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "max_pool3d": lambda a: bool(a["return_indices"]),  # max_pool3d_with_indices
    "_border_pad": lambda a: a["mode"] == "reflect" and len(a["pad"]) == 6,  # reflection_pad3d
}
"""Calls of a listed row that go to an operator torch has no policy for."""


REFUSED = frozenset({"affine_grid"})
"""Rows whose kernels call a listed operator themselves, below autograd: autocast casts inside them."""


def policy_of(op: str, attributes: Iterable[tuple[str, Any]]) -> str | None:
    """The policy of a call; None where it falls through. UnsupportedError for a row that is not modelled in autocast."""
    if op in REFUSED:
        raise UnsupportedError(f"{op} is not modelled in autocast")
    policy = POLICIES.get(op)
    if policy is None or (op in UNLISTED and UNLISTED[op](dict(attributes))):
        return None
    return policy


class Casts:
    """The casts of one context. ``cast`` makes one: it gets a value and a dtype and gives the unheld result."""

    def __init__(self, context: Autocast, ledger: Ledger) -> None:
        self.context = context
        self.active = True
        self._ledger = ledger
        self._cached: dict[int, tuple[Value, Value]] = {}

    def applied(self, policy: str, tensors: list[Any], cast: Callable[[Value, str], Value]) -> list[Any]:
        """``tensors`` as the wrapper hands them on; the last is cast first, as compilers order the arguments of a call."""
        wanted = self._wanted(policy, tensors)
        handed: list[Any] = [None] * len(tensors)
        for i in reversed(range(len(tensors))):
            t = tensors[i]
            handed[i] = [self._as(v, wanted, cast) for v in t] if isinstance(t, list) else self._as(t, wanted, cast)
        return handed

    def leave(self) -> None:
        """The context ends: what is cached goes."""
        self.active = False
        for _, kept in self._cached.values():
            self._ledger.let_go(kept)
        self._cached.clear()

    def _wanted(self, policy: str, tensors: list[Any]) -> str:
        if policy != PROMOTE:
            return self.context.dtype if policy == LOWER else "float32"
        found = {v.spec.dtype for t in tensors for v in (t if isinstance(t, list) else [t]) if _is_eligible(v)}
        if not found <= {self.context.dtype, "float32"}:
            raise UnsupportedError(f"autocast to {self.context.dtype} cannot promote {' and '.join(sorted(found))} tensors")
        return "float32" if "float32" in found else self.context.dtype

    def _as(self, value: Value | None, dtype: str, cast: Callable[[Value, str], Value]) -> Value | None:
        if value is None or not _is_eligible(value) or value.spec.dtype == dtype:
            return value
        if not (self.context.cache and dtype == self.context.dtype and _is_trained_leaf(value)):
            return cast(value, dtype)
        if id(value) not in self._cached:
            self._cached[id(value)] = value, self._ledger.hold(cast(value, dtype))
        return self._cached[id(value)][1]


def _is_eligible(value: Value | None) -> bool:
    return value is not None and value.spec.dtype in FLOATING and value.spec.dtype != "float64"


def _is_trained_leaf(value: Value) -> bool:
    """A float32 parameter (it says that it requires grad under ``no_grad``, too), not a view of one."""
    leaf = value.node is None or isinstance(value.node, AccumulateGrad)
    return value.spec.dtype == "float32" and value.requires_grad and leaf and value.base is None
