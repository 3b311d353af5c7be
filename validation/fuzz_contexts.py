"""Random networks whose own code puts contexts around its calls, each measured and predicted; a failing one is shrunk and printed.

A forward is a tree of statements on one value of eight channels: blocks and custom functions, and around them ``no_grad``,
``inference_mode``, ``set_grad_enabled``, ``autocast`` on and off, checkpoints of both kinds in one another, selective ones, those written
by hand and reversible blocks, gradients taken inside, hooks of gradients and of saved tensors, detached and residual branches, writing in
place, parametrized weights, modules that are called twice. The streams must be equal, event by event; what torch itself refuses is
skipped, what memest refuses is counted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential, create_selective_checkpoint_contexts, set_checkpoint_early_stop

from memest.errors import MemestError
from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.sources.importers.torch.network import from_torch
from validation.context_parts import CHANNELS, FUNCTIONS, IN_PLACE, PACKINGS, SELECTED, ByHand, Reversible, block, look, watched
from validation.protocol import Measurement, inputs_for, measure_inference, measure_training
from validation.shrinking import Statement, inner
from validation.streams import Difference, first_difference, of_the_step

REFUSALS = (RuntimeError, AttributeError, TypeError)
"""What torch refuses with, or what a hook that is called with None raises."""
OPTIMIZERS = ("sgd", "sgd:momentum=0.9", "adam", "adamw:foreach=true")


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
        self.blocks = nn.ModuleDict({str(n): block(n) for n in sorted(set(_numbers(program, "block")))})
        self.watched = nn.ModuleDict({str(n): watched(n) for n in sorted(set(_numbers(program, "watched")))})

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
            y.register_hook((lambda g: g * 2) if changes else (lambda g: look(g)))
        return y

    def _in_place(self, x: Any, how: int) -> Any:
        return IN_PLACE[how](x)

    def _enabled(self, x: Any, inner: Statement) -> Any:
        with torch.no_grad():
            y = x * 2
            with torch.enable_grad():
                z = self.play(inner, x)
        return z * y

    def _late(self, x: Any, inner: Statement) -> Any:
        with set_checkpoint_early_stop(False):
            return self.play(inner, x)

    def _several(self, x: Any, reentrant: bool, inner: Statement) -> Any:
        def both(a: Any, scale: float, b: Any) -> Any:
            return self.play(inner, a) * scale, b.sigmoid()

        first, second = checkpoint(both, x, 0.5, x.detach() if reentrant else x + 1, use_reentrant=reentrant)
        return first * second

    def _sequential(self, x: Any, reentrant: bool, *parts: Statement) -> Any:
        return checkpoint_sequential([partial(self.play, part) for part in parts], 2, x, use_reentrant=reentrant)

    def _twice(self, x: Any, inner: Statement) -> Any:
        return self.play(inner, self.play(inner, x))


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
    kinds = [(4, "block"), (2, "function"), (1, "watched"), (1, "in_place")]
    if depth:
        kinds += [(1, "residual"), (1, "detached"), (1, "no_grad"), (1, "frozen"), (1, "inference"), (1, "switched"), (2, "autocast")]
        kinds += [(1, "off"), (1, "hook"), (1, "twice"), (4, "checkpoint"), (1, "packed")]
        kinds += [(2, "selective"), (2, "by_hand"), (1, "slope"), (1, "reversible"), (1, "enabled"), (1, "late")]
        kinds += [(2, "several"), (1, "sequential")]
    weights, names = zip(*kinds, strict=True)
    kind = rng.choices(names, weights)[0]
    if kind == "block":
        return kind, rng.randrange(15)
    if kind == "watched":
        return kind, rng.randrange(24)
    if kind == "function":
        return kind, rng.randrange(len(FUNCTIONS))
    if kind == "reversible":
        return kind, rng.randint(1, 3)
    if kind == "in_place":
        return kind, rng.randrange(len(IN_PLACE))
    if kind == "sequential":
        return kind, rng.random() < 0.5, *(statements(rng, depth - 1) for _ in range(3))
    inner = statements(rng, depth - 1)
    if kind == "selective":
        return kind, rng.randrange(len(SELECTED)), rng.random() < 0.5, inner
    if kind == "packed":
        return kind, rng.randrange(len(PACKINGS)), inner
    flags = {"switched": 1, "autocast": 1, "checkpoint": 3, "hook": 1, "by_hand": 1, "several": 1}.get(kind, 0)
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
