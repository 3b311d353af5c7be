"""Arithmetic and functions of one tensor: their gradients as products and quotients. Source: derivatives.yaml, FunctionsManual.cpp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memest.ops.derivatives.formula import Derived, Formula, Grads, Saved, only
from memest.ops.derivatives.numbers import BY_NUMBER


def _with_number(name: str) -> Callable[..., Derived]:
    return lambda f, saved, grads: [f.call(BY_NUMBER[name], only(grads), saved["other"]), None]


def pair(f: Formula, of_input: Callable[[], Any], of_other: Callable[[], Any]) -> Derived:
    """Gradients of both operands, ``other`` before ``self``."""
    second = of_other() if f.wants(1) else None
    first = of_input() if f.wants(0) else None
    return [first, second][: len(f.needs)]


def _add(f: Formula, saved: Saved, grads: Grads, *, alpha: float, **_: Any) -> Derived:
    return pair(f, lambda: only(grads), lambda: f.maybe_multiply(only(grads), alpha))


def _sub(f: Formula, saved: Saved, grads: Grads, *, alpha: float, **_: Any) -> Derived:
    return pair(f, lambda: only(grads), lambda: f.maybe_multiply(f.neg(only(grads)), alpha))


def _rsub(f: Formula, saved: Saved, grads: Grads, *, alpha: float, **_: Any) -> Derived:
    return pair(f, lambda: f.maybe_multiply(f.neg(only(grads)), alpha), lambda: only(grads))


def _combined(f: Formula, op: str, grad: Any, other: Any, value: float | None) -> Any:
    return f.call(op if value is None else BY_NUMBER[op], grad, other)


def _mul(f: Formula, saved: Saved, grads: Grads, *, value: float | None, inplace: bool) -> Derived:
    grad = only(grads)
    return pair(f, lambda: _combined(f, "mul", grad, saved["other"], value), lambda: f.mul(grad, saved["input"]))


def _div(f: Formula, saved: Saved, grads: Grads, *, value: float | None, rounding_mode: str | None, inplace: bool) -> Derived:
    grad = only(grads)
    if rounding_mode is not None:
        return pair(f, lambda: f.zeros_like(grad), lambda: f.zeros_like(grad))

    def of_other() -> Any:
        ratio = f.div(f.div(saved["input"], saved["other"]), saved["other"])
        return f.mul(f.neg(grad), ratio)

    return pair(f, lambda: _combined(f, "div", grad, saved["other"], value), of_other)


def _pow(f: Formula, saved: Saved, grads: Grads, *, exponent: float | None, inplace: bool) -> Derived:
    grad = only(grads)
    if exponent is None:
        return _raised(f, saved, grad)
    if exponent == 0:
        return [f.call("zeros_like", saved["input"])]
    return [f.mul(grad, f.times(f.pow(saved["input"], float(exponent) - 1), float(exponent)))]


def _raised(f: Formula, saved: Saved, grad: Any) -> Derived:
    """pow_backward_self and pow_backward_exponent, of a tensor as exponent."""
    base, exponent = saved["input"], saved["exponent"]

    def of_base() -> Any:
        full = f.mul(grad, f.mul(exponent, f.pow_by(base, f.plus(exponent, -1))))
        zero = f.zeros((), grad.spec.dtype)
        return f.call("where", f.call("eq", exponent, None, value=0.0), zero, full)

    def of_exponent() -> Any:
        def condition() -> Any:
            positive = f.call("ge", exponent, None, value=0)
            return f.call("logical_and", f.call("eq", base, None, value=0), positive)

        mask = f.statement(condition)
        logs = f.mul(saved["result"], f.call("log", base))
        zero = f.zeros((), grad.spec.dtype)
        return f.mul(grad, f.call("where", mask, zero, logs))

    return pair(f, lambda: f.statement(of_base), lambda: f.statement(of_exponent))


def _scalar(name: str) -> Callable[..., Derived]:
    return lambda f, saved, grads, *, value: [f.call(name, only(grads), value=value)]


def _unary(gradient: Callable[[Formula, Any, Any], Any], keeps: str = "") -> Callable[..., Derived]:
    return lambda f, saved, grads, **_: [gradient(f, only(grads), saved.get(keeps))]


def _rsqrt(f: Formula, grad: Any, kept: Any) -> Any:
    """-0.5 * grad * result.pow(3)."""
    cube = f.pow(kept, 3)
    return f.mul(f.times(grad, -0.5), cube)


def _reciprocal(f: Formula, grad: Any, kept: Any) -> Any:
    """-grad * (result * result)."""
    square = f.mul(kept, kept)
    return f.mul(f.neg(grad), square)


FORMULAS: dict[str, Any] = {
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "mul.Scalar": _scalar("mul.Scalar"),
    "div.Scalar": _scalar("div.Scalar"),
    "mul in place": _scalar("mul.Scalar"),
    "div in place": _scalar("div.Scalar"),
    "mul by number": _with_number("mul"),
    "div by number": _with_number("div"),
    "neg": _unary(lambda f, grad, kept: f.neg(grad)),
    "exp": _unary(lambda f, grad, kept: f.mul(grad, kept), "result"),
    "log": _unary(lambda f, grad, kept: f.div(grad, kept), "input"),
    "log1p": _unary(lambda f, grad, kept: f.div(grad, f.plus(kept, 1)), "input"),
    "sqrt": _unary(lambda f, grad, kept: f.div(grad, f.times(kept, 2)), "result"),
    "rsqrt": _unary(_rsqrt, "result"),
    "reciprocal": _unary(_reciprocal, "result"),
    "sin": _unary(lambda f, grad, kept: f.mul(grad, f.call("cos", kept)), "input"),
    "cos": _unary(lambda f, grad, kept: f.mul(grad, f.neg(f.call("sin", kept))), "input"),
    **dict.fromkeys(("floor", "ceil", "round", "trunc", "sign"), _unary(lambda f, grad, kept: f.zeros_like(grad))),
    **dict.fromkeys(
        ("dropout", "dropout1d", "dropout2d", "dropout3d"),
        lambda f, saved, grads, **_: [f.mul(only(grads), saved["mask"]) if "mask" in saved else only(grads)],
    ),
}
