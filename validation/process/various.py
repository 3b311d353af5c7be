"""A network of many operators, for recording what each asks of malloc besides its tensors; no network that is measured is like it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = (
    nn.ReLU(),
    nn.GELU(),
    nn.SiLU(),
    nn.Sigmoid(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.ELU(),
    nn.LeakyReLU(),
    nn.PReLU(),
    nn.Tanh(),
)


class Various(nn.Module):
    """Convolutions of either kind, norms, activations, pooling, resizing, attention: each once or twice, for images or volumes."""

    def __init__(self, dims: int = 2, width: int = 16, classes: int = 4) -> None:
        super().__init__()
        conv, up = (nn.Conv2d, nn.ConvTranspose2d) if dims == 2 else (nn.Conv3d, nn.ConvTranspose3d)
        norms = (nn.BatchNorm2d, nn.InstanceNorm2d) if dims == 2 else (nn.BatchNorm3d, nn.InstanceNorm3d)
        self.dims = dims
        self.first = conv(3, width, 3, padding=1)
        self.plain = nn.ModuleList(conv(width, width, 3, padding=1, bias=n % 2 == 0) for n in range(3))
        self.grouped = conv(width, width, 3, padding=1, groups=4, bias=False)
        self.depthwise = conv(width, width, 3, padding=1, groups=width, bias=False)
        self.strided = conv(width, width, 3, padding=1, stride=2, bias=False)
        self.pointwise = conv(width, width, 1, bias=False)
        self.norms = nn.ModuleList(
            (norms[0](width), norms[1](width, affine=True), norms[1](width), nn.GroupNorm(4, width), norms[0](width), norms[0](width))
        )
        self.activations = nn.ModuleList(ACTIVATIONS)
        self.up = up(width, width, 2, stride=2)
        self.layer_norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.first(x)
        for n, conv in enumerate(self.plain):
            x = self.activations[0](self.norms[n](conv(x)))
        for activation in self.activations:
            x = activation(x)
        x = F.relu(self.norms[3](self.grouped(x)), inplace=True)
        x = F.relu6(self.norms[4](self.depthwise(x)), inplace=True)
        skip = x
        x = self.strided(x)
        pool = F.max_pool2d if self.dims == 2 else F.max_pool3d
        average = F.avg_pool2d if self.dims == 2 else F.avg_pool3d
        x = x + pool(skip, 2) * 0.5
        x = x + average(skip, 2)
        x = self.up(x)
        x = torch.cat([x, skip], 1)[:, : skip.shape[1]]
        x = self.norms[5](self.pointwise(x)) + skip
        x = F.interpolate(F.interpolate(x, scale_factor=2), scale_factor=0.5)
        x = F.dropout(x, 0.2, self.training)
        gate = x.mean(tuple(range(2, x.dim())), keepdim=True)
        x = x * torch.sigmoid(gate)
        first, second = x.chunk(2, 1)
        x = torch.cat([first * 2, second], 1)
        tokens = x.flatten(2).transpose(1, 2)[:, :64]
        tokens = tokens + self.narrow(F.gelu(self.wide(self.layer_norm(tokens))))
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        tokens = torch.softmax(tokens, -1).permute(0, 2, 1).contiguous()
        return self.head(tokens.mean(-1))
