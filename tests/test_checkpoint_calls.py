"""The ways ``torch.utils.checkpoint`` is called inside a forward."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import MemestError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Forward, Net, infers_as_torch, trains_as_torch  # noqa: E402
from test_custom_functions import Swish  # noqa: E402
from torch.utils.checkpoint import checkpoint, checkpoint_sequential  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402


def reentrant(self: Any, x: Any) -> Any:
    return self.head(checkpoint(self.second, self.first(x), use_reentrant=True))


def reentrant_twice(self: Any, x: Any) -> Any:
    y = checkpoint(self.second, self.first(x), use_reentrant=True)
    return self.head(checkpoint(self.second, y, use_reentrant=True))


def reentrant_first(self: Any, x: Any) -> Any:
    """No argument requires a gradient: the block is not trained."""
    return self.head(self.second(checkpoint(self.first, x, use_reentrant=True)))


def reentrant_function(self: Any, x: Any) -> Any:
    y = self.first(x)

    def body(a: Any, b: Any, c: float) -> Any:
        return self.drop(self.second(a)) * c + b, a.mean((2, 3), keepdim=True)

    z, m = checkpoint(body, y, y * 2, 3.0, use_reentrant=True)
    return self.head(z * m)


def reentrant_handing_on(self: Any, x: Any) -> Any:
    """Arguments that come back as they are, as blocks do that hand positions and an index on; nobody reads the last ones."""
    y = self.first(x)
    positions, index = y * 2, torch.zeros(1, dtype=torch.int64, device=y.device)
    for _ in range(2):
        y, positions, index = checkpoint(lambda a, b, i: (self.second(a) + b, b, i), y, positions, index, use_reentrant=True)
    return self.head(y)


def reentrant_of_which_one_result_is_read(self: Any, x: Any) -> Any:
    """The gradients that do not come are zeros; what a call inside it gave stays until it returns."""

    def body(a: Any) -> Any:
        return checkpoint(lambda t: (self.second(t).sigmoid(), t.tanh()), a, use_reentrant=False)

    return self.head(checkpoint(body, self.first(x), use_reentrant=True)[0])


def reentrant_handing_on_without_gradients(self: Any, x: Any) -> Any:
    y = self.first(x)
    with torch.no_grad():
        z = checkpoint(lambda a: (self.second(a), a)[1], y, use_reentrant=True)
    return self.head(y * z.clone())


def reentrant_sharing(self: Any, x: Any) -> Any:
    """A block used inside and outside: its gradients come from two runs of the engine."""
    y = self.second(self.first(x))
    return self.head(checkpoint(self.second, y, use_reentrant=True) + self.second(y))


def reentrant_with_swish(self: Any, x: Any) -> Any:
    return self.head(checkpoint(lambda a: self.second(Swish.apply(a)), self.first(x), use_reentrant=True))


def reentrant_in_autocast(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.head(checkpoint(self.second, self.first(x), use_reentrant=True)).float()


def reentrant_without_state(self: Any, x: Any) -> Any:
    return self.head(checkpoint(self.second, self.first(x), use_reentrant=True, preserve_rng_state=False))


def reentrant_sequential(self: Any, x: Any) -> Any:
    return checkpoint_sequential([self.first, self.second, self.head], 2, x, use_reentrant=True)


def reentrant_frozen(self: Any, x: Any) -> Any:
    y = self.first(x)
    with torch.no_grad():
        z = checkpoint(self.second, y, use_reentrant=True)
    return self.head(y + z)


def reentrant_behind_frozen(self: Any, x: Any) -> Any:
    """No gradient comes to the first of them: zeros are made for it."""
    y = checkpoint(self.first, self.drop(x) * self.head.weight.mean(), use_reentrant=True)

    def body(a: Any) -> Any:
        with torch.no_grad():
            b = self.second(a)
        return self.second(b)

    return self.head(checkpoint(body, y, use_reentrant=True))


def without_state(self: Any, x: Any) -> Any:
    return self.head(checkpoint(self.first, x, use_reentrant=False, preserve_rng_state=False))


def to_the_end(self: Any, x: Any) -> Any:
    with torch.utils.checkpoint.set_checkpoint_early_stop(False):
        return self.head(checkpoint(self.second, self.first(x), use_reentrant=False))


PLAYED = (
    reentrant, reentrant_twice, reentrant_first, reentrant_function, reentrant_sharing, reentrant_with_swish, reentrant_in_autocast,
    reentrant_without_state, reentrant_sequential, reentrant_frozen, reentrant_behind_frozen, without_state, to_the_end,
    reentrant_handing_on, reentrant_of_which_one_result_is_read, reentrant_handing_on_without_gradients,
)  # fmt: skip
by_name = pytest.mark.parametrize("forward", PLAYED, ids=lambda f: f.__name__)


@by_name
@pytest.mark.parametrize("recipe", [{}, {"hold_output": True, "optimizer": "sgd"}], ids=["plain", "held"])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_training_step_is_that_of_torch(forward: Forward, recipe: dict[str, Any], cpu: Cpu) -> None:
    trains_as_torch(forward, cpu, **recipe)


@by_name
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_an_inference_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    infers_as_torch(forward, cpu)


def test_a_graph_with_them_reads_back_equal_and_is_played_the_same(cpu: Cpu) -> None:
    for forward in PLAYED:
        graph = from_torch(Net(forward), SHAPE)
        again = memest.loads(memest.dumps(graph))
        assert again == graph
        first, second = (memest.estimate(g, input_shape=SHAPE, machine=cpu, loss="mse_loss") for g in (graph, again))
        assert [e.delta for e in first.events] == [e.delta for e in second.events]


# the network's own tensors, given and found -------------------------------------------------------------------------------


def _shifted(self: Any, y: Any, by: Any, **how: Any) -> Any:
    return checkpoint(lambda a, b: self.head(a + b.view(1, -1, 1, 1)), y, by, **how)


def buffer_written_before(self: Any, x: Any) -> Any:
    y = self.first(x)
    self.average.add_(1)
    return _shifted(self, y, self.average, use_reentrant=False)


def buffer_found_and_written_after(self: Any, x: Any) -> Any:
    self.average.add_(1)
    y = checkpoint(lambda a: self.head(a + self.average.view(1, -1, 1, 1)), self.first(x), use_reentrant=False)
    self.average.add_(1)
    return y


def buffer_replaced(self: Any, x: Any) -> Any:
    y = _shifted(self, self.first(x), self.average, use_reentrant=False)
    self.average = self.average + 1
    return y


def buffer_replaced_reentrant(self: Any, x: Any) -> Any:
    y = _shifted(self, self.first(x), self.average, use_reentrant=True)
    self.average = self.average + 1
    return y


def weight_given(self: Any, x: Any) -> Any:
    return checkpoint(lambda a, w: torch.nn.functional.conv2d(a, w).tanh(), self.first(x), self.head.weight, use_reentrant=True)


OWN = (buffer_written_before, buffer_found_and_written_after, buffer_replaced, buffer_replaced_reentrant, weight_given)


@pytest.mark.parametrize("forward", OWN, ids=lambda f: f.__name__)
def test_the_network_s_own_tensors_in_a_checkpoint_are_torchs(forward: Any, cpu: Cpu) -> None:
    trains_as_torch(forward, cpu)


def test_a_buffer_that_was_given_is_watched(cpu: Cpu) -> None:
    """torch saves what is given plainly, and looks who writes to it."""

    def given(self: Any, x: Any) -> Any:
        y = _shifted(self, self.first(x), self.average, use_reentrant=False)
        self.average.add_(1)
        return y

    def found(self: Any, x: Any) -> Any:
        y = checkpoint(lambda a: self.head(a + self.average.view(1, -1, 1, 1)), self.first(x), use_reentrant=False)
        self.average = self.average + 1
        return y

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        Net(given)(torch.rand(SHAPE)).sum().backward()
    for forward, error in ((given, "its input 'average' is changed in place"), (found, "'average': that is replaced by another tensor")):
        with pytest.raises(MemestError, match=error):
            memest.estimate(from_torch(Net(forward), SHAPE), input_shape=SHAPE, loss="mse_loss", machine=cpu)
