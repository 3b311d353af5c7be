"""mmaction2 0.x's recognizers: TSN (frames, one by one), SlowOnly and I3D (inflated ResNets), C3D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from validation.published.blocks import Residual, unit

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def resnet(depth: int, channels: int) -> nn.Sequential:
    """torchvision's ResNet of bottlenecks up to its last stage, strided in the 3x3 convolution."""
    layers: list[nn.Module] = [unit(2, channels, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, number in enumerate(DEPTHS[depth]):
        width = 64 << stage
        for block in range(number):
            stride = 2 if block == 0 and stage > 0 else 1
            body = nn.Sequential(unit(2, inputs, width, 1), unit(2, width, width, 3, stride, 1), unit(2, width, 4 * width, 1, act=False))
            shortcut = unit(2, inputs, 4 * width, 1, stride, act=False) if block == 0 else None
            layers.append(Residual(body, shortcut, inplace=True))
            inputs = 4 * width
    return nn.Sequential(*layers)


class Tsn(nn.Module):
    """A ResNet on every frame of a clip; what its pool gives is averaged over the clip."""

    def __init__(self, depth: int, segments: int, classes: int, channels: int) -> None:
        super().__init__()
        self.segments = segments
        self.body = resnet(depth, channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.4)
        self.classifier = nn.Linear(2048, classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Scores of clips (N, segments, C, H, W)."""
        x = self.pool(self.body(frames.flatten(0, 1)))
        x = x.reshape(-1, self.segments, *x.shape[1:]).mean(1)
        return self.classifier(self.dropout(x.flatten(1)))


class ResNet3d(nn.Module):
    """A ResNet whose 1x1 convolutions see three frames where ``inflate`` says so, stage by stage or block by block; space is strided in
    the 1x3x3 convolution. ``pool2`` halves time after the first stage (I3D)."""

    def __init__(
        self,
        depth: int,
        classes: int,
        *,
        kernel: Sequence[int],
        stride_t: int,
        pool_t: int,
        inflate: Sequence[int | Sequence[int]],
        pool2: bool,
    ) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel)
        self.stem = unit(3, 3, 64, tuple(kernel), (stride_t, 2, 2), padding)
        self.pool1 = nn.MaxPool3d((1, 3, 3), (pool_t, 2, 2), (0, 1, 1))
        self.pool2 = nn.MaxPool3d((2, 1, 1), (2, 1, 1)) if pool2 else None
        self.stages = nn.ModuleList()
        inputs = 64
        for stage, number in enumerate(DEPTHS[depth]):
            given = inflate[stage]
            tall = (given,) * number if isinstance(given, int) else given
            blocks = [_block(inputs if block == 0 else 256 << stage, 64 << stage, stage, block, tall[block]) for block in range(number)]
            inputs = 256 << stage
            self.stages.append(nn.Sequential(*blocks))
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Scores of clips (N, 1, C, T, H, W)."""
        x = self.pool1(self.stem(clips.flatten(0, 1)))
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number == 0 and self.pool2 is not None:
                x = self.pool2(x)
        return self.classifier(self.dropout(self.pool(x)).flatten(1))


def _block(inputs: int, width: int, stage: int, number: int, tall: int) -> Residual:
    stride = (1, 2, 2) if number == 0 and stage > 0 else (1, 1, 1)
    first = unit(3, inputs, width, (3, 1, 1), 1, (1, 0, 0)) if tall else unit(3, inputs, width, 1)
    body = nn.Sequential(first, unit(3, width, width, (1, 3, 3), stride, (0, 1, 1)), unit(3, width, 4 * width, 1, act=False))
    return Residual(body, unit(3, inputs, 4 * width, 1, stride, act=False) if number == 0 else None, inplace=False)


class C3d(nn.Module):
    """Eight 3x3x3 convolutions with biases, without norms; the first of five pools leaves time alone."""

    STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage, widths in enumerate(self.STAGES):
            for width in widths:
                layers.append(unit(3, inputs, width, 3, 1, 1, norm=False))
                inputs = width
            size = (1, 2, 2) if stage == 0 else (2, 2, 2)
            layers.append(nn.MaxPool3d(size, size, (0, 1, 1) if stage == 4 else 0))
        self.body = nn.Sequential(*layers)
        self.fc6 = nn.Linear(8192, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.classifier = nn.Linear(4096, classes)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.5)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Scores of clips (N, 1, 3, 16, 112, 112)."""
        x = self.body(clips.flatten(0, 1)).flatten(1)
        x = self.dropout(self.relu(self.fc6(x)))
        x = self.dropout(self.relu(self.fc7(x)))
        return self.classifier(x)
