"""Activations: what is kept is the output where the derivative can be written with it (relu, sigmoid), else the input (silu, gelu).

In place, the ones that need their input keep a copy of it (``silu_``, ``hardswish_``, ``relu6_``: no memory is saved), unless their
derivative has a form on the result (``leaky_relu_``, ``elu_``).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.network.dtypes import check_dtype
from memest.ops.aten.copies import clone, contiguous
from memest.ops.aten.iterator import elementwise, empty_like, refuse_dtypes, scalar, wants
from memest.ops.composite import Caller, Composite
from memest.ops.facts import (
    ALONG_DIM_CALLS,
    ALONG_DIM_FACTS,
    BY_METHOD,
    KEEPS_INPUT,
    KEEPS_RESULT,
    LOWER,
    NEVER,
    POINTWISE_CALLS,
    POINTWISE_FACTS,
    Facts,
    Overwriting,
)
from memest.ops.operator import REQUIRED, Attribute, Backward, Example, Operator, choice, flag, integer, number, optional
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = list[Tensor | None]

_INPLACE = Attribute(name="inplace", default=False, check=flag)
_SHAPES: tuple[tuple[tuple[int, ...], str], ...] = (((2, 3, 4), "contiguous"), ((2, 3, 4, 5), "channels_last"))


def _numbers(**defaults: float) -> tuple[Attribute, ...]:
    return tuple(Attribute(name=name, default=default, check=number) for name, default in defaults.items())


def _examples(attributes: Mapping[str, Any], inplace: bool) -> tuple[Example, ...]:
    plain = [Example(shapes=(shape,), attributes=attributes, layout=layout) for shape, layout in _SHAPES]
    if inplace:
        plain.append(Example(shapes=(_SHAPES[0][0],), attributes={**attributes, "inplace": True}))
    return tuple(plain)


# pointwise: one kernel forward, one backward -----------------------------------------------------------------------------


def _keep_result(k: Tape, input: Tensor, *, inplace: bool = False, **_: Any) -> Tensor:
    out = input if inplace else elementwise(k, input)
    k.save(result=out)
    return out


def _keep_input(k: Tape, input: Tensor, *, inplace: bool = False, **_: Any) -> Tensor:
    if inplace:
        if k.grad_enabled:
            k.save(input=clone(k, input))
        return input
    k.save(input=input)
    return elementwise(k, input)


def _keep_input_or_result(k: Tape, input: Tensor, *, inplace: bool, **_: Any) -> Tensor:
    if inplace:
        k.save(result=input)
        return input
    k.save(input=input)
    return elementwise(k, input)


def _grad_first(k: Tape, saved: Saved, grads: Grads, **_: Any) -> Grads:
    """One kernel on (grad, kept): the first operand decides how an ambiguous output lies."""
    (grad,) = grads
    assert grad is not None
    (kept,) = saved.values()
    return [elementwise(k, grad, kept)]


def _kept_first(k: Tape, saved: Saved, grads: Grads, **_: Any) -> Grads:
    """One kernel on (kept, grad): threshold_backward, leaky_relu_backward."""
    (grad,) = grads
    assert grad is not None
    (kept,) = saved.values()
    return [elementwise(k, kept, grad)]


def _gelu_backward(k: Tape, saved: Saved, grads: Grads, *, approximate: str) -> Grads:
    """A dense input of float32, or of bfloat16 on AVX-512, goes through oneDNN (Activation.cpp: ``use_mkldnn``), which wants the gradient
    to lie as the input does, and its result, too."""
    (grad,) = grads
    assert grad is not None
    input = saved["input"]
    out = elementwise(k, grad, input)
    taken = input.dtype == "float32" or (input.dtype == "bfloat16" and k.target.cpu.isa == "avx512")
    if approximate == "none" and taken and input.is_contiguous and input.numel > 1 and not grad.is_contiguous:
        k.free(*[k.scratch(input.nbytes) for _ in range(1 + (not out.is_contiguous))])
    return [out]


_FORWARDS = {"input": _keep_input, "result": _keep_result, "input or result": _keep_input_or_result}
_IN_PLACE = {"input": KEEPS_INPUT, "result": KEEPS_RESULT, "input or result": KEEPS_RESULT}


def _pointwise(
    name: str,
    keeps: str,
    derivative: str,
    *,
    overwrites: Overwriting | None = None,
    attributes: tuple[Attribute, ...] = (),
    example: Mapping[str, Any] | None = None,
    torch: str = "",
    backward: Backward = _grad_first,
) -> Operator:
    """A row of an activation that is one elementwise kernel each way; ``keeps`` says what of it autograd saves, in place the
    result where it may be either, and ``overwrites`` where torch.nn has no flag for that."""
    overwrites = overwrites or _IN_PLACE[keeps]
    inplace = overwrites is not NEVER
    return Operator(
        name=name,
        torch=torch or f"torch.nn.functional.{name}",
        roles=("input",),
        attributes=(*attributes, _INPLACE) if inplace else attributes,
        forward=_FORWARDS[keeps],
        saves=tuple(keeps.split(" or ")),
        backward=backward,
        examples=_examples(example or {}, inplace),
        facts=POINTWISE_FACTS.but(overwrites=overwrites),
        source=f"derivatives.yaml: {derivative}; aten/src/ATen/native/Activation.cpp",
    )


_POINTWISE = (
    _pointwise("relu", "result", "relu", backward=_kept_first),
    _pointwise("relu6", "input", "hardtanh"),
    _pointwise("hardtanh", "input", "hardtanh", attributes=_numbers(min_val=-1.0, max_val=1.0)),
    _pointwise("leaky_relu", "input or result", "leaky_relu, leaky_relu_", attributes=_numbers(negative_slope=0.01), backward=_kept_first),
    _pointwise("elu", "input or result", "elu, elu_", attributes=_numbers(alpha=1.0)),
    _pointwise("selu", "input or result", "elu, elu_"),
    _pointwise("celu", "input or result", "celu, celu_", attributes=_numbers(alpha=1.0)),
    _pointwise(
        "gelu",
        "input",
        "gelu",
        overwrites=NEVER,
        attributes=(Attribute(name="approximate", default="none", check=choice("none", "tanh")),),
        backward=_gelu_backward,
    ),
    _pointwise("silu", "input", "silu"),
    _pointwise("mish", "input", "mish"),
    _pointwise("hardswish", "input", "hardswish"),
    _pointwise("hardsigmoid", "input", "hardsigmoid"),
    _pointwise("sigmoid", "result", "sigmoid", torch="torch.sigmoid", overwrites=BY_METHOD),
    _pointwise("tanh", "result", "tanh", torch="torch.tanh", overwrites=BY_METHOD),
    _pointwise("softplus", "input", "softplus", overwrites=NEVER, attributes=_numbers(beta=1.0, threshold=20.0)),
    _pointwise(
        "threshold",
        "input",
        "threshold",
        attributes=_numbers(threshold=REQUIRED, value=REQUIRED),
        example={"threshold": 0.1, "value": 0.2},
        backward=_kept_first,
    ),
    _pointwise("hardshrink", "input", "hardshrink", overwrites=NEVER, attributes=_numbers(lambd=0.5)),
    _pointwise("softshrink", "input", "softshrink", overwrites=NEVER, attributes=_numbers(lambd=0.5)),
)


# log-sigmoid, prelu, rrelu, glu ------------------------------------------------------------------------------------------


def _drop_copy(k: Tape, t: Tensor) -> None:
    """``t.contiguous()`` as a local of the kernel."""
    dense = contiguous(k, t)
    k.free(None if dense is t else dense)


def _logsigmoid(k: Tape, input: Tensor) -> Tensor:
    k.save(input=input)
    out, buffer = k.empty(input.shape, input.dtype), k.empty(input.shape, input.dtype)
    _drop_copy(k, input)
    k.save(buffer=buffer)
    return out


def _logsigmoid_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    (grad,) = grads
    assert grad is not None
    return [empty_like(k, grad)]


def _prelu_kernel(k: Tape, input: Tensor, weight: Tensor) -> Tensor:
    k.save(input=input, weight=weight)
    return empty_like(k, input)


def _prelu_kernel_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    """Both gradients come from one kernel and have the input's shape; the weight's is summed where somebody wants it."""
    (grad,) = grads
    assert grad is not None
    operands = (saved["input"], saved["weight"], grad)
    for_input, for_weight = elementwise(k, *operands), elementwise(k, *operands)
    return [for_input if k.needs[0] else None, for_weight if wants(k, 1) else None]


def _prelu(c: Caller, input: Any, weight: Any) -> Any:
    """The weight is seen as it lies beside the input."""
    dims, count = len(input.shape), prod(weight.shape)
    channels = input.shape[1] if dims > 1 else 1
    if len(weight.shape) > 1 or count not in (1, channels):
        raise ShapeError(f"prelu of {channels} channels needs 1 weight or {channels}, got shape {list(weight.shape)}")
    aligned = (1, count, *(1,) * (dims - 2)) if dims > 1 else (1,) * dims
    return c.call("_prelu_kernel", input, c.call("reshape", weight, shape=aligned))


def _rrelu(k: Tape, input: Tensor, *, lower: float, upper: float, training: bool, inplace: bool) -> Tensor:
    noise = k.empty(input.shape, input.dtype)
    k.save(noise=noise, **({} if inplace else {"input": input}))
    out = input if inplace else k.empty(input.shape, input.dtype)
    if training:
        refuse_dtypes("rrelu with noise", input, ("float16",))
        copies = [t for t in (contiguous(k, input), contiguous(k, out) if inplace else out) if t is not input and t is not out]
        k.free(*copies)
    else:
        _mean_slope(k)
    if inplace:
        k.save(result=out)
    return out


def _mean_slope(k: Tape) -> None:
    """``(lower + upper) / 2`` on 0-dim tensors of float64; the 2 is wrapped as an integer and cast."""
    lower, upper = scalar(k, 0.125), scalar(k, 0.333)
    total = k.empty((), "float64")
    two = scalar(k, 2)
    cast, slope = k.empty((), "float64"), k.empty((), "float64")
    k.free(cast, two, slope, total, upper, lower)


def _rrelu_backward(k: Tape, saved: Saved, grads: Grads, *, lower: float, upper: float, training: bool, inplace: bool) -> Grads:
    (grad,) = grads
    assert grad is not None
    if training and upper - lower > 1e-6:
        return [elementwise(k, saved["noise"], grad)]
    return [elementwise(k, saved["result" if inplace else "input"], grad)]


def _glu(k: Tape, input: Tensor, *, dim: int) -> Tensor:
    d = _dim("glu", input, dim)
    if input.shape[d] % 2:
        raise ShapeError(f"glu halves dim {dim}, which has {input.shape[d]} elements, an odd number")
    k.save(input=input)
    half = k.view(input, (*input.shape[:d], input.shape[d] // 2, *input.shape[d + 1 :]), input.strides)
    return elementwise(k, half, half)


def _glu_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> Grads:
    return [k.empty(saved["input"].shape, saved["input"].dtype)]


def _dim(op: str, t: Tensor, dim: int) -> int:
    """``dim`` counted from the front."""
    ndim = max(t.ndim, 1)
    if not -ndim <= dim < ndim:
        raise ShapeError(f"{op} over dim {dim} needs that many dims, got shape {list(t.shape)}")
    return dim % ndim


# softmax -----------------------------------------------------------------------------------------------------------------


def _softmax(k: Tape, input: Tensor, *, dim: int, dtype: str | None) -> Tensor:
    """With a ``dtype`` the input is converted first, and the copy dies after the kernel."""
    _dim("softmax", input, dim)
    k.note(dtype=input.dtype)
    given = input if dtype in (None, input.dtype) else empty_like(k, input, dtype)
    out = k.empty(input.shape, given.dtype)
    _drop_copy(k, given)
    k.free(None if given is input else given)
    k.save(result=out)
    return out


def _softmax_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, dtype: str | None) -> Grads:
    (grad,) = grads
    assert grad is not None
    out = k.empty(grad.shape, grad.dtype)
    _drop_copy(k, grad)
    return [converted_back(k, out, saved["dtype"])]


def converted_back(k: Tape, grad: Tensor, dtype: str) -> Tensor:
    """A gradient in the type its input had before a conversion; what it was dies."""
    if grad.dtype == dtype:
        return grad
    made = empty_like(k, grad, dtype)
    k.free(grad)
    return made


def _softmax_row(name: str) -> Operator:
    return Operator(
        name=name,
        torch=f"torch.nn.functional.{name}",
        roles=("input",),
        attributes=(
            Attribute(name="dim", default=REQUIRED, check=integer),
            Attribute(name="dtype", default=None, check=optional(check_dtype)),
        ),
        forward=_softmax,
        saves=("result",),
        backward=_softmax_backward,
        examples=(
            Example(shapes=((4, 5),), attributes={"dim": 1}),
            Example(shapes=((2, 3, 4, 5),), attributes={"dim": 1}, layout="channels_last"),
            Example(shapes=((2, 3, 4, 5),), attributes={"dim": -1}),
            Example(shapes=((2, 3, 4, 5),), attributes={"dim": 1, "dtype": "float64"}),
        ),
        facts=ALONG_DIM_FACTS,
        source=f"derivatives.yaml: _{name}; aten/src/ATen/native/SoftMax.cpp",
    )


# composites --------------------------------------------------------------------------------------------------------------


def _softsign(c: Caller, input: Any) -> Any:
    size = c.call("abs", input)
    shifted = c.call("add", size, None, value=1)
    c.drop(size)
    return c.call("div", input, shifted)


def _tanhshrink(c: Caller, input: Any) -> Any:
    return c.call("sub", input, c.call("tanh", input))


def _softmin(c: Caller, input: Any, *, dim: int) -> Any:
    return c.call("softmax", c.call("neg", input), dim=dim)


_RRELU = (*_numbers(lower=1.0 / 8, upper=1.0 / 3), Attribute(name="training", default=None, check=optional(flag)), _INPLACE)

ROWS = (
    *_POINTWISE,
    Operator(
        name="logsigmoid",
        torch="torch.nn.functional.logsigmoid",
        roles=("input",),
        attributes=(),
        forward=_logsigmoid,
        saves=("input", "buffer"),
        backward=_logsigmoid_backward,
        examples=_examples({}, False),
        facts=POINTWISE_FACTS,
        source="derivatives.yaml: log_sigmoid_forward; aten/src/ATen/native/Activation.cpp",
    ),
    Operator(
        name="_prelu_kernel",
        torch="torch._prelu_kernel",
        roles=("input", "weight"),
        attributes=(),
        forward=_prelu_kernel,
        saves=("input", "weight"),
        backward=_prelu_kernel_backward,
        examples=(
            Example(shapes=((2, 3, 4, 5), (1, 3, 1, 1)), attributes={}),
            Example(shapes=((6,), (1,)), attributes={}, frozen=(0,)),
        ),
        facts=POINTWISE_FACTS,
        source="derivatives.yaml: _prelu_kernel; aten/src/ATen/native/Activation.cpp",
    ),
    Operator(
        name="rrelu",
        torch="torch.nn.functional.rrelu",
        roles=("input",),
        attributes=_RRELU,
        forward=_rrelu,
        saves=("noise", "input", "result"),
        backward=_rrelu_backward,
        examples=(*_examples({"training": True}, True), *_examples({"training": False}, True)),
        facts=POINTWISE_FACTS.but(overwrites=KEEPS_RESULT),
        source="derivatives.yaml: rrelu_with_noise; aten/src/ATen/native/Activation.cpp",
    ),
    Operator(
        name="glu",
        torch="torch.nn.functional.glu",
        roles=("input",),
        attributes=(Attribute(name="dim", default=-1, check=integer),),
        forward=_glu,
        saves=("input",),
        backward=_glu_backward,
        examples=(
            Example(shapes=((2, 6),), attributes={}),
            Example(shapes=((2, 4, 3, 5),), attributes={"dim": 1}, layout="channels_last"),
        ),
        facts=ALONG_DIM_FACTS,
        source="derivatives.yaml: glu; aten/src/ATen/native/GatedLinearUnit.cpp",
    ),
    _softmax_row("softmax"),
    _softmax_row("log_softmax"),
)


def _composite(
    name: str, compose: Any, facts: Facts, attributes: tuple[Attribute, ...] = (), example: Mapping[str, Any] | None = None
) -> Composite:
    return Composite(
        name=name,
        torch=f"torch.nn.functional.{name}",
        roles=("input",),
        attributes=attributes,
        compose=compose,
        examples=_examples(example or {}, False),
        facts=facts,
        source=f"torch/nn/functional.py ({name})",
    )


COMPOSITE_ROWS = (
    _composite("softsign", _softsign, POINTWISE_CALLS),
    _composite("tanhshrink", _tanhshrink, POINTWISE_CALLS),
    Composite(
        name="prelu",
        torch="torch.nn.functional.prelu",
        roles=("input", "weight"),
        attributes=(),
        compose=_prelu,
        examples=(
            Example(shapes=((2, 3, 4, 5), (3,)), attributes={}),
            Example(shapes=((2, 3, 4, 5), (1,)), attributes={}, layout="channels_last"),
            Example(shapes=((6,), (1,)), attributes={}, frozen=(0,)),
            Example(shapes=((), (1,)), attributes={}),
        ),
        facts=POINTWISE_CALLS.but(autocast=LOWER),
        source="aten/src/ATen/native/Activation.cpp (prelu reshapes the weight first)",
    ),
    _composite("softmin", _softmin, ALONG_DIM_CALLS, (Attribute(name="dim", default=REQUIRED, check=integer),), {"dim": 1}),
)
