"""Losses and what they are made of. Source: derivatives.yaml, FunctionsManual.cpp (mse_loss_double_backward and its kin)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from memest.ops.derivatives.formula import GRAD, ByRole, Derived, Formula, Grads, Kernel, Saved, only


def _averaged(f: Formula, t: Any, reduction: str, count: int) -> Any:
    """``t /= count``, of a mean."""
    return f.idiv(t, count) if reduction == "mean" else t


def _of_target(name: str) -> Any:
    """Losses of a difference: the kernel for the input, and again with both exchanged for the target."""

    def formula(f: Formula, saved: Saved, grads: Grads, **given: Any) -> Derived:
        input, target = saved["input"], saved["target"]
        first = f.kernel(name, grads, {"input": input, "target": target}, (True, False), **given)[0] if f.wants(0) else None
        second = f.kernel(name, grads, {"input": target, "target": input}, (True, False), **given)[0] if f.wants(1) else None
        return [first, second]

    return formula


def _distance(name: str, of_grad: Callable[..., Any], of_input: Callable[..., Any]) -> Kernel:
    """``of_grad(f, grad, kept, attributes)``; ``of_input(f, grad * grad_output, kept, attributes)``, which the target gets negated."""

    def double(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
        grad, found = only(grads), {}
        if f.wants(0):
            found[GRAD] = of_grad(f, grad, saved, given)

        def doubled() -> Any:
            product = f.mul(grad, saved[GRAD])
            return f.statement(lambda: of_input(f, product, saved, given))

        if f.wants(1):
            found["input"] = f.statement(doubled)
        if f.wants(2):
            found["target"] = f.statement(lambda: f.neg(doubled()))
        return found

    return Kernel((GRAD, "input", "target"), double, _of_target(name))


def _again(name: str) -> Callable[..., Any]:
    """The kernel once more: it is linear in its gradient."""

    def of_grad(f: Formula, grad: Any, saved: Saved, given: Any) -> Any:
        return f.kernel(name, [grad], {"input": saved["input"], "target": saved["target"]}, (True, False), **given)[0]

    return of_grad


def _mse(f: Formula, product: Any, saved: Saved, given: Any) -> Any:
    """mse_loss_double_backward: 2 * grad, averaged."""
    return _averaged(f, f.times(product, 2), given["reduction"], prod(saved["input"].shape))


def _smooth_l1(f: Formula, product: Any, saved: Saved, given: Any) -> Any:
    """smooth_l1_loss_double_backward: grad * (|input - target| < beta) / beta, averaged."""
    if given["beta"] == 0:
        return f.zeros(product.shape, product.spec.dtype)
    distance = f.statement(lambda: f.call("abs", f.sub(saved["input"], saved["target"])))

    def inside() -> Any:
        near = f.call("_to_copy", f.call("lt", distance, None, value=given["beta"]), dtype=product.spec.dtype)
        return f.over(f.mul(product, near), given["beta"])

    return _averaged(f, f.statement(inside), given["reduction"], prod(saved["input"].shape))


def _huber(f: Formula, product: Any, saved: Saved, given: Any) -> Any:
    """huber_loss_double_backward: grad * (|input - target| < delta), averaged."""
    distance = f.statement(lambda: f.call("abs", f.sub(saved["input"], saved["target"])))
    found = f.statement(lambda: f.mul(product, f.call("lt", distance, None, value=given["delta"])))
    return _averaged(f, found, given["reduction"], prod(saved["input"].shape))


def _huber_grad(f: Formula, grad: Any, saved: Saved, given: Any) -> Any:
    """huber_loss_double_backward_grad_output: the kernel for ones, times the gradient, summed."""
    again = _again("huber_loss")
    if given["reduction"] == "none":
        return again(f, grad, saved, given)

    def summed() -> Any:
        slope = f.statement(lambda: again(f, f.call("ones_like", saved[GRAD]), saved, given))
        return f.sum(f.mul(slope, grad))

    return f.statement(summed)


def _bce(f: Formula, saved: Saved, grads: Grads, *, reduction: str) -> ByRole:
    """binary_cross_entropy_double_backward_grad_output and binary_cross_entropy_double_backward."""
    grad, input, target, weight = only(grads), saved["input"], saved["target"], saved.get("weight")

    def reduced(t: Any) -> Any:
        t = t if weight is None else f.imul_by(t, weight)
        return f.over(t, prod(input.shape)) if reduction == "mean" else t

    def of_grad() -> Any:
        def ratio() -> Any:
            right = f.plus(f.one_minus(input), 1e-12)
            below = f.mul(f.plus(input, 1e-12), right)
            return f.div(f.sub(input, target), below)

        return reduced(f.imul_by(f.statement(ratio), grad))

    def of_input() -> Any:
        near = f.plus(input, 1e-12)
        far = f.statement(lambda: f.plus(f.one_minus(input), 1e-12))

        def ratio() -> Any:
            right = f.pow(far, 2)
            below = f.mul(f.pow(near, 2), right)
            cross = f.mul(f.times(input, 2), target)
            return f.div(f.add(f.sub(f.mul(input, input), cross), target), below)

        found = f.statement(ratio)
        f.statement(lambda: f.imul_by(found, f.mul(grad, saved[GRAD])))
        return reduced(found)

    return {
        GRAD: f.statement(of_grad) if f.wants(0) else None,
        "input": f.statement(of_input) if f.wants(1) else None,
    }


def _log_softmax(f: Formula, saved: Saved, grads: Grads, *, dim: int, dtype: str | None) -> ByRole:
    """grad_output: grad - (grad * output.exp()).sum(dim, true); output: -grad_output.sum(dim, true) * output.exp() * grad."""
    grad, given, result = only(grads), saved[GRAD], saved["result"]
    if saved["dtype"] != result.spec.dtype:
        raise f.unknown("a softmax with a dtype of its own")
    found: dict[str, Any] = {}
    if f.wants(0):

        def of_grad() -> Any:
            right = f.sum(f.mul(grad, f.call("exp", result)), dim, True)
            return f.sub(grad, right)

        found[GRAD] = f.statement(of_grad)
    if f.wants(1):

        def of_result() -> Any:
            power = f.call("exp", result)
            return f.mul(f.mul(f.neg(f.sum(given, dim, True)), power), grad)

        found["result"] = f.statement(of_result)
    return found


def _softmax(f: Formula, saved: Saved, grads: Grads, *, dim: int, dtype: str | None) -> ByRole:
    """softmax_double_backward: gO * g - (output * gO).sum * g - gO * (output * g).sum."""
    grad, given, result = only(grads), saved[GRAD], saved["result"]
    if saved["dtype"] != result.spec.dtype:
        raise f.unknown("a softmax with a dtype of its own")
    found: dict[str, Any] = {}
    if f.wants(0):
        found[GRAD] = f.kernel("softmax", [grad], {"result": result, "dtype": saved["dtype"]}, (True,), dim=dim, dtype=dtype)[0]
    if f.wants(1):

        def of_result() -> Any:
            third = f.mul(given, f.sum(f.mul(result, grad), dim, True))
            second = f.mul(f.sum(f.mul(result, given), dim, True), grad)
            return f.sub(f.sub(f.mul(given, grad), second), third)

        found["result"] = f.statement(of_result)
    return found


def _nll(name: str) -> Kernel:
    def double(f: Formula, saved: Saved, grads: Grads, *, reduction: str, ignore_index: int) -> ByRole:
        """nll_loss_backward is linear in its gradient: the loss of what comes back."""
        grad, found = grads[0], None
        if f.wants(0):
            found = f.call(name, grad, saved["target"], saved.get("weight"), reduction=reduction, ignore_index=ignore_index)
        return {GRAD: found, "input": f.zeros_like(grad) if f.wants(1) else None}

    return Kernel(("target", "weight"), double)


def _with_logits(f: Formula, saved: Saved, grads: Grads, *, reduction: str) -> Derived:
    """(sigmoid(input) - target) * grad, averaged in place; out of place otherwise in grad mode."""
    if any(need for role, need in zip(saved["given"], f.needs, strict=True) if role != "input"):
        raise f.unknown("binary_cross_entropy_with_logits of a target that wants a gradient")
    input, target = saved["input"], saved["target"]

    def slope() -> Any:
        if "pos_weight" not in saved:
            return f.sub(f.call("sigmoid", input), target)
        weighted = f.mul(saved["pos_weight"], target)
        return f.sub(f.mul(f.sub(f.plus(weighted, 1), target), f.call("sigmoid", input)), weighted)

    difference = f.statement(slope)
    found = f.mul(difference, only(grads))
    f.drop(difference)
    if "weight" in saved:
        before, found = found, f.mul(found, saved["weight"])
        f.drop(before)
    found = _averaged(f, found, reduction, prod(input.shape))
    return [found if role == "input" else None for role in saved["given"]]


FORMULAS: dict[str, Any] = {
    "mse_loss": _distance("mse_loss", _again("mse_loss"), _mse),
    "smooth_l1_loss": _distance("smooth_l1_loss", _again("smooth_l1_loss"), _smooth_l1),
    "huber_loss": _distance("huber_loss", _huber_grad, _huber),
    "binary_cross_entropy": Kernel((GRAD, "input", "target", "weight"), _bce),
    "log_softmax": Kernel((GRAD, "result"), _log_softmax),
    "softmax": Kernel((GRAD, "result"), _softmax),
    "nll_loss_forward": _nll("nll_loss_forward"),
    "nll_loss2d_forward": _nll("nll_loss2d_forward"),
    "binary_cross_entropy_with_logits": _with_logits,
}
