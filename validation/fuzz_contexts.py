"""Random networks whose own code puts contexts around its calls, each measured and predicted; a failing one is shrunk and printed.

A forward is a tree of statements on one value of eight channels: blocks and custom functions, and around them ``no_grad``,
``inference_mode``, ``set_grad_enabled``, ``autocast`` on and off, checkpoints of both kinds in one another, selective ones, those written
by hand and reversible blocks, gradients taken inside, hooks of gradients and of saved tensors, detached and residual branches, modules
that are called twice. The streams must be equal, event by event; what torch itself refuses is skipped, what memest refuses is counted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from memest.errors import MemestError
from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.sources.importers.torch.network import from_torch
from validation.protocol import Measurement, inputs_for, measure_inference, measure_training
from validation.shrinking import Statement, inner
from validation.streams import Difference, first_difference, of_the_step

CHANNELS = 8
REFUSALS = (RuntimeError, AttributeError, TypeError)
"""What torch refuses with, or what a hook that is called with None raises."""
OPTIMIZERS = ("sgd", "sgd:momentum=0.9", "adam", "adamw:foreach=true")


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


FUNCTIONS = (
    Swish.apply, Masked.apply, Straight.apply, lambda x: Scaled.apply(x, 0.5), _both, lambda x: Optional.apply(x)[0],
    lambda x: x * Optional.apply(x)[1],
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
)


@dataclass(frozen=True)
class Trial:
    """A forward with what is done to it."""

    program: Statement
    shape: tuple[int, ...]
    mode: str
    optimizer: str
    hold_output: bool


class Net(nn.Module):
    """Runs a program between a stem and a head; ``blocks`` are shared by number, ``device`` is what autocast is told."""

    def __init__(self, program: Statement, device: str = "cpu") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.program, self.device = program, device
        self.stem, self.head = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, 4, 1)
        self.blocks = nn.ModuleDict({str(n): _block(n) for n in sorted(set(_numbers(program, "block")))})
        self.watched = nn.ModuleDict({str(n): _watched(n) for n in sorted(set(_numbers(program, "watched")))})

    def forward(self, x: Any) -> Any:
        """The program."""
        return self.head(self.play(self.program, self.stem(x)).float())

    def play(self, s: Statement, x: Any) -> Any:
        """One statement."""
        return getattr(self, f"_{s[0]}")(x, *s[1:])

    def _block(self, x: Any, number: int) -> Any:
        block = self.blocks[str(number)]
        return block(x if torch.is_autocast_enabled(self.device) else x.float())

    def _watched(self, x: Any, number: int) -> Any:
        return self.watched[str(number)](x if torch.is_autocast_enabled(self.device) else x.float())

    def _seq(self, x: Any, *parts: Statement) -> Any:
        for part in parts:
            x = self.play(part, x)
        return x

    def _function(self, x: Any, number: int) -> Any:
        return FUNCTIONS[number](x)

    def _residual(self, x: Any, inner: Statement) -> Any:
        return x + self.play(inner, x)

    def _detached(self, x: Any, inner: Statement) -> Any:
        return x + self.play(inner, x.detach())

    def _no_grad(self, x: Any, inner: Statement) -> Any:
        with torch.no_grad():
            y = self.play(inner, x)
        return x + y

    def _frozen(self, x: Any, inner: Statement) -> Any:
        with torch.no_grad():
            return self.play(inner, x)

    def _inference(self, x: Any, inner: Statement) -> Any:
        with torch.inference_mode():
            y = self.play(inner, x)
        return x * y.clone()

    def _switched(self, x: Any, on: bool, inner: Statement) -> Any:
        with torch.set_grad_enabled(on and torch.is_grad_enabled()):
            return self.play(inner, x)

    def _autocast(self, x: Any, cache: bool, inner: Statement) -> Any:
        with torch.autocast(self.device, dtype=torch.bfloat16, cache_enabled=cache):
            return self.play(inner, x)

    def _off(self, x: Any, inner: Statement) -> Any:
        with torch.autocast(self.device, enabled=False):
            return self.play(inner, x.float())

    def _checkpoint(self, x: Any, reentrant: bool, preserve: bool, besides: bool, inner: Statement) -> Any:
        given = (x, x * 2) if besides else (x,)
        return checkpoint(lambda a, *_: self.play(inner, a), *given, use_reentrant=reentrant, preserve_rng_state=preserve)

    def _selective(self, x: Any, kept: int, preserve: bool, inner: Statement) -> Any:
        around = partial(create_selective_checkpoint_contexts, list(SELECTED[kept]))
        return checkpoint(lambda a: self.play(inner, a), x, use_reentrant=False, preserve_rng_state=preserve, context_fn=around)

    def _by_hand(self, x: Any, how: bool, inner: Statement) -> Any:
        return ByHand.apply(lambda a: self.play(inner, a), how, x)

    def _reversible(self, x: Any, times: int) -> Any:
        for _ in range(times):
            x = Reversible.apply(lambda t: torch.tanh(t) * t, x)
        return x

    def _slope(self, x: Any, inner: Statement) -> Any:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            y = self.play(inner, z)
            slope = torch.autograd.grad(y.sum(), z, allow_unused=True)[0] if y.requires_grad else None
        return x if slope is None else x * slope

    def _packed(self, x: Any, how: int, inner: Statement) -> Any:
        with PACKINGS[how]():
            return self.play(inner, x)

    def _hook(self, x: Any, changes: bool, inner: Statement) -> Any:
        y = self.play(inner, x)
        if y.requires_grad and y is not x:
            y.register_hook((lambda g: g * 2) if changes else (lambda g: _look(g)))
        return y

    def _twice(self, x: Any, inner: Statement) -> Any:
        return self.play(inner, self.play(inner, x))


def _look(gradient: Any) -> None:
    gradient.abs().sum()


def _block(number: int) -> nn.Module:
    kind = number % 6
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
    return nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.Sigmoid())


def _watched(number: int) -> nn.Module:
    """A block with a hook of its module, or on its parameters."""
    block = _block(number // 4)
    if number % 4 == 0:
        block.register_full_backward_hook(_look_at_all)
    elif number % 4 == 1:
        block.register_full_backward_hook(lambda _, given, came: tuple(None if g is None else g * 0.5 for g in given))
    elif number % 4 == 2:
        block.register_full_backward_pre_hook(lambda _, came: tuple(g * 2 for g in came))
    else:
        for p in block.parameters():
            p.register_hook(lambda g: g.clamp(-1, 1))
    return block


def _look_at_all(_: Any, given: Any, came: Any) -> None:
    for gradient in (*given, *came):
        if gradient is not None:
            _look(gradient)


def _numbers(s: Statement, kind: str) -> Iterator[int]:
    if s[0] == kind:
        yield s[1]
    for part in inner(s):
        yield from _numbers(part, kind)


# growing ------------------------------------------------------------------------------------------------------------------


def grow(rng: random.Random) -> Trial:
    """A random forward."""
    size = rng.randint(6, 17)
    return Trial(
        program=statements(rng, 3),
        shape=(rng.choice((1, 2, 3)), 3, size, rng.randint(6, 17)),
        mode=rng.choice(("train", "train", "train", "infer")),
        optimizer=rng.choice(OPTIMIZERS),
        hold_output=rng.random() < 0.2,
    )


def statements(rng: random.Random, depth: int) -> Statement:
    """Some in a row, with others in them down to a ``depth``."""
    return ("seq", *(_statement(rng, depth) for _ in range(rng.randint(1, 3))))


def _statement(rng: random.Random, depth: int) -> Statement:
    kinds = [(4, "block"), (2, "function"), (1, "watched")]
    if depth:
        kinds += [(1, "residual"), (1, "detached"), (1, "no_grad"), (1, "frozen"), (1, "inference"), (1, "switched"), (2, "autocast")]
        kinds += [(1, "off"), (1, "hook"), (1, "twice"), (4, "checkpoint"), (1, "packed")]
        kinds += [(2, "selective"), (2, "by_hand"), (1, "slope"), (1, "reversible")]
    weights, names = zip(*kinds, strict=True)
    kind = rng.choices(names, weights)[0]
    if kind == "block":
        return kind, rng.randint(0, 11)
    if kind == "watched":
        return kind, rng.randrange(24)
    if kind == "function":
        return kind, rng.randrange(len(FUNCTIONS))
    if kind == "reversible":
        return kind, rng.randint(1, 3)
    inner = statements(rng, depth - 1)
    if kind == "selective":
        return kind, rng.randrange(len(SELECTED)), rng.random() < 0.5, inner
    if kind == "packed":
        return kind, rng.randrange(len(PACKINGS)), inner
    flags = {"switched": 1, "autocast": 1, "checkpoint": 3, "hook": 1, "by_hand": 1}.get(kind, 0)
    return (kind, *(rng.random() < 0.5 for _ in range(flags)), inner)


# running ------------------------------------------------------------------------------------------------------------------


def run(trial: Trial, cpu: Cpu) -> Difference | str | None:
    """None where the streams are equal; "torch" or "memest" where one of them refuses."""
    try:
        if trial.mode == "train":
            recipe: dict[str, Any] = {"optimizer": trial.optimizer, "loss": "mse_loss", "hold_output": trial.hold_output}
            measured = measure_training(Net(trial.program), inputs_for([trial.shape]), **recipe)
        else:
            recipe = {"mode": "infer"}
            measured = measure_inference(Net(trial.program), inputs_for([trial.shape]))
    except REFUSALS:
        return "torch"
    try:
        predicted = estimate(from_torch(Net(trial.program), trial.shape), input_shape=trial.shape, machine=cpu, **recipe)
    except MemestError as e:  # the engine may never come to a backward that torch would refuse
        return f"memest: {e}"
    return compared(predicted, measured)


def compared(predicted: Any, measured: Measurement) -> Difference | None:
    """The first difference, releases of residents left out of both."""
    return first_difference(*of_the_step(predicted, measured.events))
