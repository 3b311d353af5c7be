"""Tiny torch networks, one habit of real ones each, and a custom function; imported by tests that need torch."""

# mypy: disable-error-code="misc,no-any-return"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Square(torch.autograd.Function):
    """Keeps its argument, and asks for it in backward."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Plain(nn.Sequential):
    """Convolution, batch norm, in-place ReLU, pooling, a classifier."""

    def __init__(self) -> None:
        first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        super().__init__(
            first, nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        )


class Residual(nn.Module):
    """A value with two readers: gradients meet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.body(x)
        y += x
        return self.head((y + self.body(y)).mean((2, 3)))


class Skip(nn.Module):
    """An encoder and a decoder: what the caller's frame holds, ``cat`` and sizes read off a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down(x)
        y = self.up(self.deep(nn.functional.max_pool2d(skip, 2)))
        y = nn.functional.interpolate(y, size=skip.shape[2:], mode="bilinear", align_corners=False)
        return self.out(torch.cat([skip, y], 1))


class Shared(nn.Module):
    """One module called twice: its gradients are added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(torch.relu(self.norm(self.conv(x))))).mean((2, 3))


class Frozen(nn.Module):
    """A stem without gradients, a frozen layer in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.middle = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.stem.requires_grad_(False)
        self.middle.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.middle(self.first(self.stem(x)).relu()).mean((2, 3))


class Heads(nn.Module):
    """Several outputs, as segmentation networks give them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, padding=1)
        self.aux, self.main = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.body(x)
        return {"aux": self.aux(x), "out": self.main(x)}


class Shuffle(nn.Module):
    """Views and copies: reshaped by sizes that were read, transposed, chunked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        a, b = x.chunk(2, 1)
        return (a * b.sigmoid()).flatten(1)


class Volume(nn.Sequential):
    """Three spatial dims, instance norm, a leaky activation."""

    def __init__(self) -> None:
        first, last = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1)
        super().__init__(first, nn.InstanceNorm3d(4, affine=True), nn.LeakyReLU(inplace=True), nn.Dropout(0.5), last)


class Signal(nn.Sequential):
    """One spatial dim, groups, layer norm."""

    def __init__(self) -> None:
        super().__init__(nn.Conv1d(4, 8, 5, groups=2), nn.GELU(), nn.LayerNorm(28), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(112, 3))


class Branches(nn.Module):
    """Branches of different length that meet: backward runs them by sequence number."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.short = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.middle, self.long, self.end = nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(4, 7, 1), nn.Conv2d(7, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        long = self.end(self.long(x).sigmoid())
        return torch.cat([self.short(x), self.middle(x).tanh(), long], 1).mean((2, 3))


class Doubled(nn.Module):
    """One gradient handed to several takers: it may be neither added to in place nor taken over."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.left, self.right = (nn.Parameter(torch.rand(2, 4)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = (x + x).mean((2, 3))
        return x * (self.left + self.right)[:1]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (Plain, (2, 3, 14, 10)),
    "residual": (Residual, (2, 3, 15, 11)),
    "skip": (Skip, (2, 3, 17, 12)),
    "shared": (Shared, (2, 3, 9, 8)),
    "frozen": (Frozen, (2, 3, 9, 8)),
    "heads": (Heads, (2, 3, 9, 8)),
    "shuffle": (Shuffle, (2, 4, 6, 8)),
    "volume": (Volume, (2, 1, 6, 7, 8)),
    "signal": (Signal, (2, 4, 32)),
    "branches": (Branches, (2, 3, 9, 8)),
    "doubled": (Doubled, (2, 3, 9, 8)),
}
OTHER_SIZES: dict[str, tuple[int, ...]] = {
    "plain": (5, 3, 20, 33),
    "residual": (3, 3, 8, 21),
    "skip": (1, 3, 22, 31),
    "shared": (4, 3, 5, 6),
    "frozen": (1, 3, 12, 7),
    "heads": (3, 3, 11, 5),
    "shuffle": (3, 4, 5, 7),
    "volume": (1, 1, 9, 8, 5),
    "signal": (7, 4, 32),
    "branches": (1, 3, 5, 11),
    "doubled": (5, 3, 4, 4),
}


def built(name: str) -> tuple[Any, tuple[int, ...]]:
    """A network and its example's shape."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    return make(), shape
