"""Normalizations: what the backward of a backward computes of statistics, gradients and scales.

Source: torch/csrc/autograd/FunctionsManual.cpp (batchnorm_double_backward, layer_norm_double_backward,
infinitely_differentiable_native_group_norm_backward). Locals live to the end, temporaries as long as their statement.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from memest.ops.derivatives.formula import GRAD, ByRole, Formula, Grads, Kernel, Saved

INVERSE_FIRST_SINCE = (2, 14)


class _Terms:
    """What both double backwards are made of: the centred input, the inverse deviation and its powers; ``sums`` sums over what is
    normalized, ``count`` values of it."""

    def __init__(self, f: Formula, input: Any, mean: Any, inverse: Callable[[], Any], count: int, sums: Callable[[Any], Any]) -> None:
        self._f = f
        self.count = count
        self.sums = sums
        early = inverse() if f.version >= INVERSE_FIRST_SINCE else None
        self.centred = f.sub(input, mean)
        self.inverse = early or inverse()
        self.square = f.pow(self.inverse, 2)
        self.cube = f.pow(self.inverse, 3)
        self.centred_cube = f.mul(self.centred, self.cube)

    def product_sum(self, a: Any, b: Any) -> Any:
        """The sum of their product."""
        return self._f.statement(lambda: self.sums(self._f.mul(a, b)))

    def of_input(self, grad: Any, of_input: Any, product: Any, total: Any) -> Any:
        """gI_0t + gI_1t + gI_2t; ``product`` and ``total`` are the sums of grad * centred and of grad (3.0 stands for 3 / count)."""
        f, n = self._f, self.count
        own_sum = self.sums(of_input)
        own_product = self.product_sum(of_input, self.centred)

        def inner() -> Any:
            first = f.idiv(f.mul(own_sum, total), n)
            second = f.isub(first, self.sums(f.mul(grad, of_input)))
            return f.iadd(second, f.imul(f.mul(f.mul(self.square, product), own_product), 3.0))

        every = f.statement(inner)
        first = f.idiv(f.mul(self.centred_cube, every), n)

        def spread(mine: Any, sums: Any, values: Any) -> Any:
            right = f.sub(f.over(sums, n), values)
            return f.mul(f.idiv(f.mul(mine, self.cube), n), right)

        second = f.statement(lambda: spread(own_product, total, grad))
        third = f.statement(lambda: spread(product, own_sum, of_input))
        return f.iadd(f.iadd(first, second), third)

    def first_backward(self, grad: Any, scale: Any) -> Any:
        """The gradient of the input that the first backward gives for ``grad``."""
        f, n = self._f, self.count
        left = f.idiv(f.mul(scale, self.inverse), n)

        def inner() -> Any:
            rest = f.isub(f.times(grad, n), self.sums(grad))
            right = self.sums(f.mul(grad, self.centred))
            return f.isub(rest, f.mul(f.mul(self.centred, self.square), right))

        return f.mul(left, f.statement(inner))


def _widened(f: Formula, t: Any, like: Any, lead: bool) -> Any:
    """A value a channel seen so that it broadcasts, ``lead``: with a dim for the batch."""
    while len(t.shape) < len(like.shape) - 1:
        t = f.unsqueeze(t, 1)
    return f.unsqueeze(t, 0) if lead and len(t.shape) == len(like.shape) - 1 else t


def _all_but_channels(f: Formula, t: Any, keepdim: bool = True) -> Any:
    """``sum_exclude_dim1``: dim by dim."""
    total = f.sum(t, 0, keepdim)
    for dim in range(len(total.shape) - 1, 1 if keepdim else 0, -1):
        before, total = total, f.sum(total, dim, keepdim)
        f.drop(before)
    return total


def _batch_norm(f: Formula, saved: Saved, grads: Grads, *, training: bool, eps: float, **_: Any) -> ByRole:
    by_role = dict(zip(saved["given"], grads, strict=True))
    of_input, of_weight, of_bias = (by_role.get(role) for role in ("input", "weight", "bias"))
    input, grad, weight = saved["input"], saved[GRAD], saved.get("weight")

    def expanded(t: Any) -> Any:
        return f.expand(_widened(f, t, input, False), input.shape)

    scale = f.call("ones", shape=(), dtype=input.spec.dtype) if weight is None else expanded(weight)
    scale_grad = None if of_weight is None else expanded(of_weight)
    bias_grad = None if of_bias is None else expanded(of_bias)
    mean = saved["save_mean"] if training else saved["running_mean"]
    mean = _widened(f, f.call("to", mean, dtype=input.spec.dtype) if training else mean, input, True)

    def inverse() -> Any:
        if training:
            return _widened(f, f.call("to", saved["save_invstd"], dtype=input.spec.dtype), input, True)
        variance = f.plus(saved["running_var"], eps)
        if f.version >= INVERSE_FIRST_SINCE:
            return _widened(f, f.call("rsqrt", variance, inplace=True), input, True)
        return _widened(f, f.pow(variance, -0.5), input, True)

    count = prod(input.shape) // input.shape[1]
    terms = _Terms(f, input, mean, lambda: f.statement(inverse), count, lambda t: _all_but_channels(f, t))
    product, total = terms.product_sum(grad, terms.centred), terms.sums(grad)
    found: dict[str, Any] = {}
    if of_input is not None and training:
        found["input"] = f.statement(lambda: f.mul(scale, terms.of_input(grad, of_input, product, total)))
    if scale_grad is not None:
        term = f.statement(lambda: _of_scale(f, terms, grad, scale_grad, total, training))
        found["input"] = f.iadd(found["input"], term) if "input" in found else term
    if weight is not None and of_input is not None:
        found["weight"] = _weight(f, terms, grad, of_input, training)
    made = None
    if of_input is not None:
        made = f.statement(lambda: terms.first_backward(of_input, scale) if training else f.mul(f.mul(of_input, terms.inverse), scale))
    if scale_grad is not None:
        made = _joined(f, made, f.statement(lambda: f.mul(f.mul(scale_grad, terms.centred), terms.inverse)))
    if bias_grad is not None:
        made = bias_grad if made is None else f.iadd(made, bias_grad)
    return {**found, GRAD: made}


def _of_scale(f: Formula, terms: _Terms, grad: Any, scale_grad: Any, total: Any, training: bool) -> Any:
    """What the gradient of the weight's gradient adds to the input's."""
    if not training:
        return f.mul(f.mul(scale_grad, terms.inverse), grad)
    n = terms.count
    first = f.mul(grad, terms.inverse)
    second = f.idiv(f.mul(terms.inverse, total), -n)
    third = f.statement(lambda: f.idiv(f.mul(terms.centred_cube, terms.sums(f.mul(grad, terms.centred))), -n))
    return f.mul(scale_grad, f.iadd(f.iadd(first, second), third))


def _weight(f: Formula, terms: _Terms, grad: Any, of_input: Any, training: bool) -> Any:
    if not training:
        return f.statement(lambda: _all_but_channels(f, f.mul(f.mul(of_input, grad), terms.inverse), False))

    def products() -> Any:
        one = f.call("ones", shape=(), dtype=terms.inverse.spec.dtype)
        return f.mul(of_input, f.statement(lambda: terms.first_backward(grad, one)))

    every = f.statement(products)
    summed = _all_but_channels(f, every, False)
    f.drop(every)
    return summed


def _joined(f: Formula, a: Any, b: Any) -> Any:
    """``a.add_(b)``, or ``b``; what was added dies."""
    if a is None:
        return b
    total = f.iadd(a, b)
    f.drop(b)
    return total


def _layer_norm(f: Formula, saved: Saved, grads: Grads, *, normalized_shape: Any, eps: float) -> ByRole:
    by_role = dict(zip(saved["given"], grads, strict=True))
    of_input, of_weight, of_bias = (by_role.get(role) for role in ("input", "weight", "bias"))
    shape, n = saved["input"].shape, prod(normalized_shape)
    m = prod(shape) // n
    input, grad = f.reshape(saved["input"], (m, n)), f.reshape(saved[GRAD], (m, n))
    mean, invstd = f.reshape(saved["mean"], (m, 1)), f.reshape(saved["rstd"], (m, 1))
    weight = saved.get("weight")
    scale = f.call("ones", shape=(1,), dtype=input.spec.dtype) if weight is None else f.reshape(weight, (1, n))
    scale_grad = None if of_weight is None else f.reshape(of_weight, (1, n))
    bias_grad = None if of_bias is None else f.reshape(of_bias, (1, n))
    own = None if of_input is None else f.reshape(of_input, (m, n))
    mean, invstd = f.call("to", mean, dtype=input.spec.dtype), f.call("to", invstd, dtype=input.spec.dtype)
    terms = _Terms(f, input, mean, lambda: invstd, n, lambda t: f.sum(t, 1, True))
    found = None
    if own is not None:
        found = f.statement(lambda: _layer_input(f, terms, grad, scale, own))
    if scale_grad is not None:
        found = _joined(f, found, f.statement(lambda: _layer_scale(f, terms, grad, scale_grad)))
    given: dict[str, Any] = {"input": None if found is None else f.reshape(found, shape)}
    if weight is not None and own is not None:
        given["weight"] = f.statement(lambda: _layer_weight(f, terms, grad, own, weight.shape))
    made = None
    if own is not None:
        made = f.statement(lambda: terms.first_backward(own, scale))
    if scale_grad is not None:
        made = _joined(f, made, f.statement(lambda: f.mul(f.mul(scale_grad, terms.centred), terms.inverse)))
    if bias_grad is not None:
        made = bias_grad if made is None else f.iadd(made, bias_grad)
    return {**given, GRAD: None if made is None else f.reshape(f.expand(made, (m, n)), shape)}


def _layer_input(f: Formula, terms: _Terms, grad: Any, scale: Any, own: Any) -> Any:
    scaled = f.mul(grad, scale)
    product = terms.product_sum(scaled, terms.centred)
    return terms.of_input(scaled, own, product, terms.sums(scaled))


def _layer_scale(f: Formula, terms: _Terms, grad: Any, scale_grad: Any) -> Any:
    n = terms.count
    first = f.statement(lambda: f.mul(f.mul(grad, scale_grad), terms.inverse))
    second = f.statement(lambda: f.idiv(f.mul(terms.inverse, terms.sums(f.mul(grad, scale_grad))), -n))
    third = f.statement(lambda: f.idiv(f.mul(terms.centred_cube, terms.sums(f.mul(f.mul(grad, scale_grad), terms.centred))), -n))
    return f.iadd(f.iadd(first, second), third)


def _layer_weight(f: Formula, terms: _Terms, grad: Any, own: Any, shape: Any) -> Any:
    one = f.call("ones", shape=(), dtype=terms.inverse.spec.dtype)
    first = f.statement(lambda: terms.first_backward(own, one))
    f.drop(one)
    summed = f.statement(lambda: f.sum(f.mul(grad, first), 0))
    return f.reshape(summed, shape)


_BATCH = (GRAD, "input", "weight", "running_mean", "running_var", "save_mean", "save_invstd")
FORMULAS: dict[str, Any] = {
    "batch_norm": Kernel(_BATCH, _batch_norm),
    "layer_norm": Kernel((GRAD, "input", "weight", "mean", "rstd"), _layer_norm),
}
