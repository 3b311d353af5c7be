"""Limits and choices: gradients go where a mask lets them. Source: derivatives.yaml, FunctionsManual.cpp (clamp_backward,
masked_fill_inplace_if_safe)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memest.ops.derivatives.arithmetic import pair
from memest.ops.derivatives.formula import Derived, Formula, Grads, Saved, only

MASK_FIRST_SINCE = (2, 14)


def _limited(f: Formula, saved: Saved, grads: Grads, **given: Any) -> Derived:
    """where(self >= min && self <= max, grad, 0)."""
    grad, input = only(grads), saved["input"]
    limits = [(op, given[name]) for name, op in (("min", "ge"), ("max", "le")) if given.get(name) is not None]

    def chosen() -> Any:
        zero = f.zeros((), grad.spec.dtype)
        masks = [f.call(op, input, None, value=value) for op, value in limits]
        return f.call("where", masks[0], grad, zero)

    return [f.statement(chosen)]


def _extreme(mine: str, theirs: str) -> Callable[..., Derived]:
    """``masked_fill_(where(self == other, grad / 2, grad), self < other, 0)``; from 2.14 on the mask is made first."""

    def formula(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
        grad, input, other = only(grads), saved["input"], saved["other"]

        def of(less: str) -> Any:
            early = f.call(less, input, other) if f.version >= MASK_FIRST_SINCE else None
            half = f.over(grad, 2)
            shared = f.call("where", f.call("eq", input, other), half, grad)
            return f.call("masked_fill", shared, early or f.call(less, input, other), value=0, inplace=True)

        return pair(f, lambda: f.statement(lambda: of(mine)), lambda: f.statement(lambda: of(theirs)))

    return formula


def _where(f: Formula, saved: Saved, grads: Grads, *, input_value: float | None, other_value: float | None) -> Derived:
    grad, condition = only(grads), saved["condition"]
    found: list[Any] = [None] * len(f.needs)
    places = [place for place, value in (("input", input_value), ("other", other_value)) if value is None]
    for i, place in reversed(list(enumerate(places, 1))):
        if f.wants(i) and place == "input":
            found[i] = f.call("where", condition, grad, None, other_value=0)
        elif f.wants(i):
            found[i] = f.call("where", condition, None, grad, input_value=0)
    return found


def _masked_fill(f: Formula, saved: Saved, grads: Grads, *, value: float, inplace: bool) -> Derived:
    return [f.call("masked_fill", only(grads), saved["mask"], value=0), None]


FORMULAS: dict[str, Any] = {
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), _limited),
    "maximum": _extreme("lt", "gt"),
    "minimum": _extreme("gt", "lt"),
    "where": _where,
    "masked_fill": _masked_fill,
}
