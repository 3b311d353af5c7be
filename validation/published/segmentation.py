"""mmsegmentation 0.x's networks, with their losses: FCN, PSPNet and DeepLabv3 heads on a dilated ResNet or on a U-Net.

Batch norm stands for SyncBN, which keeps the same large tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from validation.published.blocks import Residual, unit, units

Maps = Sequence[torch.Tensor]
DEPTHS = {18: ((2, 2, 2, 2), 1), 50: ((3, 4, 6, 3), 4), 101: ((3, 4, 23, 3), 4)}  # blocks of the stages, and how far they widen
SCALES = (1, 2, 3, 6)
RATES = (1, 12, 24, 36)
IGNORED = 255


class ResNetV1c(nn.Module):
    """Three 3x3 convolutions as a stem; strides 1, 2, 1, 1 and dilations 1, 1, 2, 4, of which a stage's first block has half. Gives the
    maps of all stages."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        numbers, widening = DEPTHS[depth]
        self.stem = nn.Sequential(unit(2, 3, 32, 3, 2, 1), unit(2, 32, 32, 3, 1, 1), unit(2, 32, 64, 3, 1, 1), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        inputs = 64
        for stage, (number, stride, dilation) in enumerate(zip(numbers, (1, 2, 1, 1), (1, 1, 2, 4), strict=True)):
            width, outputs = 64 << stage, widening * (64 << stage)
            blocks: list[nn.Module] = []
            for block in range(number):
                step, rate = (stride, max(dilation // 2, 1)) if block == 0 else (1, dilation)
                middle = unit(2, width if widening > 1 else inputs, width, 3, step, rate, rate)
                if widening > 1:
                    body = nn.Sequential(unit(2, inputs, width, 1), middle, unit(2, width, outputs, 1, act=False))
                else:
                    body = nn.Sequential(middle, unit(2, width, outputs, 3, 1, 1, act=False))
                projected = block == 0 and (step > 1 or inputs != outputs)
                blocks.append(Residual(body, unit(2, inputs, outputs, 1, step, act=False) if projected else None, inplace=True))
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> Maps:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class UNet(nn.Module):
    """UNet-S5-D16: two 3x3 units a stage, max pools; up by bilinear interpolation and a 1x1 unit, the skip first in the cat. Gives the
    bottom's map and those of the decoder."""

    WIDTHS = (64, 128, 256, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([units(3, 64, 2)])
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        for above, width in zip(self.WIDTHS, self.WIDTHS[1:], strict=False):
            self.encoder.append(nn.Sequential(nn.MaxPool2d(2), units(above, width, 2)))
            upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            self.up.append(nn.Sequential(upsample, unit(2, width, above, 1)))
            self.merge.append(units(2 * above, above, 2))

    def forward(self, x: torch.Tensor) -> Maps:
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        maps = [x]
        for number in reversed(range(len(self.up))):
            x = self.merge[number](torch.cat([skips[number], self.up[number](x)], 1))
            maps.append(x)
        return maps


class Head(nn.Module):
    """Scores of the map number ``index``: dropout of channels, then a 1x1 convolution, after what a kind of head does before."""

    def __init__(self, index: int, width: int, classes: int) -> None:
        super().__init__()
        self.index = index
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the classifier sees."""
        raise NotImplementedError

    def forward(self, maps: Maps) -> torch.Tensor:
        return self.classifier(self.dropout(self.features(maps[self.index])))


class FcnHead(Head):
    """3x3 units; ``concat`` joins them with what they saw, and adds one more."""

    def __init__(self, inputs: int, index: int, width: int, classes: int, *, convolutions: int, concat: bool) -> None:
        super().__init__(index, width, classes)
        self.convolutions = units(inputs, width, convolutions)
        self.joint = units(inputs + width, width, 1) if concat else None

    def features(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convolutions(x)
        return y if self.joint is None else self.joint(torch.cat([x, y], 1))


class PspHead(Head):
    """Means over 1, 4, 9 and 36 regions, each through a 1x1 unit and up again, joined with the map."""

    def __init__(self, inputs: int, index: int, width: int, classes: int) -> None:
        super().__init__(index, width, classes)
        self.pools = nn.ModuleList([nn.Sequential(nn.AdaptiveAvgPool2d(n), unit(2, inputs, width, 1)) for n in SCALES])
        self.bottleneck = units(inputs + len(SCALES) * width, width, 1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.bottleneck(torch.cat([x, *[resized(pool(x), x.shape[2:]) for pool in self.pools]], 1))


class AsppHead(Head):
    """The mean of the whole map and four convolutions of different dilation, joined."""

    def __init__(self, inputs: int, index: int, width: int, classes: int) -> None:
        super().__init__(index, width, classes)
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), unit(2, inputs, width, 1))
        self.branches = nn.ModuleList(
            [unit(2, inputs, width, 1 if r == 1 else 3, 1, 0 if r == 1 else r, r) for r in RATES],
        )
        self.bottleneck = units((len(RATES) + 1) * width, width, 1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        outs = [resized(self.image(x), x.shape[2:])]
        outs.extend([branch(x) for branch in self.branches])
        return self.bottleneck(torch.cat(outs, 1))


def resized(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bilinear, corners not aligned."""
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def accuracy(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """How many labels the best class meets."""
    label = scores.topk(1, dim=1)[1].transpose(0, 1)
    return label.eq(target.unsqueeze(0)).reshape(-1).float().sum(0, keepdim=True)


class Segmentor(nn.Module):
    """Called with images and labels; gives the loss (the auxiliary head's counts 0.4) and both heads' accuracy."""

    def __init__(self, body: nn.Module, head: Head, auxiliary: Head) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.auxiliary = auxiliary

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps = self.body(images)
        loss, met = _judged(self.head, maps, labels, 1.0)
        other, met_too = _judged(self.auxiliary, maps, labels, 0.4)
        return loss + other, met, met_too


def _judged(head: Callable[[Maps], torch.Tensor], maps: Maps, labels: torch.Tensor, weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    scores = resized(head(maps), labels.shape[1:])
    loss = weight * functional.cross_entropy(scores, labels, reduction="none", ignore_index=IGNORED).mean()
    return loss, accuracy(scores, labels)
