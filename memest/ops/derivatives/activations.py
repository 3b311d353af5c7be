"""Activations: most backwards are one kernel over the gradient and what was kept. Source: derivatives.yaml, FunctionsManual.cpp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memest.ops.derivatives.formula import GRAD, ByRole, Derived, Formula, Grads, Kernel, Saved, only


def _flat(name: str, role: str = "") -> Kernel:
    """Piecewise linear: the kernel again for the gradient, zeros that lie as the gradient does for what was kept."""

    def double(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
        (kept,) = (r for r in saved["like"] if r != GRAD)
        grad = only(grads)
        return {
            GRAD: f.kernel(name, [grad], {kept: saved[kept]}, (True,), **given)[0] if f.wants(0) else None,
            kept: f.zeros_like(grad) if f.wants(1) else None,
        }

    return Kernel((role,) if role else ("input", "result"), double)


def _curved(name: str, role: str, of_kept: Callable[..., Any]) -> Kernel:
    """The kernel again for the gradient, ``of_kept(f, grad, given gradient, kept, attributes)`` for what was kept."""

    def double(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
        grad, (kept,) = only(grads), (r for r in saved["like"] if r != GRAD)
        again = f.kernel(name, [grad], {kept: saved[kept]}, (True,), **given)[0] if f.wants(0) else None
        return {GRAD: again, kept: of_kept(f, grad, saved.get(GRAD), saved[kept], given) if f.wants(1) else None}

    return Kernel((GRAD, role) if role else (GRAD, "input", "result"), double)


def _sigmoid(f: Formula, grad: Any, given: Any, kept: Any, attributes: Any) -> Any:
    """grad * grad_output * (-2 * output + 1)."""
    slope = f.plus(f.times(kept, -2), 1)
    return f.mul(f.mul(grad, given), slope)


def _tanh(f: Formula, grad: Any, given: Any, kept: Any, attributes: Any) -> Any:
    """grad * (-2 * output * grad_output)."""
    return f.mul(grad, f.mul(f.times(kept, -2), given))


def _softplus(f: Formula, grad: Any, given: Any, kept: Any, attributes: Any) -> Any:
    """softplus_double_backward(grad * grad_output): sigmoid_backward(grad, x.sigmoid()) * (x < threshold).type_as(grad) * beta, of
    x = self * beta."""
    both = f.mul(grad, given)
    x = f.times(kept, attributes["beta"])
    inside = f.call("_to_copy", f.call("lt", x, None, value=attributes["threshold"]), dtype=grad.spec.dtype)
    slope = f.kernel("sigmoid", [both], {"result": f.call("sigmoid", x)}, (True,))[0]
    return f.times(f.mul(slope, inside), attributes["beta"])


def _gelu(f: Formula, grad: Any, given: Any, kept: Any, attributes: Any) -> Any:
    """gelu_double_backward without approximation: ggI * gO * (2 * pdf - x * x * pdf)."""
    if attributes["approximate"] != "none":
        return _gelu_by_tanh(f, grad, given, kept)
    square = f.mul(kept, kept)
    pdf = f.statement(lambda: f.times(f.call("exp", f.times(square, -0.5)), 0.4))

    def slope() -> Any:
        right = f.mul(square, pdf)
        return f.sub(f.times(pdf, 2), right)

    change = f.statement(slope)
    return f.mul(f.mul(grad, given), change)


def _gelu_by_tanh(f: Formula, grad: Any, given: Any, input: Any) -> Any:
    """The same of 0.5 * x * (1 + tanh(b * (x + k * x ** 3))): by the product rule over f, g and h, as it stands."""
    mul = f.mul
    inner = f.statement(lambda: f.times(f.add(input, f.times(f.pow(input, 3), 0.044715)), 0.8))
    tanh = f.call("tanh", inner)
    sech = f.statement(lambda: f.under(1, f.call("cosh", inner)))
    half = f.times(input, 0.5)
    g = f.statement(lambda: f.one_minus(mul(tanh, tanh)))
    h = f.statement(lambda: f.times(f.plus(mul(f.times(input, 0.134), input), 1), 0.8))
    first = f.statement(lambda: mul(f.times(g, 0.5), h))

    def of_g() -> Any:
        right = mul(f.neg(sech), tanh)
        return mul(mul(f.times(sech, 2), right), h)

    change = f.statement(of_g)
    second = f.statement(lambda: mul(mul(half, h), change))
    slope = f.statement(lambda: f.times(f.times(input, 0.27), 0.8))
    third = f.statement(lambda: mul(mul(half, g), slope))

    def every() -> Any:
        right = f.add(f.add(f.times(first, 2), second), third)
        return mul(mul(grad, given), right)

    return f.statement(every)


def _elu(name: str) -> Kernel:
    """elu_double_backward: of a result grad * grad_output * input_scale * (x < 0), else elu_backward of the product, times that."""

    def double(f: Formula, grad: Any, given: Any, kept: Any, attributes: Any) -> Any:
        mask = f.call("_to_copy", f.call("lt", kept, None, value=0), dtype=grad.spec.dtype)
        product = f.times(f.mul(grad, given), 1.0)
        if attributes["inplace"]:
            return f.mul(product, mask)
        return f.mul(f.kernel(name, [product], {"input": kept}, (True,), **attributes)[0], mask)

    return _curved(name, "", double)


def _silu(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
    """infinitely_differentiable_silu_backward: grad * sigmoid * (1 + input * (1 - sigmoid))."""
    input = saved["input"]
    sigmoid = f.call("sigmoid", input)
    slope = f.plus(f.mul(input, f.one_minus(sigmoid)), 1.0)
    return [f.mul(f.mul(only(grads), sigmoid), slope)]


def _mish(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
    """infinitely_differentiable_mish_backward: grad * (t + input * sigmoid * (1 - t * t)), t = tanh(log1p(exp(input)))."""
    input = saved["input"]
    sigmoid = f.call("sigmoid", input)
    t = f.call("tanh", f.call("log1p", f.call("exp", input)))
    rest = f.one_minus(f.mul(t, t))
    inner = f.mul(f.mul(input, sigmoid), rest)
    return [f.mul(only(grads), f.add(t, inner))]


FORMULAS: dict[str, Any] = {
    "relu": _flat("relu", "result"),
    "leaky_relu": _flat("leaky_relu"),
    "relu6": _flat("relu6", "input"),
    "hardtanh": _flat("hardtanh", "input"),
    "threshold": _flat("threshold", "input"),
    **{name: _flat(name, "input") for name in ("hardshrink", "softshrink")},
    "sigmoid": _curved("sigmoid", "result", _sigmoid),
    "tanh": _curved("tanh", "result", _tanh),
    "softplus": _curved("softplus", "input", _softplus),
    "gelu": _curved("gelu", "input", _gelu),
    **{name: _elu(name) for name in ("elu", "selu", "celu")},
    "silu": _silu,
    "mish": _mish,
}
