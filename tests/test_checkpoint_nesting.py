"""Checkpoints inside checkpoints, of both kinds, and what they are given without using it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

import memest
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Forward, Net, infers_as_torch, trains_as_torch  # noqa: E402
from test_custom_functions import Swish  # noqa: E402
from torch.utils.checkpoint import checkpoint, checkpoint_sequential  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402


def again(function: Any, *given: Any, reentrant: bool = False, **options: Any) -> Any:
    return checkpoint(function, *given, use_reentrant=reentrant, **options)


def whole(self: Any, x: Any) -> Any:
    """The inner one is all there is in the outer."""
    return self.head(again(lambda a: again(self.second, a), self.first(x)))


def begins(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: self.second(again(self.second, a)) * 2, self.first(x)))


def ends(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: again(self.second, self.second(a).sigmoid()), self.first(x)))


def amid(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: self.second(again(self.second, a.exp()).tanh()), self.first(x)))


def two_inside(self: Any, x: Any) -> Any:
    def body(a: Any) -> Any:
        b = again(self.second, a.exp())
        return again(lambda c, d: self.second(c) * d, b.tanh(), a)

    return self.head(again(body, self.first(x)))


def three_deep(self: Any, x: Any) -> Any:
    def inner(a: Any) -> Any:
        return again(lambda b: self.second(b.exp()).tanh(), self.second(a))

    return self.head(again(lambda a: again(inner, a.sigmoid()) * 2, self.first(x)))


def captures(self: Any, x: Any) -> Any:
    """The inner one keeps a value of the outer one's that is no argument."""

    def body(a: Any) -> Any:
        b = a.exp()
        return again(lambda c: self.second(c) * b, a.tanh()).sigmoid()

    return self.head(again(body, self.first(x)))


def by_name(self: Any, x: Any) -> Any:
    def inner(a: Any, *, by: Any) -> Any:
        return self.second(a) * by

    return self.head(again(lambda a: again(inner, a.tanh(), by=a.exp()).sigmoid(), self.first(x)))


def reentrant_inside(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: self.second(again(self.second, a.exp(), reentrant=True).tanh()), self.first(x)))


def reentrant_at_the_end(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: again(self.second, a.exp(), reentrant=True), self.first(x)))


def inside_reentrant(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: self.second(again(self.second, a.exp()).tanh()), self.first(x), reentrant=True))


def reentrant_in_reentrant(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: self.second(again(self.second, a.exp(), reentrant=True).tanh()), self.first(x), reentrant=True))


def mixed(self: Any, x: Any) -> Any:
    def inner(a: Any) -> Any:
        return again(self.second, a.sin()) + again(self.second, a.cos(), reentrant=True)

    return self.head(again(lambda a: again(inner, a.exp(), reentrant=True) * a, self.first(x)))


def dropping(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: self.drop(again(lambda b: self.drop(self.second(b)), a, preserve_rng_state=False)), self.first(x)))


def to_the_end(self: Any, x: Any) -> Any:
    with torch.utils.checkpoint.set_checkpoint_early_stop(False):
        return self.head(again(lambda a: self.second(again(self.second, a.exp()).tanh()), self.first(x)))


def in_autocast(self: Any, x: Any) -> Any:
    def body(a: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            b = again(lambda c: self.second(self.second(c)), a)
            return self.second(b).float()

    return self.head(again(body, self.first(x)))


def around_autocast(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.head(again(lambda a: self.second(again(self.second, a)), self.first(x))).float()


def frozen_inside(self: Any, x: Any) -> Any:
    def body(a: Any) -> Any:
        with torch.no_grad():
            b = again(self.second, a.exp())
        return self.second(a) * b

    return self.head(again(body, self.first(x)))


def with_swish(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: Swish.apply(again(lambda b: Swish.apply(self.second(b)), a)), self.first(x)))


def sequential(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: checkpoint_sequential([self.second, self.second], 2, a, use_reentrant=False), self.first(x)))


def unused(self: Any, x: Any) -> Any:
    return self.head(again(lambda a, b: self.second(a), self.first(x), x * 2))


def unused_reentrant(self: Any, x: Any) -> Any:
    y = self.first(x)
    return self.head(again(lambda a, b: self.second(a), y, y * 2, reentrant=True))


def unused_in_a_list(self: Any, x: Any) -> Any:
    return self.head(again(lambda a, b: self.second(a), self.first(x), [x * 2, 3]))


def with_empty_contexts(self: Any, x: Any) -> Any:
    return self.head(again(self.second, self.first(x), context_fn=lambda: (nullcontext(), nullcontext())))


def unused_inside(self: Any, x: Any) -> Any:
    return self.head(again(lambda a: again(lambda b, c: self.second(b), a.exp(), a.tanh()).sin(), self.first(x)))


def masked_reentrant(self: Any, x: Any) -> Any:
    """The function captures a tensor without a gradient, which lives as long as the checkpoint can run again."""
    y = self.first(x)
    mask = (y.detach() > 0).float()
    return self.head(again(lambda a: self.second(a) * mask, y, reentrant=True))


PLAYED = (
    whole, begins, ends, amid, two_inside, three_deep, captures, by_name, reentrant_inside, reentrant_at_the_end, inside_reentrant,
    reentrant_in_reentrant, mixed, dropping, to_the_end, in_autocast, around_autocast, frozen_inside, with_swish, sequential, unused,
    unused_reentrant, unused_in_a_list, with_empty_contexts, unused_inside, masked_reentrant,
)  # fmt: skip
QUICK = (three_deep, mixed, captures, unused_inside, masked_reentrant)
each = pytest.mark.parametrize(
    "forward", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in PLAYED], ids=lambda f: f.__name__
)


@each
def test_a_training_step_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    trains_as_torch(forward, cpu)


@each
@pytest.mark.slow
def test_a_training_step_that_holds_its_output_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    trains_as_torch(forward, cpu, hold_output=True, optimizer="sgd")


@each
def test_an_inference_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    infers_as_torch(forward, cpu)


@each
def test_a_graph_with_them_reads_back_equal(forward: Forward) -> None:
    graph = from_torch(Net(forward), SHAPE)
    assert memest.loads(memest.dumps(graph)) == graph
