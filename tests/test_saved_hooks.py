"""Hooks of saved tensors: ``save_on_cpu``, compression, counting; inside and outside of checkpoints and functions."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Forward, Net, infers_as_torch, trains_as_torch  # noqa: E402
from test_custom_functions import Swish  # noqa: E402
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402


def halved() -> Any:
    return saved_tensors_hooks(lambda t: t.half(), lambda t: t.float())


def offloaded(self: Any, x: Any) -> Any:
    with save_on_cpu():
        return self.head(self.second(self.first(x)))


def pinned(self: Any, x: Any) -> Any:
    """Without a card there is nothing to pin: the tensors are copied all the same."""
    with save_on_cpu(pin_memory=True):
        return self.head(self.second(self.first(x)))


def same_again(self: Any, x: Any) -> Any:
    with saved_tensors_hooks(lambda t: t, lambda t: t):
        return self.head(self.first(x))


def compressed(self: Any, x: Any) -> Any:
    with halved():
        return self.head(self.drop(self.second(self.first(x)).sigmoid()))


def large_ones(self: Any, x: Any) -> Any:
    """By the size of each."""

    def pack(t: Any) -> Any:
        return (t.shape, t.bfloat16()) if t.numel() > 600 else t

    def unpack(packed: Any) -> Any:
        return packed[1].float().view(packed[0]) if isinstance(packed, tuple) else packed

    y = self.first(x)
    with saved_tensors_hooks(pack, unpack):
        y = self.second(y).tanh()
    return self.head(y)


def quantized(self: Any, x: Any) -> Any:
    """Several tensors, and work in between."""

    def pack(t: Any) -> Any:
        low, high = t.amin(), t.amax()
        return ((t - low) / (high - low) * 255).to(torch.uint8), low, high

    def unpack(packed: Any) -> Any:
        t, low, high = packed
        return t.float() / 255 * (high - low) + low

    y = self.first(x)
    with saved_tensors_hooks(pack, unpack):
        y = torch.nn.functional.gelu(y * y.sigmoid())
    return self.head(y)


def twice(self: Any, x: Any) -> Any:
    """The innermost sees what is saved."""
    with halved():
        y = self.second(self.first(x))
        with saved_tensors_hooks(lambda t: t.double(), lambda t: t.float()):
            y = self.second(y.tanh())
        return self.head(y)


def of_a_function(self: Any, x: Any) -> Any:
    with halved():
        return self.head(Swish.apply(self.first(x)))


def halved_around_checkpoint(self: Any, x: Any) -> Any:
    """Its argument is what they see."""
    with halved():
        return self.head(checkpoint(self.second, self.first(x), use_reentrant=False))


def around_checkpoint(self: Any, x: Any) -> Any:
    """What a checkpoint keeps is kept as ever."""
    with save_on_cpu():
        return self.head(checkpoint(self.second, self.first(x), use_reentrant=False))


def compressed_in_checkpoint(self: Any, x: Any) -> Any:
    def body(a: Any) -> Any:
        b = self.second(a.exp())
        with halved():
            return self.second(b.tanh())

    return self.head(checkpoint(body, self.first(x), use_reentrant=False))


def compressed_in_reentrant(self: Any, x: Any) -> Any:
    def body(a: Any) -> Any:
        with halved():
            return self.second(a.tanh())

    return self.head(checkpoint(body, self.first(x), use_reentrant=True))


def in_autocast(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16), saved_tensors_hooks(lambda t: (t.dtype, t.double()), lambda p: p[1].to(p[0])):
        return self.head(self.second(self.first(x)).relu()).float()


PLAYED = (
    offloaded, pinned, same_again, compressed, large_ones, quantized, twice, of_a_function, around_checkpoint, halved_around_checkpoint,
    compressed_in_checkpoint, compressed_in_reentrant, in_autocast,
)  # fmt: skip
QUICK = (offloaded, quantized, compressed_in_checkpoint)
each = pytest.mark.parametrize(
    "forward", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in PLAYED], ids=lambda f: f.__name__
)


@each
def test_a_training_step_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    trains_as_torch(forward, cpu)


@each
def test_an_inference_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    infers_as_torch(forward, cpu)


@each
def test_a_graph_with_them_reads_back_equal(forward: Forward, cpu: Cpu) -> None:
    graph = from_torch(Net(forward), SHAPE)
    assert memest.loads(memest.dumps(graph)) == graph


def test_where_torch_never_lets_go_is_told(cpu: Cpu) -> None:
    def in_checkpoint(self: Any, x: Any) -> Any:
        def body(a: Any) -> Any:
            with save_on_cpu():
                b = self.second(a.exp())
            return self.second(b.tanh())

        return self.head(checkpoint(body, self.first(x), use_reentrant=False))

    def aside(self: Any, x: Any) -> Any:
        with save_on_cpu():
            y = self.first(x)
            self.second(y).tanh()
        return self.head(y)

    for forward in (in_checkpoint, aside):
        with pytest.raises(UnsupportedError, match=r"keep the output of \w+ \(.*\) itself, where its backward never runs"):
            memest.estimate(from_torch(Net(forward), SHAPE), input_shape=SHAPE, loss="mse_loss", machine=cpu)


def test_hooks_that_give_back_another_tensor_are_refused() -> None:
    def forward(self: Any, x: Any) -> Any:
        with saved_tensors_hooks(lambda t: t.half(), lambda t: t):
            return self.head(self.first(x))

    with pytest.raises(UnsupportedError, match=r"test_saved_hooks.py:\d+.*gives float16 of .* where float32 of .* was packed"):
        from_torch(Net(forward), SHAPE, mode="train")


def test_hooks_live_as_long_as_what_is_known_of_them() -> None:
    """Others could come to lie where they lay, and would be taken for them."""
    seen: list[Any] = []

    def forward(self: Any, x: Any) -> Any:
        hooks = halved()
        with hooks:
            y = self.first(x)
        pack = weakref.ref(hooks.pack_hook)
        del hooks
        seen.append(pack() is not None)
        return self.head(y)

    from_torch(Net(forward), SHAPE, mode="train")
    assert all(seen) and seen
