"""Convolutions: the backward of ``convolution_backward`` is made of convolutions.

Source: aten/src/ATen/native/Convolution.cpp (_convolution_double_backward). It computes all three gradients, whoever wants them. On a card
it copies what lies otherwise before it is convolved with: weights and the gradient until it returns, what is transposed for its own block.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from memest.network.tensor import Shape
from memest.ops.derivatives.formula import GRAD, ByRole, Formula, Grads, Kernel, Saved
from memest.ops.operator import expand


def _double(
    f: Formula,
    saved: Saved,
    grads: Grads,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> ByRole:
    of_input, of_weight, of_bias = (*grads, None, None, None)[:3]
    grad, input, weight = saved[GRAD], saved["input"], saved["weight"]
    dims = len(weight.shape) - 2
    stride, padding, dilation, output_padding = (expand(v, dims) for v in (stride, padding, dilation, output_padding))
    same = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": output_padding, "groups": groups}
    found: dict[str, Any] = {}

    def conv(t: Any, w: Any, transposed: bool, **given: Any) -> Any:
        return f.call("convolution", t, w, None, transposed=transposed, **given)

    result = None
    if of_input is not None:
        result = conv(of_input, _dense(f, weight), transposed, **same)
    if of_weight is not None:
        of_weight = _dense(f, of_weight)
        term = conv(input, of_weight, transposed, **same)
        result = term if result is None else _added(f, result, term)
    if of_bias is not None:
        lead = f.view(f.contiguous(of_bias), (1, of_bias.shape[0], *(1,) * dims))
        spread = f.expand(lead, grad.shape)
        result = spread if result is None else _added(f, result, spread)
    found[GRAD] = result
    if of_input is not None:
        found["weight"] = _weight(f, grad, of_input, weight.shape, {**same, "stride": dilation, "dilation": stride}, transposed, groups)
    if of_weight is not None:
        grad = _dense(f, grad)
        if transposed:
            found["input"] = _fitted(f, conv(grad, of_weight, False, **same), input.shape)
        else:
            more = _output_padding(weight.shape[2:], input.shape[2:], grad.shape[2:], stride, padding, dilation, output_padding)
            found["input"] = conv(grad, of_weight, True, **{**same, "output_padding": more})
    return found


def _added(f: Formula, a: Any, b: Any) -> Any:
    total = f.add(a, b)
    f.drop(a, b)
    return total


def _weight(f: Formula, grad: Any, of_input: Any, shape: Shape, given: dict[str, Any], transposed: bool, groups: int) -> Any:
    """The gradients convolved with one another, batch and channels exchanged, group by group; strides and dilations exchanged, too."""
    given = {**given, "groups": 1}
    above, images = f.transpose(grad, 0, 1), f.transpose(of_input, 0, 1)

    def conv(above: Any, images: Any) -> Any:
        images, kernels = (above, images) if transposed else (images, above)
        return f.call("convolution", images, kernels, None, transposed=False, **given)

    def one(above: Any, images: Any) -> Any:
        return conv(_dense(f, above), images)

    if groups == 1:
        made = f.statement(partial(one, above, images))
    else:
        pairs = [(_group(f, above, groups, g), _group(f, images, groups, g)) for g in range(groups)]
        parts = [f.statement(partial(one, *pair)) for pair in pairs]
        made = f.call("cat", parts, dim=1)
        f.drop(*parts)
    return _fitted(f, f.transpose(made, 0, 1), shape)


def _dense(f: Formula, t: Any) -> Any:
    """``t.contiguous()`` on a card, ``t`` itself on a CPU."""
    return f.contiguous(t) if f.on_cuda else t


def _group(f: Formula, t: Any, groups: int, g: int) -> Any:
    n = t.shape[0] // groups
    return f.narrow(t, 0, n * g, n)


def _fitted(f: Formula, t: Any, shape: Shape) -> Any:
    """Cropped to ``shape`` behind, in the spatial dims."""
    for d in range(2, len(shape)):
        if t.shape[d] > shape[d]:
            t = f.narrow(t, d, 0, shape[d])
    return t


def _output_padding(kernel: Shape, input: Shape, grad: Shape, stride: Shape, padding: Shape, dilation: Shape, given: Shape) -> Shape:
    """What a transposed convolution of the gradient has to add to reach the input's size."""
    reached = [(k - 1) * d - 2 * p + s * (g - 1) + 1 for k, d, p, s, g in zip(kernel, dilation, padding, stride, grad, strict=True)]
    return tuple(o if r == n else n - r for o, r, n in zip(given, reached, input, strict=True))


FORMULAS: dict[str, Any] = {"convolution": Kernel((GRAD, "input", "weight"), _double)}
