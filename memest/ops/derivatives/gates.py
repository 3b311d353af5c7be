"""Activations of two parts: where a weight or half of the channels decides. Source: derivatives.yaml (_prelu_kernel_backward, glu_backward,
log_sigmoid_backward, hardswish_backward), FunctionsManual.cpp."""

from __future__ import annotations

from typing import Any

from memest.ops.aten.iterator import elementwise
from memest.ops.aten.views import wrapped
from memest.ops.derivatives.formula import GRAD, ByRole, Derived, Formula, Grads, Kernel, Saved, by_derivative, only
from memest.ops.facts import POINTWISE_FACTS
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor


def _hardswish(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
    """self: where(-3 < self and self < 3, grad * grad_output / 3, 0)."""
    grad, input = only(grads), saved["input"]
    again = f.kernel("hardswish", [grad], {"input": input}, (True,), **given)[0] if f.wants(0) else None

    def chosen() -> Any:
        zero = f.zeros((), input.spec.dtype)
        third = f.over(f.mul(grad, saved[GRAD]), 3.0)
        upper = f.call("lt", input, None, value=3.0)
        inside = f.call("logical_and", f.call("gt", input, None, value=-3.0), upper)
        return f.call("where", inside, third, zero)

    return {GRAD: again, "input": f.statement(chosen) if f.wants(1) else None}


def _logsigmoid(f: Formula, saved: Saved, grads: Grads) -> ByRole:
    """self: log_sigmoid_double_backward(grad * grad_output, self): grad * (z - 1) * z with z = sigmoid(self)."""
    grad, input = only(grads), saved["input"]
    kept = {"input": input, "buffer": saved["buffer"]}
    again = f.kernel("logsigmoid", [grad], kept, (True,))[0] if f.wants(0) else None

    def of_input() -> Any:
        product = f.mul(grad, saved[GRAD])
        z = f.call("sigmoid", input)
        return f.mul(f.mul(product, f.plus(z, -1)), z)

    return {GRAD: again, "input": f.statement(of_input) if f.wants(1) else None}


def _glu(f: Formula, saved: Saved, grads: Grads, *, dim: int) -> ByRole:
    """glu_double_backward and glu_double_backward_grad_output."""
    grad, given, input = only(grads), saved[GRAD], saved["input"]
    d = wrapped(dim, len(input.shape))
    half = input.shape[d] // 2

    def halves(t: Any) -> tuple[Any, Any]:
        return f.narrow(t, d, 0, half), f.narrow(t, d, half, half)

    def of_grad() -> Any:
        def ones() -> Any:
            return f.call("ones", shape=(*input.shape[:d], half, *input.shape[d + 1 :]), dtype=input.spec.dtype)

        product = f.statement(lambda: f.mul(grad, f.kernel("glu", [ones()], {"input": input}, (True,), dim=dim)[0]))
        first, second = reversed([f.narrow(product, d, at, half) for at in (half, 0)])
        return f.add(first, second)

    def of_input() -> Any:
        first, second = halves(input)
        gate = f.call("sigmoid", second)
        rest = f.one_minus(gate)
        slope = f.mul(gate, rest)
        of_first, of_second = halves(grad)
        both = f.mul(of_second, first)
        one = f.statement(lambda: f.mul(f.mul(of_second, given), slope))

        def curve() -> Any:
            right = f.mul(gate, slope)
            return f.sub(f.mul(slope, rest), right)

        change = f.statement(curve)

        def other() -> Any:
            right = f.mul(f.mul(of_first, given), slope)
            return f.add(f.mul(f.mul(both, given), change), right)

        two = f.statement(other)
        return f.call("cat", [one, two], dim=d)

    return {GRAD: f.statement(of_grad) if f.wants(0) else None, "input": f.statement(of_input) if f.wants(1) else None}


def _prelu_kernel(k: Tape, grad: Tensor, input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    k.save(grad=grad, input=input, weight=weight if k.needs[0] else None)
    operands = (input, weight, grad)
    return elementwise(k, *operands), elementwise(k, *operands)


PRELU_KERNEL = Operator(
    name="_prelu_kernel_backward",
    torch="",
    roles=("grad", "input", "weight"),
    attributes=(),
    forward=_prelu_kernel,
    saves=("grad", "input", "weight"),
    backward=by_derivative,
    examples=(),
    facts=POINTWISE_FACTS,
    source="derivatives.yaml: _prelu_kernel_backward; aten/src/ATen/native/Activation.cpp",
)


def _prelu(f: Formula, saved: Saved, grads: Grads) -> Derived:
    first, second = f.call(PRELU_KERNEL, only(grads), saved["input"], saved["weight"])
    return [first if f.wants(0) else None, second if f.wants(1) else None]


def _prelu_again(f: Formula, saved: Saved, grads: Grads) -> Derived:
    """Each of the three gradients chosen by the sign of the input."""
    of_input, of_weight = grads
    given, input, weight = saved["grad"], saved["input"], saved.get("weight")

    def chosen(left: Any, right: Any) -> Any:
        """``where(self >= 0, left, right)``: arguments are evaluated from the last on."""

        def body() -> Any:
            second = right()
            first = left()
            return f.call("where", f.call("ge", input, None, value=0), first, second)

        return f.statement(body)

    def zero() -> Any:
        return f.zeros((), input.spec.dtype)

    def scaled() -> Any:
        if of_input is None:
            return f.mul(of_weight, input)
        if of_weight is None:
            return f.mul(of_input, weight)
        right = f.mul(of_weight, input)
        return f.add(f.mul(of_input, weight), right)

    first = second = third = None
    if f.wants(0):
        first = chosen(zero if of_input is None else lambda: of_input, scaled)
    if f.wants(1):
        second = f.zeros_like(input) if of_weight is None else chosen(zero, lambda: f.mul(given, of_weight))
    if f.wants(2):
        third = f.zeros_like(input) if of_input is None else chosen(zero, lambda: f.mul(given, of_input))
    return [first, second, third]


FORMULAS: dict[str, Any] = {
    "hardswish": Kernel((GRAD, "input"), _hardswish),
    "logsigmoid": Kernel((GRAD, "input", "buffer"), _logsigmoid),
    "glu": Kernel((GRAD, "input"), _glu),
    "_prelu_kernel": _prelu,
    "_prelu_kernel_backward": _prelu_again,
}
