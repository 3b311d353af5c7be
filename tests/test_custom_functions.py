"""``torch.autograd.Function`` in a network's forward: what it keeps, and what its backward does where the engine runs it."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Forward, Net, infers_as_torch, same, trains_as_torch  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.context_parts import Swish  # noqa: E402
from validation.protocol import inputs_for, measure_training  # noqa: E402


class MaskOnly(torch.autograd.Function):
    """A relu that keeps one bool an element."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        mask = x > 0
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * ctx.saved_tensors[0]


class Binarize(torch.autograd.Function):
    """Straight through."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad


class Reverse(torch.autograd.Function):
    """Gradient reversal: a view forward, a factor backward."""

    @staticmethod
    def forward(ctx: Any, x: Any, factor: float) -> Any:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad.neg() * ctx.factor, None


class Same(torch.autograd.Function):
    """Returns its argument."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 2


class OnContext(torch.autograd.Function):
    """Keeps a tensor as an attribute, which lives as long as the node."""

    @staticmethod
    def forward(ctx: Any, x: Any, scale: Any) -> Any:
        ctx.gate = torch.sigmoid(x)
        ctx.scale = scale
        return ctx.gate * x * scale

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        for_scale = (grad * ctx.gate).sum()
        inner = grad * ctx.scale
        del grad
        return inner * ctx.gate, for_scale.reshape(1)


class Forgetful(torch.autograd.Function):
    """Lets go of what it kept while backward runs."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.first, ctx.second = x * 2, x * 3
        return x + 1

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        a = grad * ctx.first
        del ctx.first
        b = a * ctx.second
        ctx.second = None
        return b + 1


class Two(torch.autograd.Function):
    """Two outputs; the second may get no gradient, and then zeros are made for it."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * 2, x.mean((2, 3))

    @staticmethod
    def backward(ctx: Any, first: Any, second: Any) -> Any:
        (x,) = ctx.saved_tensors
        return first * 2 + second[:, :, None, None] / (x.shape[2] * x.shape[3])


class WithIndices(torch.autograd.Function):
    """An output that is not differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        best, where = x.max(1)
        ctx.mark_non_differentiable(where)
        ctx.save_for_backward(where)
        ctx.shape = x.shape
        return best, where

    @staticmethod
    def backward(ctx: Any, grad: Any, _: Any) -> Any:
        (where,) = ctx.saved_tensors
        channels = torch.arange(ctx.shape[1], device=grad.device).view(1, -1, 1, 1)
        return grad[:, None] * (where[:, None] == channels)


class Apart(torch.autograd.Function):
    """The newer style."""

    @staticmethod
    def forward(x: Any, power: int) -> Any:
        return x**power

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.power = inputs
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        x, _ = ctx.saved_tensors
        return grad * ctx.power * x ** (ctx.power - 1), None


class InPlace(torch.autograd.Function):
    """Writes into its argument."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 2


class Parts(torch.autograd.Function):
    """A convolution written by hand, with what its backward needs."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any) -> Any:
        ctx.save_for_backward(x, weight)
        return torch.nn.functional.conv2d(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        x, weight = ctx.saved_tensors
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x = torch.einsum("nohw,oc->nchw", grad, weight[:, :, 0, 0])
        if ctx.needs_input_grad[1]:
            for_weight = torch.einsum("nohw,nchw->oc", grad, x)[:, :, None, None]
        return for_x, for_weight


class Mixed(torch.autograd.Function):
    """With autocast's decorators."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx: Any, x: Any, weight: Any) -> Any:
        ctx.save_for_backward(x, weight)
        return torch.nn.functional.conv2d(x, weight)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad: Any) -> Any:
        x, weight = ctx.saved_tensors
        flat = grad.flatten(2).transpose(1, 2)
        return (flat @ weight[:, :, 0, 0]).transpose(1, 2).view_as(x).to(x.dtype), None


taken_before = Swish.apply


def swish(self: Any, x: Any) -> Any:
    return self.head(self.second(taken_before(self.first(x))))


def mask(self: Any, x: Any) -> Any:
    return self.head(MaskOnly.apply(self.second(MaskOnly.apply(self.first(x)))))


def straight(self: Any, x: Any) -> Any:
    return self.head(Binarize.apply(self.first(x)))


def reversal(self: Any, x: Any) -> Any:
    y = self.first(x)
    return self.head(y) + self.head(Reverse.apply(y, 0.5))


def returned(self: Any, x: Any) -> Any:
    return self.head(Same.apply(self.first(x)))


def attributes(self: Any, x: Any) -> Any:
    return self.head(OnContext.apply(self.first(x), self.head.bias[:1]))


def forgetful(self: Any, x: Any) -> Any:
    return self.head(self.second(Forgetful.apply(self.first(x))))


def both(self: Any, x: Any) -> Any:
    y, m = Two.apply(self.first(x))
    return self.head(y * m[:, :, None, None])


def one_of_two(self: Any, x: Any) -> Any:
    y, _ = Two.apply(self.first(x))
    return self.head(y)


def indices(self: Any, x: Any) -> Any:
    best, _ = WithIndices.apply(self.second(self.first(x)))
    return self.head(self.first(x) * best[:, None])


def newer(self: Any, x: Any) -> Any:
    return self.head(Apart.apply(self.first(x), 3))


def in_place(self: Any, x: Any) -> Any:
    return self.head(InPlace.apply(self.first(x) + 1))


def by_hand(self: Any, x: Any) -> Any:
    return Parts.apply(self.second(self.first(x)), self.head.weight)


def by_hand_on_the_input(self: Any, x: Any) -> Any:
    return self.head(self.second(torch.relu(Parts.apply(x, self.first[0].weight[:, :, :1, :1]))))


def decorated(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.second(self.first(x))
        z = Mixed.apply(y, self.head.weight.detach().to(y.dtype))
    return z.float()


def in_autocast(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.head(self.second(Swish.apply(self.first(x)))).float()


def in_a_checkpoint(self: Any, x: Any) -> Any:
    return self.head(checkpoint(lambda a: self.second(Swish.apply(a)), self.first(x), use_reentrant=False))


def last_in_a_checkpoint(self: Any, x: Any) -> Any:
    return self.head(checkpoint(lambda a: OnContext.apply(self.second(a), self.head.bias[:1]), self.first(x), use_reentrant=False))


def nested(self: Any, x: Any) -> Any:
    class Outer(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            ctx.save_for_backward(a)
            return Swish.apply(a) * 2

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            (a,) = ctx.saved_tensors
            return grad * Swish.apply(a)

    return self.head(Outer.apply(self.first(x)))


PLAYED = (
    swish, mask, straight, reversal, returned, attributes, forgetful, both, one_of_two, indices, newer, in_place, by_hand,
    by_hand_on_the_input, decorated, in_autocast, in_a_checkpoint, last_in_a_checkpoint, nested,
)  # fmt: skip
by_name = pytest.mark.parametrize("forward", PLAYED, ids=lambda f: f.__name__)


@by_name
@pytest.mark.parametrize("recipe", [{}, {"hold_output": True, "optimizer": "sgd"}], ids=["plain", "held"])
def test_a_training_step_is_that_of_torch(forward: Forward, recipe: dict[str, Any], cpu: Cpu) -> None:
    trains_as_torch(forward, cpu, **recipe)


@by_name
def test_an_inference_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    infers_as_torch(forward, cpu)


def test_a_graph_with_functions_reads_back_equal_and_is_played_the_same(cpu: Cpu) -> None:
    for forward in PLAYED:
        if forward is decorated:
            continue
        graph = from_torch(Net(forward), SHAPE)
        again = memest.loads(memest.dumps(graph))
        assert again == graph, forward.__name__
        first, second = (memest.estimate(g, input_shape=SHAPE, machine=cpu, loss="mse_loss") for g in (graph, again))
        assert [e.delta for e in first.events] == [e.delta for e in second.events]


def test_other_sizes_follow(cpu: Cpu) -> None:
    """What backward does is symbolic, too."""
    for forward in (swish, attributes, both, newer, by_hand):
        module, shape = Net(forward), (3, 3, 9, 14)
        recipe: dict[str, Any] = {"optimizer": "adam", "loss": "mse_loss"}
        predicted = memest.estimate(from_torch(module, SHAPE), input_shape=shape, machine=cpu, **recipe)
        same(predicted, measure_training(module, inputs_for([shape]), **recipe))


def test_a_function_that_keeps_nothing_for_what_its_backward_reads_is_refused() -> None:
    def captured(self: Any, x: Any) -> Any:
        y = self.first(x)

        class Reads(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, a: Any) -> Any:
                return a * 2

            @staticmethod
            def backward(ctx: Any, grad: Any) -> Any:
                return grad * y

        return self.head(Reads.apply(y + 1))

    with pytest.raises(memest.UnsupportedError, match=r"backward reads .* past its context: keep that by save_for_backward"):
        memest.estimate(from_torch(Net(captured), SHAPE, mode="train"), input_shape=SHAPE, loss="mse_loss")


def test_gradients_for_another_number_of_arguments_are_torchs_error() -> None:
    class Short(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Any, factor: float) -> Any:
            return a * factor

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad

    with pytest.raises(memest.UnsupportedError, match=r"Short\.backward returned 1 gradients for the 2 arguments of apply"):
        from_torch(Net(lambda self, x: self.head(Short.apply(self.first(x), 2.0))), SHAPE, mode="train")


class Popped(torch.autograd.Function):
    """Lets go of a tensor of a list on its context, while backward goes on."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.held, ctx.other = [x.exp()], x.sin()
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        a = grad * ctx.held.pop()
        return (a * ctx.other).exp()


def test_what_backward_lets_go_of_dies_there_in_a_step_too(cpu: Cpu) -> None:
    from validation.fuzz_contexts import compared
    from validation.profiling import record
    from validation.protocol import Measurement

    conv = torch.nn.Conv2d(3, 8, 1)
    opt = torch.optim.SGD(conv.parameters(), 0.1)

    def step(x: Any) -> None:
        opt.zero_grad()
        Popped.apply(conv(x)).mean().backward()
        opt.step()

    x = torch.rand(2, 3, 14, 14)
    predicted = memest.step(step, x, machine=cpu)
    step(x)
    events, _ = record(lambda: step(x))
    assert compared(predicted, Measurement(0, events)) is None


def test_a_tensor_that_backward_puts_on_its_context_is_refused() -> None:
    class Puts(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            return a * 2

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            ctx.made = grad * 2
            return ctx.made + 1

    with pytest.raises(memest.UnsupportedError, match="whose backward puts a tensor on its context"):
        from_torch(Net(lambda self, x: self.head(Puts.apply(self.first(x)))), SHAPE, mode="train")
