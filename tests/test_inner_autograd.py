"""Autograd that a network's own code runs: checkpoints and reversible blocks written by hand, gradients in a forward or in a hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import MemestError, UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Forward, Net, infers_as_torch, same, trains_as_torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_training  # noqa: E402


class Checkpoint(torch.autograd.Function):
    """As it was written before torch had one."""

    @staticmethod
    def forward(ctx: Any, function: Any, preserve: bool, *args: Any) -> Any:
        ctx.function, ctx.preserve = function, preserve
        if preserve:
            ctx.state = torch.get_rng_state()
        ctx.save_for_backward(*args)
        with torch.no_grad():
            return function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        with torch.random.fork_rng(devices=[], enabled=ctx.preserve):
            if ctx.preserve:
                torch.set_rng_state(ctx.state)
            given = [t.detach().requires_grad_(t.requires_grad) for t in ctx.saved_tensors]
            with torch.enable_grad():
                out = ctx.function(*given)
        torch.autograd.backward((out,), grads)
        return (None, None, *(t.grad for t in given))


class Diffusion(torch.autograd.Function):
    """The checkpoint of diffusion models: its parameters are arguments, its inputs lie on the context."""

    @staticmethod
    def forward(ctx: Any, function: Any, count: int, *args: Any) -> Any:
        ctx.function, ctx.given, ctx.parameters = function, list(args[:count]), list(args[count:])
        with torch.no_grad():
            return function(*ctx.given)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.given = [t.detach().requires_grad_(True) for t in ctx.given]
        with torch.enable_grad():
            out = ctx.function(*[t.view_as(t) for t in ctx.given])
        found = torch.autograd.grad(out, ctx.given + ctx.parameters, grads, allow_unused=True)
        del ctx.given, ctx.parameters, out
        return (None, None, *found)


class Reversible(torch.autograd.Function):
    """Keeps its output alone, and makes its input again."""

    @staticmethod
    def forward(ctx: Any, x: Any, f: Any, g: Any, times: int) -> Any:
        for _ in range(times):
            a, b = torch.chunk(x, 2, 1)
            a = a + f(b)
            x = torch.cat([a, b + g(a)], 1)
        ctx.y, ctx.how = x.detach(), (f, g, times)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        f, g, times = ctx.how
        y = ctx.y
        del ctx.y
        for _ in range(times):
            y, grad = _undone(f, g, y, grad)
        return grad, None, None, None


def _undone(f: Any, g: Any, y: Any, grad: Any) -> Any:
    a, b = torch.chunk(y, 2, 1)
    of_a, of_b = torch.chunk(grad, 2, 1)
    del y, grad
    with torch.enable_grad():
        a.requires_grad = True
        made = g(a)
        made.backward(of_b)
    with torch.no_grad():
        before = b - made
        del b, made
        of_a = of_a + a.grad
        a.grad = None
    with torch.enable_grad():
        before.requires_grad = True
        made = f(before)
        made.backward(of_a)
    with torch.no_grad():
        first = a - made
        del a, made
        of_b = of_b + before.grad
        before.grad = None
        return torch.cat([first, before.detach()], 1), torch.cat([of_a, of_b], 1)


class Invertible(torch.autograd.Function):
    """With an inverse of its own."""

    @staticmethod
    def forward(ctx: Any, function: Any, inverse: Any, x: Any, *weights: Any) -> Any:
        ctx.function, ctx.inverse, ctx.weights = function, inverse, weights
        with torch.no_grad():
            y = function(x.detach()).detach_()
        ctx.outputs = [y]
        return y

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        y = ctx.outputs.pop()
        with torch.no_grad():
            x = ctx.inverse(y)
        with torch.set_grad_enabled(True):
            x = x.detach().requires_grad_()
            y = ctx.function(x)
        return (None, None, *torch.autograd.grad(y, (x, *ctx.weights), grad))


class GraphKept(torch.autograd.Function):
    """Its forward makes a graph of its own, of which backward takes the gradient."""

    @staticmethod
    def forward(ctx: Any, function: Any, on_context: bool, x: Any) -> Any:
        with torch.enable_grad():
            given = x.detach().requires_grad_()
            y = function(given)
        ctx.on_context = on_context
        if on_context:
            ctx.both = given, y
        else:
            ctx.save_for_backward(given, y)
        return y.detach()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        given, y = ctx.both if ctx.on_context else ctx.saved_tensors
        return None, None, torch.autograd.grad(y, given, grad)[0]


class NotDetached(torch.autograd.Function):
    """Asks for the gradient of the very tensor that it saved."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return torch.sigmoid(x) * x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            y = torch.sigmoid(x) * x
            return torch.autograd.grad(y, x, grad)[0]


def by_hand(self: Any, x: Any) -> Any:
    return self.head(Checkpoint.apply(self.second, False, Checkpoint.apply(self.first, False, x * 1)))


def with_its_state(self: Any, x: Any) -> Any:
    return self.head(Checkpoint.apply(lambda t: self.drop(self.second(t)), True, self.first(x)))


def in_one_another(self: Any, x: Any) -> Any:
    return self.head(Checkpoint.apply(lambda t: self.second(Checkpoint.apply(self.second, False, t)), False, self.first(x)))


def in_torchs(self: Any, x: Any) -> Any:
    return self.head(checkpoint(lambda t: Checkpoint.apply(self.second, False, torch.relu(t)), self.first(x), use_reentrant=False))


def diffusion(self: Any, x: Any) -> Any:
    return self.head(Diffusion.apply(self.second, 1, self.first(x), *self.second.parameters()))


def _half(self: Any) -> Any:
    return lambda t: torch.tanh(t) * self.average[:1], lambda t: torch.nn.functional.conv2d(t, self.head.weight[:, :4])


def reversible(self: Any, x: Any) -> Any:
    return self.head(Reversible.apply(self.first(x), *_half(self), 3))


def invertible(self: Any, x: Any) -> Any:
    def function(t: Any) -> Any:
        a, b = torch.chunk(t, 2, 1)
        return torch.cat([a + torch.nn.functional.conv2d(b, self.head.weight[:, :4]), b], 1)

    def inverse(t: Any) -> Any:
        a, b = torch.chunk(t, 2, 1)
        return torch.cat([a - torch.nn.functional.conv2d(b, self.head.weight[:, :4]), b], 1)

    return self.head(Invertible.apply(function, inverse, self.first(x), self.head.weight))


def graph_on_the_context(self: Any, x: Any) -> Any:
    return self.head(GraphKept.apply(self.second, True, self.first(x)))


def graph_saved(self: Any, x: Any) -> Any:
    return self.head(GraphKept.apply(self.second, False, self.first(x)))


def not_detached(self: Any, x: Any) -> Any:
    return self.head(NotDetached.apply(self.first(x)))


def normals(self: Any, x: Any) -> Any:
    y = self.first(x)
    with torch.enable_grad():
        z = y.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(self.second(z).sum(), z)
    return self.head(y * slope)


def forces(self: Any, x: Any) -> Any:
    y = self.first(x).mean((2, 3))
    with torch.enable_grad():
        z = y.detach().requires_grad_()
        (force,) = torch.autograd.grad(torch.tanh(z @ self.head.weight[:, :, 0, 0].t()).sum(), z, create_graph=True)
    return force


def own_backward(self: Any, x: Any) -> Any:
    y = self.first(x)
    with torch.enable_grad():
        z = y.detach().requires_grad_()
        (torch.sigmoid(z) * z).sum().backward()
    return self.head(self.second(y * z.grad))


def steps_downhill(self: Any, x: Any) -> Any:
    y = self.first(x)
    for _ in range(2):
        with torch.enable_grad():
            z = y.detach().requires_grad_()
            slope = torch.autograd.grad(torch.sigmoid(z).pow(2).sum(), z)[0]
        y = y - 0.1 * slope
    return self.head(y)


def reversible_inside(self: Any, x: Any) -> Any:
    y = self.first(x)
    with torch.enable_grad():
        z = y.detach().requires_grad_()
        made = Reversible.apply(Reversible.apply(z, torch.tanh, torch.sigmoid, 1), torch.tanh, torch.sigmoid, 2)
        slope = torch.autograd.grad(made.sum(), z)[0]
    return self.head(y * slope)


def required(self: Any, x: Any) -> Any:
    y = x * 2
    y.requires_grad_(True)
    return self.head(self.first(y))


def equilibrium(self: Any, x: Any) -> Any:
    y = self.first(x)
    z = torch.tanh(self.second(y) + y)
    if z.requires_grad:
        z0 = z.clone().detach().requires_grad_()
        f0 = torch.tanh(self.second(z0) + y)

        def solved(grad: Any) -> Any:
            found = grad
            for _ in range(2):
                found = torch.autograd.grad(f0, z0, found, retain_graph=True)[0] + grad
            return found

        z.register_hook(solved)
    return self.head(z)


QUICK = (by_hand, reversible, normals)
PLAYED = (
    *QUICK, with_its_state, in_one_another, in_torchs, diffusion, invertible, graph_on_the_context, graph_saved, not_detached, forces,
    own_backward, steps_downhill, reversible_inside, required, equilibrium,
)  # fmt: skip


def _marked(forward: Forward) -> Any:
    return pytest.param(forward, id=forward.__name__, marks=() if forward in QUICK else pytest.mark.slow)


by_name = pytest.mark.parametrize("forward", list(map(_marked, PLAYED)))


@by_name
def test_a_training_step_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    trains_as_torch(forward, cpu)


@pytest.mark.slow
@by_name
def test_with_gradients_that_stand_and_outputs_that_are_held(forward: Forward, cpu: Cpu) -> None:
    trains_as_torch(forward, cpu, hold_output=True, optimizer="sgd")


@by_name
def test_an_inference_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    infers_as_torch(forward, cpu)


@by_name
def test_a_file_says_the_same(forward: Forward) -> None:
    graph = from_torch(Net(forward), SHAPE)
    again = memest.loads(memest.dumps(graph))
    assert again == graph and again.inference == graph.inference


@pytest.mark.slow
@by_name
def test_at_other_sizes(forward: Forward, cpu: Cpu) -> None:
    graph, shape = from_torch(Net(forward), SHAPE), (3, 3, 16, 14)
    recipe: dict[str, Any] = {"optimizer": "adam", "loss": "mse_loss"}
    predicted = memest.estimate(graph, input_shape=shape, machine=cpu, **recipe)
    same(predicted, measure_training(Net(forward), inputs_for([shape]), **recipe))


def test_gradients_of_an_inference_are_kept_there_alone(cpu: Cpu) -> None:
    graph = from_torch(Net(normals), SHAPE, mode="infer")
    assert graph.enables_grad and {layer.name for layer in graph.layers if layer.grad} > {"second.0", "second.1"}


class Forgotten(Checkpoint):
    """Runs into the graph of the forward, for want of a ``detach``."""

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        with torch.enable_grad():
            torch.autograd.backward((ctx.function(*ctx.saved_tensors),), grads)
        return None, None, None


def forgotten(self: Any, x: Any) -> Any:
    return self.head(Forgotten.apply(self.second, False, self.first(x)))


def own_parameter(self: Any, x: Any) -> Any:
    self.head.weight.requires_grad_(False)
    return self.head(self.first(x))


def of_a_parameter(self: Any, x: Any) -> Any:
    own_backward(self, x)
    torch.sigmoid(self.first(x)).sum().backward()
    return self.head(self.first(x)) * self.head.bias.grad.sum()


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (own_parameter, r"requires_grad_\(False\) of the network's own 'head.weight' inside forward"),
        (of_a_parameter, "head.bias.grad after a backward inside a forward"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_what_is_refused_names_the_line(forward: Callable[..., Any], said: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"\(test_inner_autograd.py:\d+\): no rule for {said}"):
        from_torch(Net(forward), SHAPE, mode="train")


def _numpy(self: Any, x: Any) -> Any:
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(), torch.from_numpy):
        return self.head(self.first(x))


def _collected(self: Any, x: Any) -> Any:
    y = self.first(x)
    y.register_hook(lambda grad: setattr(self, "cache", grad))
    return self.head(y)


TRANSFORMED = {
    "the hook of saved_tensors_hooks (test_inner_autograd.py:": _numpy,
    "a tensor's hook (test_inner_autograd.py:": _collected,
    "torch.vmap (torch.func.vmap": lambda self, x: torch.vmap(lambda t: t * 2)(self.first(x)),
    "torch.func.grad (vjp": lambda self, x: torch.func.grad(lambda t: t.sin().sum())(self.first(x)),
    "torch.func.jvp, jacfwd": lambda self, x: torch.func.jvp(torch.sin, (self.first(x),), (torch.ones(2, 8, 12, 10),))[1],
}


@pytest.mark.parametrize("said", TRANSFORMED)
def test_transforms_and_hooks_that_keep_are_refused_by_name(said: str) -> None:
    with pytest.raises(UnsupportedError, match=r"\(test_inner_autograd.py:\d+\)") as caught:
        from_torch(Net(TRANSFORMED[said]), SHAPE, mode="train")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_functional_call_is_played(cpu: Cpu) -> None:
    def forward(self: Any, x: Any) -> Any:
        adapted = {name: p * 0.9 for name, p in self.first.named_parameters()}
        return self.head(torch.func.functional_call(self.first, adapted, (x,)))

    trains_as_torch(forward, cpu)


def test_what_torch_refuses_is_refused(cpu: Cpu) -> None:
    with pytest.raises(RuntimeError, match="second time"):
        measure_training(Net(forgotten), inputs_for([SHAPE]), optimizer="sgd", loss="mse_loss")
    with pytest.raises(MemestError, match="a second time through"):
        memest.estimate(from_torch(Net(forgotten), SHAPE), input_shape=SHAPE, machine=cpu, optimizer="sgd", loss="mse_loss")


def test_in_a_whole_step(cpu: Cpu) -> None:
    from validation.fuzz_contexts import compared
    from validation.profiling import record
    from validation.protocol import Measurement

    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    opt = torch.optim.SGD(net.parameters(), 0.1)

    def step(x: Any) -> None:
        opt.zero_grad()
        Checkpoint.apply(net[1:], False, net[0](x)).mean().backward()
        opt.step()

    x = torch.rand(2, 3, 14, 14)
    predicted = memest.step(step, x, machine=cpu)
    step(x)
    events, _ = record(lambda: step(x))
    assert compared(predicted, Measurement(0, events)) is None


def test_on_a_card_it_is_refused_by_name() -> None:
    graph = from_torch(Net(normals), SHAPE)
    with pytest.raises(UnsupportedError, match=r"torch.autograd.grad inside a forward"):
        memest.estimate(graph, input_shape=SHAPE, runtime="torch-cuda", machine="h100-80gb")


class _RunAgain(torch.autograd.Function):
    """A checkpoint by hand, which in backward runs outside of the autocast that its forward stood in."""

    @staticmethod
    def forward(ctx: Any, body: Any, x: Any) -> Any:
        ctx.body = body
        ctx.save_for_backward(x)
        with torch.no_grad():
            return body(x).clone()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.body(x)
        return None, torch.autograd.grad(y, x, grad)[0]


def test_a_gradient_of_another_dtype_is_cast_before_the_engine_runs(cpu: Cpu) -> None:
    def forward(self: Any, x: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = _RunAgain.apply(lambda t: torch.nn.functional.leaky_relu(self.second[0](t.float())), self.first(x))
        return self.head(y.float())

    trains_as_torch(forward, cpu)
