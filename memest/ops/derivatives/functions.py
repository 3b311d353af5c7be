"""Functions of calculus, and of two and three numbers. Source: derivatives.yaml, as its formulas stand: operands of a C++ operator are
evaluated from the right."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi, sqrt
from typing import Any

from memest.ops.derivatives.arithmetic import pair
from memest.ops.derivatives.formula import Derived, Formula, Grads, Saved, only

Factor = Callable[[Formula, Any], Any]


def _times(keeps: str, factor: Factor) -> Callable[..., Derived]:
    """grad * factor(what was kept)."""

    def formula(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
        right = factor(f, saved[keeps])
        return [f.mul(only(grads), right)]

    return formula


def _by(keeps: str, factor: Factor) -> Callable[..., Derived]:
    """grad / factor(what was kept)."""

    def formula(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
        right = factor(f, saved[keeps])
        return [f.div(only(grads), right)]

    return formula


def _bell(number: float) -> Callable[..., Derived]:
    """number * exp(-self.pow(2)) * grad."""

    def formula(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
        return [f.mul(f.times(f.call("exp", f.neg(f.pow(saved["input"], 2))), number), only(grads))]

    return formula


def _of(*steps: Callable[[Formula, Any], Any]) -> Factor:
    def factor(f: Formula, t: Any) -> Any:
        for step in steps:
            t = step(f, t)
        return t

    return factor


def _call(op: str) -> Factor:
    return lambda f, t: f.call(op, t)


def _plus(number: float) -> Factor:
    return lambda f, t: f.plus(t, number)


def _scaled(number: float) -> Factor:
    return lambda f, t: f.times(t, number)


def _power(f: Formula, t: Any) -> Any:
    return f.pow(t, 2)


def _square(f: Formula, t: Any) -> Any:
    return f.mul(t, t)


def _minus_square(f: Formula, t: Any) -> Any:
    return f.mul(f.neg(t), t)


def _exp2(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
    return [f.times(f.mul(only(grads), saved["result"]), log(2))]


def _atanh(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
    """grad * 1 / (1 - self ** 2)."""
    right = f.one_minus(f.pow(saved["input"], 2))
    return [f.div(f.times(only(grads), 1), right)]


def _nan_to_num(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
    right = f.call("isfinite", saved["input"])
    return [f.mul(only(grads), right)]


# of two numbers ---------------------------------------------------------------------------------------------------------


def _hypot(f: Formula, saved: Saved, grads: Grads) -> Derived:
    grad = only(grads)

    def of(role: str) -> Any:
        return f.statement(lambda: f.div(f.mul(grad, saved[role]), saved["result"]))

    return pair(f, lambda: of("input"), lambda: of("other"))


def _logaddexp(f: Formula, saved: Saved, grads: Grads) -> Derived:
    """grad / (1 + exp(other - self)), and the other way round."""
    grad = only(grads)

    def of(mine: str, theirs: str) -> Any:
        return f.statement(lambda: f.div(grad, f.plus(f.call("exp", f.sub(saved[theirs], saved[mine])), 1)))

    return pair(f, lambda: of("input", "other"), lambda: of("other", "input"))


def _xlogy(f: Formula, saved: Saved, grads: Grads) -> Derived:
    """self: xlogy(grad, other).masked_fill((self == 0) & (other <= 0), 0); other: grad * self / other."""
    grad, input, other = only(grads), saved["input"], saved["other"]

    def of_input() -> Any:
        logs = f.call("xlogy", grad, other)
        low = f.call("le", other, None, value=0.0)
        mask = f.call("bitwise_and", f.call("eq", input, None, value=0.0), low)
        return f.call("masked_fill", logs, mask, value=0.0)

    return pair(f, lambda: f.statement(of_input), lambda: f.statement(lambda: f.div(f.mul(grad, input), other)))


def _rpow(f: Formula, saved: Saved, grads: Grads, *, value: float) -> Derived:
    """grad * (result * log(base))."""
    if value == 0:
        raise f.unknown("a power of 0")
    right = f.times(saved["result"], log(value))
    return [f.mul(only(grads), right)]


# of three -------------------------------------------------------------------------------------------------------------


def _addcmul(f: Formula, saved: Saved, grads: Grads, *, value: float, inplace: bool) -> Derived:
    grad = only(grads)

    def of(other: str) -> Any:
        return f.statement(lambda: f.mul(grad, f.times(saved[other], value)))

    return [grad if f.wants(0) else None, of("tensor2") if f.wants(1) else None, of("tensor1") if f.wants(2) else None]


def _addcdiv(f: Formula, saved: Saved, grads: Grads, *, value: float, inplace: bool) -> Derived:
    grad, divisor = only(grads), saved["tensor2"]

    def of_divisor() -> Any:
        square = f.mul(divisor, divisor)
        ratio = f.div(f.times(saved["tensor1"], value), square)
        return f.mul(f.neg(grad), ratio)

    second = f.statement(lambda: f.mul(grad, f.under(value, divisor))) if f.wants(1) else None
    return [grad if f.wants(0) else None, second, f.statement(of_divisor) if f.wants(2) else None]


def _lerp(f: Formula, saved: Saved, grads: Grads, *, value: float | None, inplace: bool) -> Derived:
    grad = only(grads)
    if "weight" not in saved:
        assert value is not None
        end = f.times(grad, value) if f.wants(1) else None
        return [f.times(grad, 1 - value) if f.wants(0) else None, end]
    weight = saved["weight"]
    end = f.mul(grad, weight) if f.wants(1) else None
    first = f.statement(lambda: f.mul(grad, f.one_minus(weight))) if f.wants(0) else None
    third = f.statement(lambda: f.mul(grad, f.sub(saved["end"], saved["input"]))) if f.wants(2) else None
    return [first, end, third]


FORMULAS: dict[str, Any] = {
    "acos": _times("input", _of(_minus_square, _plus(1), _call("rsqrt"), _call("neg"))),
    "acosh": _times("input", _of(_square, _plus(-1), _call("rsqrt"))),
    "asin": _times("input", _of(_minus_square, _plus(1), _call("rsqrt"))),
    "asinh": _times("input", _of(_power, _plus(1), _call("rsqrt"))),
    "atan": _by("input", _of(_square, _plus(1))),
    "atanh": _atanh,
    "tan": _times("result", _of(_power, _plus(1))),
    "cosh": _times("input", _call("sinh")),
    "sinh": _times("input", _call("cosh")),
    "erf": _bell(2 / sqrt(pi)),
    "erfc": _bell(-2 / sqrt(pi)),
    "expm1": _times("result", _plus(1)),
    "exp2": _exp2,
    "log2": _by("input", _scaled(log(2))),
    "log10": _by("input", _scaled(log(10))),
    "lgamma": _times("input", _call("digamma")),
    "frac": lambda f, saved, grads, **_: [only(grads)],
    "nan_to_num": _nan_to_num,
    "hypot": _hypot,
    "logaddexp": _logaddexp,
    "xlogy": _xlogy,
    "rpow": _rpow,
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp": _lerp,
}
