"""Selective checkpoints (``context_fn``): the results that a policy keeps are taken when the checkpoint runs again, event by event."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

import memest
from memest.errors import MemestError, UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Forward, Net, infers_as_torch, trains_as_torch  # noqa: E402
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts, set_checkpoint_early_stop  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_training  # noqa: E402

aten = torch.ops.aten
CONV, NORM, PRODUCT = aten.convolution.default, aten.native_batch_norm.default, aten.addmm.default


def selective(function: Any, x: Any, kept: Any, **keywords: Any) -> Any:
    around = partial(create_selective_checkpoint_contexts, kept)
    return checkpoint(function, x, use_reentrant=False, context_fn=around, **keywords)


def plain(self: Any) -> Any:
    """The second block, not in place."""
    return lambda t: torch.relu(self.second[1](self.second[0](t)))


def _keeping(*operators: Any, **keywords: Any) -> Forward:
    return lambda self, x: self.head(selective(plain(self), self.first(x), list(operators), **keywords))


def by_policy(self: Any, x: Any) -> Any:
    said = {CONV: CheckpointPolicy.PREFER_SAVE, aten.relu.default: CheckpointPolicy.MUST_RECOMPUTE}
    return self.head(selective(plain(self), self.first(x), lambda ctx, op, *args, **kw: said.get(op, CheckpointPolicy.PREFER_RECOMPUTE)))


def every_second(self: Any, x: Any) -> Any:
    def contexts() -> Any:
        seen = [0]

        def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
            seen[0] += op is CONV and args[0].shape[1] == 8
            return CheckpointPolicy.MUST_SAVE if op is CONV and seen[0] % 2 else CheckpointPolicy.PREFER_RECOMPUTE

        return create_selective_checkpoint_contexts(policy)

    function = plain(self)
    return self.head(checkpoint(lambda t: function(function(t)), self.first(x), use_reentrant=False, context_fn=contexts))


def without_early_stop(self: Any, x: Any) -> Any:
    with set_checkpoint_early_stop(False):
        return _keeping(CONV)(self, x)


def mutable(self: Any, x: Any) -> Any:
    around = partial(create_selective_checkpoint_contexts, [NORM], allow_cache_entry_mutation=True)
    return self.head(checkpoint(self.second, self.first(x), use_reentrant=False, context_fn=around))


def inside_another(self: Any, x: Any) -> Any:
    return self.head(checkpoint(lambda t: torch.sigmoid(selective(plain(self), t, [CONV])), self.first(x), use_reentrant=False))


def with_another_inside(self: Any, x: Any) -> Any:
    """Results inside of it are kept, too; what runs again for the inner one alone finds none."""

    def function(t: Any) -> Any:
        for reentrant in (False, True):
            t = torch.sigmoid(checkpoint(plain(self), t, use_reentrant=reentrant))
        return t

    return self.head(selective(function, self.first(x), [CONV, aten.sigmoid.default]))


def random_between(self: Any, x: Any) -> Any:
    function = plain(self)
    return self.head(selective(lambda t: function(self.drop(function(t))), self.first(x), [CONV]))


def products(self: Any, x: Any) -> Any:
    def function(t: Any) -> Any:
        w, b = self.head.weight[:, :, 0, 0], self.head.bias
        scores = torch.softmax(t @ t.transpose(1, 2), -1)
        return torch.nn.functional.linear(torch.tanh(scores @ t), w, b)

    return selective(function, self.first(x).flatten(2).transpose(1, 2), [PRODUCT, aten.bmm.default]).transpose(1, 2)


def attention(self: Any, x: Any) -> Any:
    def function(t: Any) -> Any:
        q = t.view(t.shape[0], t.shape[1], 2, 4).transpose(1, 2)
        return torch.sigmoid(torch.nn.functional.scaled_dot_product_attention(q, q, q))

    kept = [aten._scaled_dot_product_flash_attention_for_cpu.default]
    return self.head(self.first(x)).mean() + selective(function, self.first(x).flatten(2).transpose(1, 2).contiguous(), kept)


def without_gradients(self: Any, x: Any) -> Any:
    """What a kernel gives besides its output is kept, too, though nothing is saved for backward."""

    def function(t: Any) -> Any:
        with torch.no_grad():
            frozen = plain(self)(t)
        return frozen + torch.sigmoid(t)

    return self.head(selective(function, self.first(x), [NORM, aten.sigmoid.default]))


def in_autocast(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return _keeping(CONV)(self, x).float()


PLAYED = {
    "convolutions": _keeping(CONV),
    "norms": _keeping(NORM),
    "all": _keeping(CONV, NORM, aten.relu.default),
    "nothing": _keeping(aten.mm.default),
    "no_state": _keeping(CONV, preserve_rng_state=False),
    **{f.__name__: f for f in (by_policy, every_second, without_early_stop, mutable, inside_another, random_between, products, attention)},
    **{f.__name__: f for f in (without_gradients, with_another_inside)},
    "in_autocast": in_autocast,
}
QUICK = ("convolutions", "norms", "products", "without_gradients")
by_name = pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PLAYED])


@by_name
def test_a_training_step_is_that_of_torch(name: str, cpu: Cpu) -> None:
    trains_as_torch(PLAYED[name], cpu)


@by_name
def test_an_inference_is_that_of_torch(name: str, cpu: Cpu) -> None:
    infers_as_torch(PLAYED[name], cpu)


@by_name
def test_a_file_says_the_same(name: str) -> None:
    graph = from_torch(Net(PLAYED[name]), SHAPE)
    assert memest.loads(memest.dumps(graph)) == graph


def test_what_is_kept_costs_memory_and_says_so(cpu: Cpu) -> None:
    kept, plain = (
        memest.estimate(from_torch(Net(_keeping(*ops)), SHAPE), input_shape=SHAPE, machine=cpu, optimizer="sgd", loss="mse_loss")
        for ops in ([CONV, NORM], [])
    )
    reasons = [e.storage.reason for e in kept.events]
    assert any("kept by a selective checkpoint" in r for r in reasons)
    assert sum(e.delta > 0 for e in kept.events) < sum(e.delta > 0 for e in plain.events)


def test_a_result_that_is_changed_in_place_is_refused_as_by_torch(cpu: Cpu) -> None:
    def forward(self: Any, x: Any) -> Any:
        return self.head(selective(self.second, self.first(x), [NORM]))

    with pytest.raises(RuntimeError, match="has been mutated"):
        measure_training(Net(forward), inputs_for([SHAPE]), optimizer="sgd", loss="mse_loss")
    with pytest.raises(MemestError, match=r"torch refuses the selective checkpoint around 'second.1'"):
        memest.estimate(from_torch(Net(forward), SHAPE), input_shape=SHAPE, machine=cpu, optimizer="sgd", loss="mse_loss")


def own_contexts(self: Any, x: Any) -> Any:
    def around() -> Any:
        return torch.autocast("cpu", enabled=False), torch.autocast("cpu", enabled=False)

    return self.head(checkpoint(self.second, self.first(x), use_reentrant=False, context_fn=around))


def selective_inside(self: Any, x: Any) -> Any:
    return self.head(selective(lambda t: selective(self.second, t, [NORM]), self.first(x), [CONV]))


def keeps_a_number(self: Any, x: Any) -> Any:
    return self.head(selective(lambda t: torch.sigmoid(t * 2), self.first(x), [aten.mul.Tensor]))


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (own_contexts, "a context_fn of contexts of its own"),
        (selective_inside, r"a selective checkpoint \(context_fn\) inside another"),
        (keeps_a_number, "a selective checkpoint that keeps the result of aten.mul.Tensor"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_what_is_not_modelled_is_refused_with_the_line(forward: Forward, said: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"\(test_selective_checkpoints.py:\d+\): .*{said}"):
        from_torch(Net(forward), SHAPE, mode="train")
