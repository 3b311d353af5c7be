"""``create_graph=True``: each row's formula, and whole steps with gradient penalties, equal to torch's allocator event by event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu
from memest.ops.derivatives.formula import Kernel
from memest.ops.derivatives.table import FORMULAS
from memest.ops.operator import Example, Operator
from memest.ops.table import COMPOSITES, OPERATORS

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from tiny import Square  # noqa: E402
from torch import nn  # noqa: E402

from validation.created import measure, predict  # noqa: E402
from validation.rows import normalized  # noqa: E402
from validation.steps import Case, compare  # noqa: E402

COMPOSED = (
    *("prelu", "linear", "matmul", "conv_transpose2d", "conv3d", "instance_norm", "square", "normalize", "avg_pool1d", "cross_entropy"),
    *("kl_div", "dice_loss", "_weight_norm", "einsum", "rms_norm", "chunk", "interpolate", "tanhshrink", "local_response_norm"),
)
ROWS = [*(OPERATORS[name] for name in FORMULAS if name in OPERATORS), *(COMPOSITES[name] for name in COMPOSED)]
CALLS = [(row, i, example) for row in ROWS for i, example in enumerate(row.examples)]
QUICK = {
    *{("convolution", 3), ("leaky_relu", 2), ("tanh", 0), ("batch_norm", 0), ("layer_norm", 0), ("vector_norm", 0), ("max_pool2d", 1)},
    *{("group_norm", 0), ("prelu", 0), ("smooth_l1_loss", 1), ("binary_cross_entropy", 1), ("index", 2)},
}
REFUSED = {"as_strided", "vector_norm", "softmax", "log_softmax", "cross_entropy", "rpow", "gather", "prod"}


def check(row: Any, example: Example, cpu: Cpu) -> None:
    """Forward, a backward with a graph, and back through that: equal, or refused by name where torch has a way."""
    measured = measure(row, example)
    if measured is None:
        return
    try:
        predicted = predict(row, example, cpu)
    except UnsupportedError as e:
        assert row.name in REFUSED or "complex" in str(e), e
        return
    assert normalized([e.delta for e in predicted]) == normalized([e.delta for e in measured])


@pytest.mark.parametrize(("row", "i", "example"), [c for c in CALLS if (c[0].name, c[1]) in QUICK], ids=lambda v: getattr(v, "name", None))
def test_a_backward_of_a_backward_is_torchs(row: Operator, i: int, example: Example, cpu: Cpu) -> None:
    check(row, example, cpu)


@pytest.mark.slow
@pytest.mark.parametrize(("row", "i", "example"), CALLS, ids=[f"{row.name}-{i}" for row, i, _ in CALLS])
def test_every_backward_of_a_backward_is_torchs(row: Operator, i: int, example: Example, cpu: Cpu) -> None:
    check(row, example, cpu)


def test_a_kernel_keeps_what_its_row_kept() -> None:
    for name, kernel in FORMULAS.items():
        if isinstance(kernel, Kernel):
            assert set(kernel.saves) <= {"grad", *OPERATORS[name].saves}


# whole steps -------------------------------------------------------------------------------------------------------------


def critic(*layers: Any) -> Any:
    return nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2, True), *layers, nn.Flatten(), nn.Linear(4 * 16, 1))


def wgan_gp(*layers: Any) -> Case:
    """Random points between real and generated images, the norm of the critic's gradient there."""
    g = nn.Sequential(nn.ConvTranspose2d(4, 8, 4), nn.BatchNorm2d(8), nn.ReLU(True), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())
    d = critic(*layers)
    og, od = torch.optim.Adam(g.parameters(), betas=(0.5, 0.9)), torch.optim.Adam(d.parameters(), betas=(0.5, 0.9))

    def penalty(real: Any, fake: Any) -> Any:
        alpha = torch.rand(real.size(0), 1, 1, 1)
        between = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
        out = d(between)
        (gradient,) = torch.autograd.grad(
            outputs=out, inputs=between, grad_outputs=torch.ones_like(out), create_graph=True, retain_graph=True, only_inputs=True
        )
        return ((gradient.view(gradient.size(0), -1).norm(2, dim=1) - 1) ** 2).mean()

    def step(z: Any, real: Any) -> None:
        od.zero_grad()
        fake = g(z).detach()
        (d(fake).mean() - d(real).mean() + 10 * penalty(real, fake)).backward()
        od.step()
        og.zero_grad()
        (-d(g(z)).mean()).backward()
        og.step()

    return Case(step, [torch.rand(2, 4, 1, 1), torch.rand(2, 3, 8, 8)], [g, d, og, od])


def r1() -> Case:
    """The gradient at real images, every time."""
    d = critic(nn.Conv2d(4, 4, 3, padding=1), nn.Softplus())
    o = torch.optim.Adam(d.parameters())

    def step(real: Any) -> None:
        real = real.detach().requires_grad_()
        out = d(real)
        (gradient,) = torch.autograd.grad(out.sum(), real, create_graph=True)
        o.zero_grad()
        (F.softplus(-out).mean() + 5 * gradient.square().sum([1, 2, 3]).mean()).backward()
        o.step()

    return Case(step, [torch.rand(2, 3, 8, 8)], [d, o])


def path_length() -> Case:
    """StyleGAN2's: how much an image moves with its latent."""
    g = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Unflatten(1, (8, 1, 1)), nn.ConvTranspose2d(8, 3, 8))
    o = torch.optim.Adam(g.parameters())
    mean = torch.zeros(())

    def step(w: Any) -> None:
        w = w.detach().requires_grad_()
        image = g(w)
        noise = torch.randn_like(image) / 8
        (gradient,) = torch.autograd.grad((image * noise).sum(), w, create_graph=True)
        lengths = gradient.square().sum(1).sqrt()
        with torch.no_grad():
            mean.lerp_(lengths.mean(), 0.01)
        o.zero_grad()
        (lengths - mean).square().mean().backward()
        o.step()

    return Case(step, [torch.rand(2, 4)], [g, o, mean])


def hessian_times_vector() -> Case:
    net = critic(nn.BatchNorm2d(4), nn.Tanh())
    vector = [torch.rand_like(p) for p in net.parameters()]

    def step(x: Any) -> None:
        gradients = torch.autograd.grad(net(x).pow(2).mean(), list(net.parameters()), create_graph=True)
        product = sum((g * v).sum() for g, v in zip(gradients, vector, strict=True))
        for h in torch.autograd.grad(product, list(net.parameters())):
            h.sum().item()

    return Case(step, [torch.rand(2, 3, 8, 8)], [net, vector])


def inner_steps() -> Case:
    """MAML: two steps of gradient descent that the outer loss sees through."""
    w, b = torch.rand(5, 12, requires_grad=True), torch.zeros(5, requires_grad=True)
    o = torch.optim.Adam([w, b])

    def step(x: Any, y: Any) -> None:
        fast = [w, b]
        for _ in range(2):
            loss = F.cross_entropy(F.linear(x, *fast), y)
            fast = [p - 0.1 * g for p, g in zip(fast, torch.autograd.grad(loss, fast, create_graph=True), strict=True)]
        o.zero_grad()
        F.cross_entropy(F.linear(x, *fast), y).backward()
        o.step()

    return Case(step, [torch.rand(4, 12), torch.zeros(4, dtype=torch.int64)], [w, b, o])


class Field(nn.Module):
    """A force: the gradient of an energy, taken in forward; its weights by spectral norm, which keeps what it made of them."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3, padding=1))
        self.energy = nn.Sequential(first, nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1))

    def forward(self, x: Any) -> Any:
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            return torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]


def in_forward() -> Case:
    field = Field()
    o = torch.optim.SGD(field.parameters(), 0.1)

    def step(x: Any, y: Any) -> None:
        o.zero_grad()
        F.mse_loss(field(x), y).backward()
        o.step()

    return Case(step, [torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)], [field, o])


def physics() -> Case:
    """u'' of a small network at points of a line, as a residual."""
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    o = torch.optim.Adam(net.parameters())

    def step(x: Any) -> None:
        x = x.clone().requires_grad_()
        u = net(x)
        (first,) = torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)
        (second,) = torch.autograd.grad(first, x, torch.ones_like(first), create_graph=True)
        o.zero_grad()
        ((second + u) ** 2).mean().backward()
        o.step()

    return Case(step, [torch.rand(16, 1)], [net, o])


class Exponential(torch.autograd.Function):
    """Keeps its result."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        result = x.exp()
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * ctx.saved_tensors[0]


class Marked(Square):
    """Not to be differentiated twice."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


def own_functions() -> Case:
    """Custom functions and a tensor's hook in what is gone through twice."""
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    o = torch.optim.SGD(net.parameters(), 0.1)

    def step(x: Any) -> None:
        x = x.detach().requires_grad_()
        y = net[0](x)
        y.register_hook(lambda g: g / (g.norm() + 1e-8))
        out = net[1](Square.apply(y) + Exponential.apply(y))
        (gradient,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        o.zero_grad()
        (out.mean() + gradient.square().sum()).backward()
        o.step()

    return Case(step, [torch.rand(3, 4)], [net, o])


def two_backwards() -> Case:
    """The second gradient is added to the first out of place, with a history."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    parameters = list(net.parameters())

    def step(x: Any) -> None:
        for p in parameters:
            p.grad = None
        net(x).sum().backward(create_graph=True)
        net(x).pow(2).sum().backward(create_graph=True)
        size = sum(p.grad.pow(2).sum() for p in parameters)
        torch.autograd.grad(size, parameters)
        for p in parameters:
            p.grad = None

    return Case(step, [torch.rand(3, 4)], [net])


MAKERS: dict[str, Callable[[], Case]] = {
    "wgan_gp": wgan_gp,
    "wgan_gp of layer norms": lambda: wgan_gp(nn.LayerNorm([4, 4, 4])),
    "r1": r1,
    "path_length": path_length,
    "hessian_times_vector": hessian_times_vector,
    "inner_steps": inner_steps,
    "physics": physics,
    "in_forward": in_forward,
    "own_functions": own_functions,
    "two_backwards": two_backwards,
    "in place into a view": lambda: wgan_gp(nn.InstanceNorm2d(4), nn.LeakyReLU(0.2, True)),
    "groups": lambda: wgan_gp(nn.GroupNorm(2, 4), nn.PReLU(4), nn.PixelShuffle(2), nn.PixelUnshuffle(2)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_with_a_gradient_of_gradients_is_torchs(name: str, cpu: Cpu) -> None:
    outcome = compare(MAKERS[name](), cpu)
    assert not outcome.failed, f"{outcome.difference}"


def test_it_is_estimated_at_other_sizes(cpu: Cpu) -> None:
    case = r1()
    graph = memest.from_step(case.function, *case.arguments)
    found = memest.estimate(graph, input_shape={"real": (5, 3, 8, 8)}, machine=cpu)
    again = memest.step(case.function, torch.rand(5, 3, 8, 8), machine=cpu)
    assert [e.delta for e in found.events] == [e.delta for e in again.events]
    assert memest.sweep(graph, batch=[2, 5], H=8, W=8, machine=cpu)["peak_bytes"][1] == again.peak_bytes


def test_it_is_estimated_at_other_heights_and_widths(cpu: Cpu) -> None:
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.PReLU(4), nn.InstanceNorm2d(4), nn.ReLU(True), *pooled)

    def step(x: Any) -> None:
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        gradient.flatten(1).norm(2, 1).mean().backward()
        net.zero_grad()

    found = memest.estimate(memest.from_step(step, torch.rand(2, 3, 8, 8)), input_shape={"x": (3, 3, 16, 12)}, machine=cpu)
    again = memest.step(step, torch.rand(3, 3, 16, 12), machine=cpu)
    assert [e.delta for e in found.events] == [e.delta for e in again.events]


def refused(function: Callable[..., Any], *examples: Any, **settings: Any) -> str:
    with pytest.raises(UnsupportedError) as e:
        memest.step(function, *examples, **settings)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_what_has_no_rule_is_refused_by_name() -> None:
    def alone(x: Any) -> None:
        x = x.clone().requires_grad_()
        torch.autograd.grad(F.mish(x).sum(), x, create_graph=True)

    assert "what runs first changes as training goes on" in refused(alone, torch.rand(3, 4), machine="t4")

    first = r1()
    assert "in a process's first step" in refused(first.function, *first.arguments, machine="t4", first_step=True)

    def extreme(x: Any) -> None:
        x = x.clone().requires_grad_()
        torch.autograd.grad(x.max(), x, create_graph=True)

    assert "create_graph=True through _max" in refused(extreme, torch.rand(3, 4))

    def marked(x: Any) -> None:
        x = x.clone().requires_grad_()
        torch.autograd.grad(Marked.apply(x).sum(), x, create_graph=True)

    assert "marked once_differentiable: torch raises" in refused(marked, torch.rand(3))

    def again(x: Any) -> None:
        x = x.clone().requires_grad_()
        y = torch.utils.checkpoint.checkpoint(torch.tanh, x * 2, use_reentrant=False)
        torch.autograd.grad(y.sum(), x, create_graph=True)

    assert "checkpoint" in refused(again, torch.rand(3))
