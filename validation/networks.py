"""Torch twins of the built-in networks that torchvision does not have: ordinary modules, as one writes them, for measuring.

Parameters have the names and the order of ``memest.models``; ``from_torch`` of a twin and the built-in take the same bytes.
"""

# mypy: disable-error-code="misc,no-any-return"

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
AVG_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


def double_conv(dims: int, inside: int, outside: int, bias: bool, inplace: bool) -> nn.Sequential:
    """(Convolution, batch norm, ReLU) twice."""
    norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=CONV[dims](inside, outside, 3, padding=1, bias=bias),
            norm1=norm(outside),
            relu1=nn.ReLU(inplace),
            conv2=CONV[dims](outside, outside, 3, padding=1, bias=bias),
            norm2=norm(outside),
            relu2=nn.ReLU(inplace),
        )
    )


class UNet3d(nn.Module):
    """The 3D U-Net of IntelAI/unet."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_filters: int = 16, levels: int = 5, inplace: bool = True) -> None:
        super().__init__()
        widths = [base_filters * 2**i for i in range(levels)]
        self.encoder = nn.ModuleList(double_conv(3, i, o, True, inplace) for i, o in zip([in_channels, *widths], widths, strict=False))
        upward = widths[-2::-1] if levels > 1 else []
        self.pool = nn.ModuleList(nn.MaxPool3d(2) for _ in upward)
        self.up = nn.ModuleList(nn.ConvTranspose3d(2 * w, w, 2, stride=2) for w in upward)
        self.decoder = nn.ModuleList(double_conv(3, 2 * w, w, True, inplace) for w in upward)
        self.head = nn.Conv3d(base_filters, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for level, encoder in enumerate(self.encoder):
            x = encoder(x)
            if level < len(self.pool):
                skips.append(x)
                x = self.pool[level](x)
        for up, decoder in zip(self.up, self.decoder, strict=True):
            x = up(x)
            x = torch.cat([skips.pop(), x], 1)
            x = decoder(x)
        return torch.sigmoid(self.head(x))


class UNet2d(nn.Module):
    """The U-Net for images."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 2,
        base_filters: int = 64,
        levels: int = 5,
        bilinear: bool = False,
        inplace: bool = True,
    ) -> None:
        super().__init__()
        widths = [base_filters * 2**i for i in range(levels)]
        self.encoder = nn.ModuleList(double_conv(2, i, o, False, inplace) for i, o in zip([in_channels, *widths], widths, strict=False))
        upward = widths[-2::-1] if levels > 1 else []
        self.pool = nn.ModuleList(nn.MaxPool2d(2) for _ in upward)
        joined = 3 if bilinear else 2
        self.up = nn.ModuleList(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True) if bilinear else nn.ConvTranspose2d(2 * w, w, 2, stride=2)
            for w in upward
        )
        self.decoder = nn.ModuleList(double_conv(2, joined * w, w, False, inplace) for w in upward)
        self.head = nn.Conv2d(base_filters, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for level, encoder in enumerate(self.encoder):
            x = encoder(x)
            if level < len(self.pool):
                skips.append(x)
                x = self.pool[level](x)
        for up, decoder in zip(self.up, self.decoder, strict=True):
            x = up(x)
            x = torch.cat([skips.pop(), x], 1)
            x = decoder(x)
        return self.head(x)


# V-Net -------------------------------------------------------------------------------------------------------------------


def _activation(name: str, channels: int) -> nn.Module:
    return nn.PReLU(channels) if name == "prelu" else nn.ELU(inplace=True)


def _dropout(p: float) -> nn.Module:
    return nn.Dropout3d(p) if p else nn.Identity()


class VNetConv(nn.Module):
    """A 5x5x5 convolution that keeps the channels."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm3d(channels)
        self.act = _activation(activation, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class VNetFirst(nn.Module):
    """The first stage: its input is repeated to as many channels as are added to it."""

    def __init__(self, inside: int, outside: int, activation: str) -> None:
        super().__init__()
        self.repeats = outside // inside
        self.conv = nn.Conv3d(inside, outside, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm3d(outside)
        self.act = _activation(activation, outside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm(self.conv(x))
        return self.act(out + x.repeat(1, self.repeats, 1, 1, 1))


class VNetDown(nn.Module):
    """Half the size, twice the channels, residual convolutions."""

    def __init__(self, inside: int, convolutions: int, activation: str, dropout: float) -> None:
        super().__init__()
        outside = 2 * inside
        self.down = nn.Conv3d(inside, outside, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm3d(outside)
        self.act1 = _activation(activation, outside)
        self.dropout = _dropout(dropout)
        self.convs = nn.Sequential(*(VNetConv(outside, activation) for _ in range(convolutions)))
        self.act2 = _activation(activation, outside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        down = self.act1(self.norm(self.down(x)))
        out = self.dropout(down)
        out = self.convs(out)
        return self.act2(out + down)


class VNetUp(nn.Module):
    """Twice the size, the encoder's stage beside it, residual convolutions."""

    def __init__(self, inside: int, outside: int, convolutions: int, activation: str, dropout: float, skip_dropout: float) -> None:
        super().__init__()
        self.dropout = _dropout(dropout)
        self.skip_dropout = _dropout(skip_dropout)
        self.up = nn.ConvTranspose3d(inside, outside // 2, 2, stride=2)
        self.norm = nn.BatchNorm3d(outside // 2)
        self.act1 = _activation(activation, outside // 2)
        self.convs = nn.Sequential(*(VNetConv(outside, activation) for _ in range(convolutions)))
        self.act2 = _activation(activation, outside)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.dropout(x)
        skip = self.skip_dropout(skip)
        x = self.act1(self.norm(self.up(x)))
        joined = torch.cat([x, skip], 1)
        out = self.convs(joined)
        return self.act2(out + joined)


class VNetLast(nn.Module):
    """The segmentation from the last stage."""

    def __init__(self, inside: int, outside: int, activation: str) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inside, outside, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm3d(outside)
        self.act = _activation(activation, outside)
        self.head = nn.Conv3d(outside, outside, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.norm(self.conv(x))))


class VNet(nn.Module):
    """V-Net with batch norm."""

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, base_filters: int = 16, activation: str = "elu", dropout: float = 0.5
    ) -> None:
        super().__init__()
        f, a, p = base_filters, activation, dropout
        self.first = VNetFirst(in_channels, f, a)
        self.downs = nn.ModuleList([VNetDown(f, 1, a, 0), VNetDown(2 * f, 2, a, 0), VNetDown(4 * f, 3, a, p), VNetDown(8 * f, 2, a, p)])
        self.ups = nn.ModuleList(
            [
                VNetUp(16 * f, 16 * f, 2, a, p, p),
                VNetUp(16 * f, 8 * f, 2, a, p, p),
                VNetUp(8 * f, 4 * f, 1, a, 0, p),
                VNetUp(4 * f, 2 * f, 1, a, 0, p),
            ]
        )
        self.last = VNetLast(2 * f, out_channels, a)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        x = self.first(x)
        for down in self.downs:
            skips.append(x)
            x = down(x)
        for up in self.ups:
            x = up(x, skips.pop())
        return self.last(x)


# nnU-Net -----------------------------------------------------------------------------------------------------------------

PerStage = int | Sequence[Any]


def _per_stage(value: PerStage, number: int) -> list[Any]:
    return [value] * number if isinstance(value, int) else list(value)


def _axes(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


class ConvNormNonlin(nn.Module):
    """Convolution, instance norm and, unless left out, LeakyReLU."""

    def __init__(self, dims: int, inside: int, outside: int, kernel: Any, stride: Any, bias: bool = True, nonlin: bool = True) -> None:
        super().__init__()
        kernel = _axes(kernel, dims)
        self.conv = CONV[dims](inside, outside, kernel, _axes(stride, dims), tuple((k - 1) // 2 for k in kernel), bias=bias)
        self.norm = INSTANCE_NORM[dims](outside, eps=1e-5, affine=True)
        parts: list[nn.Module] = [self.conv, self.norm]
        if nonlin:
            self.nonlin = nn.LeakyReLU(inplace=True)
            parts.append(self.nonlin)
        self.all_modules = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.all_modules(x)


class StackedConvs(nn.Module):
    """A stage of plain convolutions, the first strided."""

    def __init__(self, dims: int, number: int, inside: int, outside: int, kernel: Any, stride: Any) -> None:
        super().__init__()
        rest = [ConvNormNonlin(dims, outside, outside, kernel, 1) for _ in range(number - 1)]
        self.convs = nn.Sequential(ConvNormNonlin(dims, inside, outside, kernel, stride), *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x)


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity, pooled and projected where it has to be."""

    def __init__(self, dims: int, inside: int, outside: int, kernel: Any, stride: Any) -> None:
        super().__init__()
        self.conv1 = ConvNormNonlin(dims, inside, outside, kernel, stride)
        self.conv2 = ConvNormNonlin(dims, outside, outside, kernel, 1, nonlin=False)
        self.nonlin2 = nn.LeakyReLU(inplace=True)
        steps: list[nn.Module] = []
        if any(s != 1 for s in _axes(stride, dims)):
            steps.append(AVG_POOL[dims](_axes(stride, dims), _axes(stride, dims)))
        if inside != outside:
            steps.append(ConvNormNonlin(dims, inside, outside, 1, 1, bias=False, nonlin=False))
        self.skip = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.skip(x)
        out = self.conv2(self.conv1(x))
        out += residual
        return self.nonlin2(out)


class StackedResidualBlocks(nn.Module):
    """A stage of residual blocks, the first strided."""

    def __init__(self, dims: int, number: int, inside: int, outside: int, kernel: Any, stride: Any) -> None:
        super().__init__()
        rest = [ResidualBlock(dims, outside, outside, kernel, 1) for _ in range(number - 1)]
        self.blocks = nn.Sequential(ResidualBlock(dims, inside, outside, kernel, stride), *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class Encoder(nn.Module):
    """A stem, if there is one, and the stages; returns what every stage gives."""

    def __init__(self, stem: nn.Module | None, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        if self.stem is not None:
            x = self.stem(x)
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class Decoder(nn.Module):
    """Back up through the stages; every stage owns a segmentation layer, called with deep supervision or at full size."""

    def __init__(
        self,
        dims: int,
        features: Sequence[int],
        kernels: Sequence[Any],
        strides: Sequence[Any],
        convs: Sequence[int],
        classes: int,
        deep: bool,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep
        upward = [(features[-s], features[-s - 1], kernels[-s - 1], _axes(strides[-s], dims)) for s in range(1, len(features))]
        self.stages = nn.ModuleList(StackedConvs(dims, n, 2 * skip, skip, k, 1) for n, (_, skip, k, _) in zip(convs, upward, strict=True))
        self.transpconvs = nn.ModuleList(CONV_TRANSPOSE[dims](below, skip, stride, stride) for below, skip, _, stride in upward)
        self.seg_layers = nn.ModuleList(CONV[dims](skip, classes, 1) for _, skip, _, _ in upward)

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        below = skips[-1]
        outputs = []
        for s, stage in enumerate(self.stages):
            x = self.transpconvs[s](below)
            x = torch.cat((x, skips[-(s + 2)]), 1)
            x = stage(x)
            if self.deep_supervision or s == len(self.stages) - 1:
                outputs.append(self.seg_layers[s](x))
            below = x
        outputs = outputs[::-1]
        return outputs if self.deep_supervision else outputs[0]


class PlainConvUNet(nn.Module):
    """nnU-Net's network of plain convolutions."""

    def __init__(
        self,
        input_channels: int = 1,
        num_classes: int = 2,
        dims: int = 3,
        features_per_stage: Sequence[int] = (32, 64, 128, 256, 320, 320),
        kernel_sizes: PerStage = 3,
        strides: Sequence[Any] | None = None,
        n_conv_per_stage: PerStage = 2,
        n_conv_per_stage_decoder: PerStage = 2,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        features, number = list(features_per_stage), len(features_per_stage)
        kernels, steps = _per_stage(kernel_sizes, number), list(strides or [1, *[2] * (number - 1)])
        down, up = _per_stage(n_conv_per_stage, number), _per_stage(n_conv_per_stage_decoder, number - 1)
        widths = zip([input_channels, *features], features, strict=False)
        stages = [nn.Sequential(StackedConvs(dims, down[s], i, o, kernels[s], steps[s])) for s, (i, o) in enumerate(widths)]
        self.encoder = Encoder(None, stages)
        self.decoder = Decoder(dims, features, kernels, steps, up, num_classes, deep_supervision)

    def forward(self, x: torch.Tensor) -> Any:
        skips = self.encoder(x)
        return self.decoder(skips)


class ResidualEncoderUNet(nn.Module):
    """nnU-Net's network with a residual encoder."""

    def __init__(
        self,
        input_channels: int = 1,
        num_classes: int = 2,
        dims: int = 3,
        features_per_stage: Sequence[int] = (32, 64, 128, 256, 320, 320),
        kernel_sizes: PerStage = 3,
        strides: Sequence[Any] | None = None,
        n_blocks_per_stage: PerStage | None = None,
        n_conv_per_stage_decoder: PerStage = 1,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        features, number = list(features_per_stage), len(features_per_stage)
        kernels, steps = _per_stage(kernel_sizes, number), list(strides or [1, *[2] * (number - 1)])
        planned = [1, 3, 4, *[6] * number][:number]
        blocks = planned if n_blocks_per_stage is None else _per_stage(n_blocks_per_stage, number)
        up = _per_stage(n_conv_per_stage_decoder, number - 1)
        widths = zip([features[0], *features], features, strict=False)
        stages = [StackedResidualBlocks(dims, blocks[s], i, o, kernels[s], steps[s]) for s, (i, o) in enumerate(widths)]
        self.encoder = Encoder(StackedConvs(dims, 1, input_channels, features[0], kernels[0], 1), stages)
        self.decoder = Decoder(dims, features, kernels, steps, up, num_classes, deep_supervision)

    def forward(self, x: torch.Tensor) -> Any:
        skips = self.encoder(x)
        return self.decoder(skips)


TWINS: dict[str, type[nn.Module]] = {
    "unet3d": UNet3d,
    "unet2d": UNet2d,
    "vnet": VNet,
    "plain_conv_unet": PlainConvUNet,
    "residual_encoder_unet": ResidualEncoderUNet,
}
