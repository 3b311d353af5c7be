"""Activations on CUDA: TensorIterator alone; the softmax's gradient multiplies by the result first.

Sources: aten/src/ATen/native/cuda/Activation.cpp, ActivationLogSigmoidKernel.cu, RreluWithNoise.cu, SoftMax.cu.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import elementwise, empty_like, incoming, wants
from memest.ops.aten.reductions import sum_to
from memest.ops.facts import LOWER, POINTWISE_FACTS
from memest.ops.families.activation import COMPOSITE_ROWS as COMPOSED
from memest.ops.families.activation import ROWS as ON_CPU
from memest.ops.families.activation import converted_back
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.copies import passing, release

Saved = dict[str, Any]
Grads = list[Tensor | None]


def _gelu_backward(k: Tape, saved: Saved, grads: Grads, *, approximate: str) -> Grads:
    return [elementwise(k, incoming(grads), saved["input"])]


def _logsigmoid(k: Tape, input: Tensor) -> Tensor:
    """The buffer is empty: backward computes anew."""
    k.save(input=input)
    out = empty_like(k, input)
    k.save(buffer=k.empty((0,), input.dtype))
    return out


def _prelu(k: Tape, input: Tensor, weight: Tensor) -> Tensor:
    """``prelu`` as one call: the weight is seen as it lies beside the input."""
    count = weight.numel
    k.save(input=input, weight=weight)
    k.note(aligned=(1, count, *(1,) * (input.ndim - 2)) if input.ndim > 1 else (1,) * input.ndim)
    return empty_like(k, input)


def _prelu_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    """Both gradients come from one kernel; the weight's is summed where somebody wants it."""
    operands = (saved["input"], k.view(saved["weight"], saved["aligned"]), incoming(grads))
    for_input, for_weight = elementwise(k, *operands), elementwise(k, *operands)
    if for_weight.shape == saved["aligned"]:
        return [for_input, k.view(for_weight, saved["weight"].shape)]
    if not wants(k, 1):
        return [for_input, None]
    if not wants(k, 0):
        k.free(for_input)
    summed = sum_to(k, for_weight, saved["aligned"])
    k.free(for_weight)
    return [for_input, k.alias(summed, saved["weight"].shape)]


def _rrelu(k: Tape, input: Tensor, *, lower: float, upper: float, training: bool, inplace: bool) -> Tensor:
    noise = k.empty(input.shape, input.dtype)
    k.save(noise=noise, **({} if inplace else {"input": input}))
    out = input if inplace else k.empty(input.shape, input.dtype)
    if training:
        dense = contiguous(k, input)
        if inplace:
            passing(k, out)
        release(k, (dense, input))
    if inplace:
        k.save(result=out)
    return out


def _softmax(k: Tape, input: Tensor, *, dim: int, dtype: str | None) -> Any:
    """A float32 result of float16 is written by the kernel itself (``half_to_float``)."""
    if (input.dtype, dtype) != ("float16", "float32"):
        return BY_NAME["softmax"].forward(k, input, dim=dim, dtype=dtype)
    k.note(dtype=input.dtype)
    out = k.empty(input.shape, "float32")
    passing(k, input)
    k.save(result=out)
    return out


def _softmax_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, dtype: str | None) -> Grads:
    """``grad * result`` is made beside the gradient (``softmax_backward_cuda_out``)."""
    grad, result = incoming(grads), saved["result"]
    out = _softmax_gradient(k, saved, grad, dtype)
    product = elementwise(k, grad, result)
    dense = contiguous(k, product)
    passing(k, result)
    release(k, (dense, product))
    k.free(product)
    return [converted_back(k, out, saved["dtype"])]


def _log_softmax_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, dtype: str | None) -> Grads:
    grad = incoming(grads)
    out = _softmax_gradient(k, saved, grad, dtype)
    dense = contiguous(k, grad)
    passing(k, saved["result"])
    release(k, (dense, grad))
    return [converted_back(k, out, saved["dtype"])]


def _softmax_gradient(k: Tape, saved: Saved, grad: Tensor, dtype: str | None) -> Tensor:
    fused = (saved["dtype"], dtype) == ("float16", "float32")
    return k.empty(grad.shape, saved["dtype"] if fused else grad.dtype)


def _softmax_row(name: str, backward: Any) -> Operator:
    source = f"derivatives.yaml: _{name}; aten/src/ATen/native/SoftMax.cpp (half_to_float), cuda/SoftMax.cu"
    return replace(BY_NAME[name], forward=_softmax, backward=backward, source=source)


PRELU = next(row for row in COMPOSED if row.name == "prelu")
BY_NAME = {row.name: row for row in ON_CPU}
ROWS: tuple[Operator, ...] = (
    replace(BY_NAME["gelu"], backward=_gelu_backward, source="derivatives.yaml: gelu; aten/src/ATen/native/cuda/ActivationGeluKernel.cu"),
    replace(
        BY_NAME["logsigmoid"],
        forward=_logsigmoid,
        source="derivatives.yaml: log_sigmoid_forward; aten/src/ATen/native/cuda/ActivationLogSigmoidKernel.cu",
    ),
    replace(
        BY_NAME["rrelu"],
        forward=_rrelu,
        source="derivatives.yaml: rrelu_with_noise; aten/src/ATen/native/cuda/RreluWithNoise.cu",
    ),
    Operator(
        name="prelu",
        torch=PRELU.torch,
        roles=PRELU.roles,
        attributes=(),
        forward=_prelu,
        saves=("input", "weight"),
        backward=_prelu_backward,
        examples=PRELU.examples,
        facts=POINTWISE_FACTS.but(autocast=LOWER),
        source="derivatives.yaml: _prelu_kernel; aten/src/ATen/native/Activation.cpp (prelu reshapes the weight first)",
    ),
    _softmax_row("softmax", _softmax_backward),
    _softmax_row("log_softmax", _log_softmax_backward),
)
SAME = (
    "relu",
    "relu6",
    "hardtanh",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "silu",
    "mish",
    "hardswish",
    "hardsigmoid",
    "sigmoid",
    "tanh",
    "softplus",
    "threshold",
    "hardshrink",
    "softshrink",
    "glu",
)
