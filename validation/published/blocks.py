"""What the networks of mmaction2 0.x and mmsegmentation 0.x are made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

Size = int | Sequence[int]
CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def unit(
    dims: int,
    inputs: int,
    outputs: int,
    kernel: Size,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    *,
    norm: bool = True,
    act: bool = True,
) -> nn.Sequential:
    """``ConvModule``: convolution (with a bias where no norm follows), batch norm, ReLU in place."""
    layers: list[nn.Module] = [CONVOLUTIONS[dims](inputs, outputs, kernel, stride, padding, dilation, bias=not norm)]
    if norm:
        layers.append(NORMS[dims](outputs))
    if act:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def units(inputs: int, outputs: int, number: int) -> nn.Sequential:
    """So many 3x3 units in a row."""
    return nn.Sequential(*(unit(2, a, b, 3, 1, 1) for a, b in pairwise((inputs, *[outputs] * number))))


class Residual(nn.Module):
    """A body and a shortcut beside it (projected where that is given), added (``inplace``: into the body's result), ReLU in place."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None, *, inplace: bool) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.relu = nn.ReLU(inplace=True)
        self.inplace = inplace

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.body(x)
        identity = x if self.shortcut is None else self.shortcut(x)
        if self.inplace:
            out += identity
        else:
            out = out + identity
        return self.relu(out)
