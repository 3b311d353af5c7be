"""nnU-Net's ResidualEncoderUNet: a U-Net whose encoder is a stem and stages of residual blocks.

Source: dynamic-network-architectures 0.4, architectures/unet.py (ResidualEncoderUNet), building_blocks/{residual,residual_encoders}.py
with BasicBlockD; defaults are those of nnU-Net's ResEnc plans for a volume. The torch twin is ``validation.networks.ResidualEncoderUNet``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memest.network.graph import Graph
from memest.sources.builder import Builder, Node
from memest.sources.models.nnunet import USUAL, PerAxis, Stages, Style, conv_norm, decoder, stacked

BLOCKS = (1, 3, 4, 6, 6, 6)


def residual_encoder_unet(
    *,
    input_channels: int = 1,
    num_classes: int = 2,
    dims: int = 3,
    features_per_stage: Sequence[int] = (32, 64, 128, 256, 320, 320),
    kernel_sizes: PerAxis | Sequence[PerAxis] = 3,
    strides: Sequence[PerAxis] | None = None,
    n_blocks_per_stage: int | Sequence[int] | None = None,
    n_conv_per_stage_decoder: int | Sequence[int] = 1,
    deep_supervision: bool = False,
    stem_channels: int | None = None,
    style: Style = USUAL,
) -> Graph:
    """Input (N, input_channels, [D,] H, W), each size a multiple of its strides' product; output (N, num_classes, [D,] H, W), with
    ``deep_supervision`` followed by those of the smaller stages. ``strides`` left out: 1, then 2 for every further stage;
    ``n_blocks_per_stage`` left out: 1, 3, 4, then 6, as nnU-Net plans them.

    Options of a stage are one number for all or one entry a stage; an entry is a number or one per axis. UsageError when the counts
    do not fit.
    """
    stages = Stages("residual_encoder_unet", dims, features_per_stage, kernel_sizes, strides, style)
    if n_blocks_per_stage is None:
        n_blocks_per_stage = tuple(BLOCKS[min(s, len(BLOCKS) - 1)] for s in range(len(stages)))
    blocks = stages.per_stage("n_blocks_per_stage", n_blocks_per_stage)
    up = stages.per_stage("n_conv_per_stage_decoder", n_conv_per_stage_decoder, less=1)
    b = stages.builder()
    x = stages.input(b, input_channels)
    x = stacked(b, x, "encoder.stem", 1, stem_channels or stages.features[0], stages.kernel_sizes[0], (1,) * dims, style)
    skips = []
    for s, features in enumerate(stages.features):
        with b.module(f"encoder.stages.{s}.blocks", x):
            for n in range(blocks[s]):
                with b.module(str(n), x):
                    x = _basic_block(b, x, features, stages.kernel_sizes[s], stages.strides[s] if n == 0 else (1,) * dims, style)
        skips.append(x)
    return b.build(*decoder(b, skips, stages, up, num_classes, deep_supervision))


def _basic_block(b: Builder, x: Node, features: int, kernel_size: tuple[int, ...], stride: tuple[int, ...], style: Style) -> Node:
    """BasicBlockD: two convolutions beside the identity, which is pooled and projected where the shapes differ. The skip comes first."""
    b.register("conv1", "conv2", "skip")
    ones = (1,) * len(stride)
    second = replace(style, dropout=None, nonlin=None)
    residual = x
    with b.module("skip", x):
        if stride != ones:
            residual = b.layer(f"avg_pool{len(stride)}d", residual, name="0", kernel_size=stride, stride=stride)
        if x.shape[1] != features:
            residual = conv_norm(b, residual, "0" if stride == ones else "1", features, ones, ones, replace(second, bias=False))
    with b.holding(residual):
        out = conv_norm(b, x, "conv1", features, kernel_size, stride, replace(style, nonlin_first=False))
        out = conv_norm(b, out, "conv2", features, kernel_size, ones, second)
        joined: Node = b.layer("add", out, residual, inplace=True)
        if style.nonlin is not None:
            joined = b.layer(style.nonlin.op, joined, name="nonlin2", **dict(style.nonlin.attributes))
    return joined
