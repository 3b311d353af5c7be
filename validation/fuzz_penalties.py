"""Random steps with gradients of gradients, as source text: critics of random layers in one to three dimensions, penalized where their
gradient is taken at real, generated or mixed images, or times a vector."""

from __future__ import annotations

import random

PREAMBLE = """DEVICE = 'cpu'
import torch
import torch.nn.functional as F
from torch import nn
class Residual(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.inner = nn.Sequential(*layers)
    def forward(self, x):
        return (x + self.inner(x)) * 0.7
class Beside(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second
    def forward(self, x):
        return torch.cat([self.first(x), self.second(x)], 1)
class Deviation(nn.Module):
    def forward(self, x):
        spread = (x - x.mean(0, keepdim=True)).square().mean(0).add(1e-8).sqrt().mean().view([1] * x.ndim)
        return torch.cat([x, spread.expand(x.shape[0], 1, *x.shape[2:])], 1)
class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x
    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad
class Squared(nn.Module):
    def forward(self, x):
        return Square.apply(x)
class Seen(nn.Module):
    def forward(self, x):
        x.register_hook(lambda g: g / (g.norm() + 1e-8))
        return x * 1.0
class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
    def forward(self, x):
        y = x.flatten(2).transpose(1, 2)
        weights = torch.softmax(self.q(y) @ self.k(y).transpose(1, 2) / 2, -1)
        return x + torch.einsum("bnm,bmc->bcn", weights, self.v(y)).reshape(x.shape)
class Resized(nn.Module):
    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode=MODE)
"""
ACTIVATIONS = (
    *("nn.ReLU()", "nn.LeakyReLU(0.2)", "nn.LeakyReLU(0.2, True)", "nn.ReLU(True)", "nn.Tanh()", "nn.Sigmoid()", "nn.SiLU()", "nn.GELU()"),
    *("nn.Softplus()", "nn.ELU()", "nn.Mish()", "nn.Hardtanh()", "nn.ReLU6()", "nn.SELU()"),
    *("nn.PReLU()", "nn.Hardswish()", "nn.GELU('tanh')", "nn.LogSigmoid()", "nn.Softshrink()", "Squared()"),
)
MODES = {1: ("'nearest'", "'linear'"), 2: ("'nearest'", "'bilinear'"), 3: ("'nearest'", "'trilinear'")}


class _Critic:
    """Draws the layers of one network and follows its sizes."""

    def __init__(self, rng: random.Random, dims: int, side: int) -> None:
        self.rng, self.dims, self.side, self.width = rng, dims, side, 3
        self.layers: list[str] = []

    def _norm(self, width: int) -> list[str]:
        n, side = self.dims, f", {self.side}" * self.dims
        kinds = [f"nn.BatchNorm{n}d({width})", f"nn.LayerNorm([{width}{side}])", f"nn.InstanceNorm{n}d({width}, affine=True)"]
        return [self.rng.choice((*kinds, f"nn.InstanceNorm{n}d({width})", f"nn.GroupNorm(2, {width})"))] if self.rng.random() < 0.35 else []

    def convolution(self) -> None:
        """A convolution, perhaps with strides, dilation, groups or spectral norm; a norm; an activation."""
        rng, n, width = self.rng, self.dims, self.rng.choice((4, 6, 8))
        groups = rng.choice((1, 1, 1, 2)) if self.width % 2 == 0 and width % 2 == 0 else 1
        stride = rng.choice((1, 2)) if self.side >= 8 else 1
        dilation = 2 if stride == 1 and rng.random() < 0.15 else 1
        kernel, padding = (4, 1) if stride == 2 and rng.random() < 0.6 else (3, dilation)
        bias = rng.random() < 0.7
        conv = f"nn.Conv{n}d({self.width}, {width}, {kernel}, {stride}, {padding}, {dilation}, {groups}, {bias})"
        if rng.random() < 0.15:
            norms = ("spectral_norm", "parametrizations.spectral_norm", "weight_norm", "parametrizations.weight_norm")
            conv = f"nn.utils.{rng.choice(norms)}({conv})"
        self.side = (self.side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        self.width = width
        norm = self._norm(width)
        self.layers += [conv, *norm, rng.choice(ACTIVATIONS)]

    def other(self) -> None:
        """A residual block, a pool, layers side by side, a deviation over the batch, a resize and what takes it back."""
        rng, n, width = self.rng, self.dims, self.width
        kind = rng.choice(("residual", "pool", "beside", "deviation", "resize", "pad", "shuffle", "seen", "attention"))
        if kind == "residual":
            self.layers.append(f"Residual({rng.choice(ACTIVATIONS)}, nn.Conv{n}d({width}, {width}, 3, padding=1))".replace(", True)", ")"))
        elif kind == "pool" and self.side >= 4:
            self.layers.append(rng.choice((f"nn.AvgPool{n}d(2)", f"nn.MaxPool{n}d(2)", f"nn.AdaptiveAvgPool{n}d({self.side // 2})")))
            self.side //= 2
        elif kind == "beside":
            self.layers.append(f"Beside(nn.Conv{n}d({width}, 3, 1), nn.Conv{n}d({width}, 3, 3, padding=1))")
            self.width = 6
        elif kind == "deviation":
            self.layers.append("Deviation()")
            self.width += 1
        elif kind == "resize" and self.side <= 4:
            self.layers.append("Resized()" if rng.random() < 0.5 else f"nn.ConvTranspose{n}d({width}, {width}, 2, 2)")
            self.side *= 2
        elif kind == "pad" and n == 2:
            self.layers.append(rng.choice(("nn.ReflectionPad2d(1)", "nn.ZeroPad2d(1)", "nn.ReplicationPad2d(1)")))
            self.side += 2

        elif kind == "shuffle" and n == 2 and self.side % 2 == 0:
            self.layers.append("nn.PixelUnshuffle(2)")
            self.width, self.side = width * 4, self.side // 2
        elif kind == "seen":
            self.layers.append("Seen()")
        elif kind == "attention":
            self.layers.append(f"Attention({width})")

    def head(self) -> None:
        """To a number an image: flattened, or averaged."""
        n = self.dims
        if self.rng.random() < 0.5:
            size = self.width * self.side**n
            hidden = [f"nn.Linear({size}, 8)", "nn.LeakyReLU(0.2)", "nn.Linear(8, 1)"]
            self.layers += ["nn.Flatten()", *(hidden if self.rng.random() < 0.3 else [f"nn.Linear({size}, 1)"])]
        else:
            self.layers.append(f"nn.Conv{n}d({self.width}, 1, {min(3, self.side)})")


def penalized(seed: int) -> str:
    """The source of a module with ``function``, ``arguments`` and ``objects``."""
    rng = random.Random(seed)
    dims = rng.choice((1, 2, 2, 2, 3))
    side = {1: rng.choice((12, 16)), 2: rng.choice((8, 12)), 3: 8}[dims]
    critic = _Critic(rng, dims, side)
    critic.convolution()
    for _ in range(rng.choice((1, 2, 3))):
        critic.convolution() if rng.random() < 0.6 else critic.other()
    critic.head()
    batch = rng.choice((2, 3, 4))
    optimizer = rng.choice(
        ("torch.optim.Adam(net.parameters())", "torch.optim.RMSprop(net.parameters())", "torch.optim.SGD(net.parameters(), 0.1)")
    )
    body = "\n".join(f"    {line}" for line in _step(rng, dims))
    shape = f"{batch}, 3{f', {side}' * dims}"
    return (
        f"{PREAMBLE.replace('MODE', rng.choice(MODES[dims]))}net = nn.Sequential({', '.join(critic.layers)}).to(DEVICE)\n"
        f"opt = {optimizer}\n"
        f"def function(real, fake):\n{body}\n"
        f"arguments = [torch.rand({shape}).to(DEVICE), torch.rand({shape}).to(DEVICE)]\nobjects = [net, opt]\n"
    )


def _step(rng: random.Random, dims: int) -> list[str]:
    ones = f"torch.rand(real.size(0){', 1' * (dims + 1)}, device=real.device)"
    where = rng.choice(
        (
            f"alpha = {ones}; at = (alpha * real + (1 - alpha) * fake).requires_grad_(True)",
            f"alpha = {ones}.expand_as(real); at = torch.lerp(fake, real, alpha).requires_grad_()",
            "at = real.detach().requires_grad_()",
            "at = real.clone().requires_grad_(True)",
            "at = (real + 0.5 * real.std() * torch.rand_like(real)).requires_grad_()",
        )
    )
    keep = rng.choice(
        ("create_graph=True", "create_graph=True, retain_graph=True", "retain_graph=True, create_graph=True, only_inputs=True")
    )
    gradient = rng.choice(
        (
            f"g = torch.autograd.grad(outputs=out, inputs=at, grad_outputs=torch.ones_like(out), {keep})[0]",
            f"g, = torch.autograd.grad(out.sum(), at, {keep})",
            f"g, = torch.autograd.grad(out.mean(), [at], {keep})",
        )
    )
    penalty = rng.choice(
        (
            "g = g.view(g.size(0), -1); penalty = ((g.norm(2, dim=1) - 1) ** 2).mean()",
            "penalty = (g.reshape(len(g), -1).norm(2, 1) - 1).pow(2).mean() * 10",
            "penalty = g.square().flatten(1).sum(1).mean()",
            "penalty = (g.pow(2).sum(dim=list(range(1, g.ndim))).sqrt() - 1).clamp(min=0).square().mean()",
            "penalty = torch.sqrt(g.flatten(1).pow(2).sum(1) + 1e-12).mean()",
            "penalty = g.pow(2).mean()",
        )
    )
    losses = (
        "net(fake).mean() - net(real).mean()",
        "F.softplus(net(fake)).mean() + F.softplus(-net(real)).mean()",
        "F.relu(1 + net(fake)).mean()",
    )
    loss = rng.choice((*losses, "-out.mean()"))
    zero = ["opt.zero_grad()"]
    first, last = (zero, []) if rng.random() < 0.6 else ([], zero)
    split = rng.random() < 0.25 and "out" not in loss
    end = [f"({loss}).backward()", "(2.0 * penalty).backward()"] if split else [f"loss = {loss} + 5 * penalty", "loss.backward()"]
    log = ["log = penalty.item()"] if rng.random() < 0.3 else []
    return [*first, where, "out = net(at)", gradient, penalty, *end, *log, "opt.step()", *last]
