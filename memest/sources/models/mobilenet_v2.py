"""MobileNetV2 as torchvision builds it (torchvision/models/mobilenetv2.py).

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
"""

from __future__ import annotations

from memest.network.graph import Graph
from memest.sources.builder import Builder, Node

# expansion, channels, repeats, stride of the first
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(*, num_classes: int = 1000, in_channels: int = 3, width_mult: float = 1.0, dropout: float = 0.2) -> Graph:
    """Seventeen inverted residuals between two plain convolutions; input (N, in_channels, H, W), output (N, num_classes)."""
    b = Builder("mobilenet_v2")
    x = b.input("input", ("N", in_channels, "H", "W"))
    with b.module("features", x):
        x = _conv_norm_relu6(b, x, "0", _divisible_by_8(32 * width_mult), kernel_size=3, stride=2)
        place = 1
        for expansion, channels, repeats, stride in STAGES:
            for n in range(repeats):
                with b.module(str(place), x):
                    x = _inverted_residual(b, x, expansion, _divisible_by_8(channels * width_mult), stride if n == 0 else 1)
                place += 1
        x = _conv_norm_relu6(b, x, str(place), _divisible_by_8(1280 * max(1.0, width_mult)), kernel_size=1)
    x = b.layer("adaptive_avg_pool2d", x, output_size=(1, 1))
    x = b.layer("flatten", x, start_dim=1)
    with b.module("classifier", x):
        x = b.layer("dropout", x, name="0", p=dropout)
        x = b.layer("linear", x, name="1", out_features=num_classes)
    return b.build(x)


def _inverted_residual(b: Builder, x: Node, expansion: int, channels: int, stride: int) -> Node:
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1; beside the identity where the shapes agree."""
    hidden = x.shape[1] * expansion
    with b.module("conv", x):
        out, place = x, 0
        if expansion != 1:
            out = _conv_norm_relu6(b, out, "0", hidden, kernel_size=1)
            place = 1
        out = _conv_norm_relu6(b, out, str(place), hidden, kernel_size=3, stride=stride, groups=hidden)
        out = b.layer("conv2d", out, name=str(place + 1), out_channels=channels, kernel_size=1, bias=False)
        out = b.layer("batch_norm", out, name=str(place + 2))
    joined: Node = b.layer("add", x, out) if stride == 1 and x.shape[1] == channels else out
    return joined


def _conv_norm_relu6(b: Builder, x: Node, name: str, channels: int, *, kernel_size: int, stride: int = 1, groups: int = 1) -> Node:
    with b.module(name, x):
        padding = (kernel_size - 1) // 2
        x = b.layer(
            "conv2d", x, name="0", out_channels=channels, kernel_size=kernel_size, stride=stride, padding=padding, groups=groups, bias=False
        )
        x = b.layer("batch_norm", x, name="1")
        x = b.layer("hardtanh", x, name="2", min_val=0.0, max_val=6.0, inplace=True)
    return x


def _divisible_by_8(channels: float) -> int:
    """The nearest multiple of 8, never below nine tenths of ``channels``."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
