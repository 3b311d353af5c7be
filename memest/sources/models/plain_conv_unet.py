"""nnU-Net's PlainConvUNet: a U-Net of plain convolutions, strided where it goes down.

Source: dynamic-network-architectures 0.4, architectures/unet.py (PlainConvUNet); defaults are those of nnU-Net's plans for a volume.
The torch twin is ``validation.networks.PlainConvUNet``.
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.network.graph import Graph
from memest.sources.models.nnunet import USUAL, PerAxis, Stages, Style, decoder, stacked


def plain_conv_unet(
    *,
    input_channels: int = 1,
    num_classes: int = 2,
    dims: int = 3,
    features_per_stage: Sequence[int] = (32, 64, 128, 256, 320, 320),
    kernel_sizes: PerAxis | Sequence[PerAxis] = 3,
    strides: Sequence[PerAxis] | None = None,
    n_conv_per_stage: int | Sequence[int] = 2,
    n_conv_per_stage_decoder: int | Sequence[int] = 2,
    deep_supervision: bool = False,
    style: Style = USUAL,
) -> Graph:
    """Input (N, input_channels, [D,] H, W), each size a multiple of its strides' product; output (N, num_classes, [D,] H, W), with
    ``deep_supervision`` followed by those of the smaller stages. ``strides`` left out: 1, then 2 for every further stage.

    Options of a stage are one number for all or one entry a stage; an entry is a number or one per axis. UsageError when the counts
    do not fit.
    """
    stages = Stages("plain_conv_unet", dims, features_per_stage, kernel_sizes, strides, style)
    down = stages.per_stage("n_conv_per_stage", n_conv_per_stage)
    up = stages.per_stage("n_conv_per_stage_decoder", n_conv_per_stage_decoder, less=1)
    b = stages.builder()
    x = stages.input(b, input_channels)
    skips = []
    for s, features in enumerate(stages.features):
        with b.module(f"encoder.stages.{s}", x):
            x = stacked(b, x, "0", down[s], features, stages.kernel_sizes[s], stages.strides[s], style)
        skips.append(x)
    return b.build(*decoder(b, skips, stages, up, num_classes, deep_supervision))
