"""What random networks with contexts are made of: custom functions, blocks with hooks, hooks of saved tensors, writing in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

CHANNELS = 8


class Swish(torch.autograd.Function):
    """Keeps its input and computes the gate again."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """``x * sigmoid(x)``."""
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Its derivative."""
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return grad * (s * (1 + x * (1 - s)))


class Masked(torch.autograd.Function):
    """A relu that keeps a mask on its context."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """``relu(x)``."""
        ctx.mask = x > 0
        return x * ctx.mask

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Where it was above zero."""
        return grad * ctx.mask


class Straight(torch.autograd.Function):
    """Straight through."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """``sign(x)``."""
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """The gradient itself."""
        return grad


class Scaled(torch.autograd.Function):
    """In the newer style, with its output kept."""

    @staticmethod
    def forward(x: Any, by: float) -> Any:
        """``tanh(by * x)``."""
        return torch.tanh(x * by)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keeps the output and the factor."""
        ctx.by = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Its derivative."""
        (y,) = ctx.saved_tensors
        return grad * (1 - y * y) * ctx.by, None


class Optional(torch.autograd.Function):
    """Two outputs, whose gradients come or do not."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """``2 * x`` and the means of ``x``."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x * 2, x.mean((2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, first: Any, second: Any) -> Any:
        """Of those that came."""
        (x,) = ctx.saved_tensors
        if second is None:
            return None if first is None else first * 2
        even = second.expand_as(x) / (x.shape[2] * x.shape[3])
        return even if first is None else even + first * 2


def _both(x: Any) -> Any:
    first, second = Optional.apply(x)
    return first * second


class ByHand(torch.autograd.Function):
    """A checkpoint written by hand: ``how`` takes the gradient by a backward into leaves, or by ``torch.autograd.grad``."""

    @staticmethod
    def forward(ctx: Any, function: Any, how: bool, x: Any) -> Any:
        """``function(x)``, of which nothing is kept."""
        ctx.function, ctx.how = function, how
        ctx.save_for_backward(x)
        with torch.no_grad():
            return function(x).clone()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Runs it again, with gradients."""
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.function(x)
        if ctx.how:
            torch.autograd.backward(y, grad)
            return None, None, x.grad
        return None, None, torch.autograd.grad(y, x, grad)[0]


class Reversible(torch.autograd.Function):
    """Additive coupling, whose input is made again from its output."""

    @staticmethod
    def forward(ctx: Any, function: Any, x: Any) -> Any:
        """The first half with what is made of the second."""
        a, b = torch.chunk(x, 2, 1)
        y = torch.cat([a + function(b), b], 1)
        ctx.function, ctx.y = function, y.detach()
        return y

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Undoes it."""
        b = torch.chunk(ctx.y, 2, 1)[1]
        del ctx.y
        of_a, of_b = torch.chunk(grad, 2, 1)
        b = b.detach().requires_grad_()
        with torch.enable_grad():
            made = ctx.function(b)
        made.backward(of_a)
        return None, torch.cat([of_a, of_b + b.grad], 1)


class Written(torch.autograd.Function):
    """Writes into its argument."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """``x.clamp_(min=0)``."""
        ctx.mark_dirty(x)
        x.clamp_(min=0)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Where it stayed above zero."""
        (y,) = ctx.saved_tensors
        return grad * (y > 0)


class Largest(torch.autograd.Function):
    """The largest of its channels, and which these are."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """``x.max(1, keepdim=True)``."""
        value, index = x.max(1, keepdim=True)
        ctx.mark_non_differentiable(index)
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return value, index

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Any, _: Any) -> Any:
        """To where they were."""
        (index,) = ctx.saved_tensors
        return torch.zeros(ctx.shape, dtype=grad.dtype, device=grad.device).scatter_(1, index, grad)


class Product(torch.autograd.Function):
    """Of two tensors, by those gradients that are asked for."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        """``a * b``."""
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Only what is needed."""
        a, b = ctx.saved_tensors
        return grad * b if ctx.needs_input_grad[0] else None, grad * a if ctx.needs_input_grad[1] else None


FUNCTIONS = (
    Swish.apply, Masked.apply, Straight.apply, lambda x: Scaled.apply(x, 0.5), _both, lambda x: Optional.apply(x)[0],
    lambda x: x * Optional.apply(x)[1], lambda x: Written.apply(x * 2), lambda x: x * Largest.apply(x)[0], lambda x: Product.apply(x, x),
    lambda x: Product.apply(x, x.detach()),
)  # fmt: skip


def _shrunk(t: Any) -> Any:
    """Large ones in half the bytes."""
    return (t.dtype, t.to(torch.bfloat16)) if t.is_floating_point() and t.numel() > 500 else t


def _grown(packed: Any) -> Any:
    return packed[1].to(packed[0]) if isinstance(packed, tuple) else packed


def _written(x: Any) -> Any:
    y = x.clone()
    y[:, ::2] = y[:, 1::2].sigmoid()
    return y


def _without(x: Any) -> Any:
    y = x.clone()
    with torch.no_grad():
        y.add_(1)
    return y * x


def _added(x: Any) -> Any:
    y = x * 0.5
    y += x.detach()
    return y.relu_()


def _parts(x: Any) -> Any:
    y = torch.zeros_like(x)
    for i in range(0, 8, 4):
        y[:, i : i + 4] = x[:, i : i + 4].tanh()
    return y


IN_PLACE = (
    lambda x: x.clone().mul_(2), lambda x: (x + 1).relu_(), _written, _without, _added, _parts, lambda x: (x * 2).addcmul_(x, x, value=0.5),
)  # fmt: skip
ATEN = torch.ops.aten
SELECTED = (
    (ATEN.convolution.default,), (ATEN.native_batch_norm.default, ATEN.silu.default), (ATEN.convolution.default, ATEN.gelu.default),
    (ATEN.sigmoid.default, ATEN.avg_pool2d.default, ATEN.native_group_norm.default), (ATEN.mm.default,),
)  # fmt: skip
PACKINGS = (
    torch.autograd.graph.save_on_cpu,
    lambda: torch.autograd.graph.save_on_cpu(pin_memory=True),
    lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: (t.dtype, t.double()), lambda p: p[1].to(p[0])),
    lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t.half() if t.dtype == torch.float32 else t, lambda p: p.float()),
    lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda p: p),
    lambda: torch.autograd.graph.saved_tensors_hooks(_shrunk, _grown),
)


def look(gradient: Any) -> None:
    gradient.abs().sum()


def block(number: int) -> nn.Module:
    kind = number % 6 if number < 12 else 6 + number % 3
    conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=2 if kind == 3 else 1, bias=kind != 1)
    if kind == 0:
        return nn.Sequential(conv, nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True))
    if kind == 1:
        return nn.Sequential(conv, nn.GroupNorm(2, CHANNELS), nn.SiLU())
    if kind == 2:
        return nn.Sequential(conv, nn.Dropout(0.2))
    if kind == 3:
        return nn.Sequential(conv, nn.LeakyReLU(0.1))
    if kind == 4:
        return nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.GELU())
    if kind == 6:
        return nn.Sequential(nn.utils.parametrizations.weight_norm(conv), nn.Mish())
    if kind == 7:
        return nn.Sequential(nn.utils.parametrizations.spectral_norm(conv), nn.Softplus())
    if kind == 8:
        return nn.DataParallel(nn.Sequential(conv, nn.InstanceNorm2d(CHANNELS, affine=True), nn.Hardswish(inplace=True)), device_ids=[])
    return nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.Sigmoid())


def watched(number: int) -> nn.Module:
    """A block with a hook of its module, or on its parameters."""
    made = block(number // 4)
    if number % 4 == 0:
        made.register_full_backward_hook(_look_at_all)
    elif number % 4 == 1:
        made.register_full_backward_hook(lambda _, given, came: tuple(None if g is None else g * 0.5 for g in given))
    elif number % 4 == 2:
        made.register_full_backward_pre_hook(lambda _, came: tuple(g * 2 for g in came))
    else:
        for p in made.parameters():
            p.register_hook(lambda g: g.clamp(-1, 1))
    return made


def _look_at_all(_: Any, given: Any, came: Any) -> None:
    for gradient in (*given, *came):
        if gradient is not None:
            look(gradient)
