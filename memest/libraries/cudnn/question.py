"""What cuDNN is asked: one convolution or one of its gradients, as torch describes it.

Source: PyTorch ``aten/src/ATen/native/Convolution.cpp``, ``cudnn/ConvShared.cpp`` and ``cudnn/Conv_v8.cpp``, 2.11 to 2.14.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Literal

from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import Shape, Spec, is_channels_last_strides

Direction = Literal["fwd", "bwd_data", "bwd_filter"]
DIRECTIONS: tuple[Direction, ...] = ("fwd", "bwd_data", "bwd_filter")
DTYPES = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """One question: ``fwd`` makes y of x and w, ``bwd_data`` makes x of y and w, ``bwd_filter`` makes w of x and y.

    x and y are (N, channels, 2 or 3 sizes), w is (y's channels, x's channels / groups, kernel). ``channels_last`` is one flag for all
    three: torch brings them into the one format it suggests. ``tf32`` is ``torch.backends.cudnn.allow_tf32`` and counts for float32
    alone. ``alignment`` (bytes, at most 32) is what the addresses of x, w and y are multiples of: 32 for what torch allocates, less for
    a part of a larger tensor that lies contiguous as it is. ``without`` are engines that torch does not take
    (:mod:`memest.libraries.cudnn.errata`).
    """

    direction: Direction
    x: Shape
    w: Shape
    y: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    dtype: str = "float32"
    channels_last: bool = False
    tf32: bool = True
    deterministic: bool = False
    alignment: tuple[int, int, int] = (32, 32, 32)
    without: tuple[int, ...] = ()

    @property
    def groups(self) -> int:
        """How many groups the shapes imply."""
        return self.x[1] // self.w[1]

    @property
    def nbytes(self) -> tuple[int, int, int]:
        """Bytes of x, w and y."""
        size = ITEMSIZE[self.dtype]
        return prod(self.x) * size, prod(self.w) * size, prod(self.y) * size

    def strides(self, shape: Shape) -> Shape:
        """Strides as cuDNN is told them: a dim of size 1 has the step of its neighbour inside (torch's ``fixSizeOneDimStride``)."""
        inner_first = [*range(len(shape) - 1, 1, -1), 1, 0]
        if self.channels_last:
            inner_first = [1, *range(len(shape) - 1, 1, -1), 0]
        strides, step = [0] * len(shape), 1
        for d in inner_first:
            strides[d] = step
            step *= shape[d]
        return tuple(strides)

    def at_batch(self, batch: int) -> Convolution:
        """The same for another batch."""
        return replace(self, x=(batch, *self.x[1:]), y=(batch, *self.y[1:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """What one layer asks, in torch's order: in forward, then in backward for the gradient of its input and of its weight."""

    forward: Convolution
    grad_input: Convolution
    grad_weight: Convolution

    def __iter__(self) -> Iterator[Convolution]:
        return iter((self.forward, self.grad_input, self.grad_weight))


def suggests_channels_last(input: Spec, weight: Spec) -> bool:
    """torch's ``cudnn_conv_suggest_memory_format``: channels_last where input or weight has such strides, never in float64. Asked for
    each direction anew: for the input's gradient of the output's gradient and weight, for the weight's of input and output's gradient."""
    if "float64" in (input.dtype, weight.dtype):
        return False
    ranks = len(weight.shape) in (4, 5)
    return ranks and any(is_channels_last_strides(t.shape, t.strides) for t in (input, weight))


def torch_calls(
    input: Sequence[int],
    weight: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool = False,
    output_padding: Sequence[int] = (),
    groups: int = 1,
    dtype: str = "float32",
    channels_last: bool = False,
    tf32: bool = True,
    deterministic: bool = False,
) -> Calls:
    """The questions behind ``aten::convolution`` and its backward where torch's backend is cuDNN.

    ``input`` and ``weight`` are the sizes torch has them in (a transposed weight is in, out / groups, kernel), the tuples one entry a
    spatial dim. What torch does before it asks, and allocates for:

    - input and weight are made contiguous in the format :func:`suggests_channels_last` says, a copy where they are not; in backward so is
      the output's gradient, in the input's format; a float64 tensor is made contiguous always. The bias is added in place.
    - conv1d is a conv2d of height 1 (views, no copy): never channels_last, for such strides are ambiguous.
    - A transposed convolution's forward is a plain one's gradient of the input (its output is x), its input's gradient is a plain
      forward; ``output_padding`` only makes x larger.
    - Each answer is kept for a shape, a thread and an alignment: backward runs in another thread, and asks again.
    - An operand of no elements asks nothing.
    """
    n = len(input) - 2
    inner = tuple(input[2:])
    kernel, steps, pads, gaps = tuple(weight[2:]), tuple(stride), tuple(padding), tuple(dilation)
    spans = tuple(g * (k - 1) + 1 for g, k in zip(gaps, kernel, strict=True))
    if transposed:
        more = tuple(output_padding) or (0,) * n
        outer = tuple((i - 1) * s - 2 * p + k + m for i, s, p, k, m in zip(inner, steps, pads, spans, more, strict=True))
        x, y = (input[0], weight[1] * groups, *outer), (input[0], input[1], *inner)
    else:
        outer = tuple((i + 2 * p - k) // s + 1 for i, s, p, k in zip(inner, steps, pads, spans, strict=True))
        x, y = (input[0], input[1], *inner), (input[0], weight[0], *outer)
    w = (weight[0], weight[1], *kernel)
    if n == 1:
        x, w, y = (*x[:2], 1, x[2]), (*w[:2], 1, w[2]), (*y[:2], 1, y[2])
        steps, pads, gaps = (1, *steps), (0, *pads), (1, *gaps)
    ask = partial(
        Convolution,
        x=x,
        w=w,
        y=y,
        stride=steps,
        padding=pads,
        dilation=gaps,
        dtype=dtype,
        channels_last=channels_last and n > 1 and dtype != "float64",
        tf32=tf32 or dtype != "float32",
        deterministic=deterministic,
    )
    plain, data = ask(direction="fwd"), ask(direction="bwd_data")
    return Calls(
        forward=data if transposed else plain,
        grad_input=plain if transposed else data,
        grad_weight=ask(direction="bwd_filter"),
    )
