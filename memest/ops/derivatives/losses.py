"""Losses and what they are made of. Source: derivatives.yaml, FunctionsManual.cpp (mse_loss_double_backward and its kin)."""

from __future__ import annotations

from math import prod
from typing import Any

from memest.ops.derivatives.formula import GRAD, ByRole, Derived, Formula, Grads, Kernel, Saved, only


def _averaged(f: Formula, t: Any, reduction: str, count: int) -> Any:
    """``t /= count``, of a mean."""
    return f.idiv(t, count) if reduction == "mean" else t


def _mse(f: Formula, saved: Saved, grads: Grads, *, reduction: str) -> ByRole:
    """grad_output: mse_loss_backward again; self: mse_loss_double_backward(grad * grad_output): 2 * grad, averaged."""
    grad, other, *_ = grads
    if other is not None or f.wants(2):
        raise f.unknown("mse_loss of a target that wants a gradient")
    input, target = saved["input"], saved["target"]
    found: dict[str, Any] = {}
    if f.wants(0):
        found[GRAD] = f.kernel("mse_loss", [grad], {"input": input, "target": target}, (True, False), reduction=reduction)[0]
    if f.wants(1):
        doubled = f.times(f.mul(grad, saved[GRAD]), 2)
        found["input"] = _averaged(f, doubled, reduction, prod(input.shape))
    return found


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
    if "pos_weight" in saved or any(need for role, need in zip(saved["given"], f.needs, strict=True) if role != "input"):
        raise f.unknown("binary_cross_entropy_with_logits with pos_weight, or of a target that wants a gradient")
    input = saved["input"]
    sigmoid = f.call("sigmoid", input)
    difference = f.sub(sigmoid, saved["target"])
    f.drop(sigmoid)
    found = f.mul(difference, only(grads))
    f.drop(difference)
    if "weight" in saved:
        before, found = found, f.mul(found, saved["weight"])
        f.drop(before)
    found = _averaged(f, found, reduction, prod(input.shape))
    return [found if role == "input" else None for role in saved["given"]]


FORMULAS: dict[str, Any] = {
    "mse_loss": Kernel((GRAD, "input", "target"), _mse),
    "log_softmax": Kernel((GRAD, "result"), _log_softmax),
    "softmax": Kernel((GRAD, "result"), _softmax),
    "nll_loss_forward": _nll("nll_loss_forward"),
    "nll_loss2d_forward": _nll("nll_loss2d_forward"),
    "binary_cross_entropy_with_logits": _with_logits,
}
