"""VGG-11 to VGG-19, with or without batch norm, as torchvision builds them (torchvision/models/vgg.py).

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", configurations A, B, D, E.
"""

from __future__ import annotations

from memest.network.graph import Graph
from memest.sources.builder import Builder, Node

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(name: str, depth: int, batch_norm: bool, *, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> Graph:
    """VGG of ``depth`` layers with weights; input (N, in_channels, H, W), output (N, num_classes)."""
    b = Builder(name)
    x = b.input("input", ("N", in_channels, "H", "W"))
    with b.module("features", x):
        x = _features(b, x, depth, batch_norm)
    x = b.layer("adaptive_avg_pool2d", x, name="avgpool", output_size=(7, 7))
    x = b.layer("flatten", x, start_dim=1)
    with b.module("classifier", x):
        x = b.layer("linear", x, name="0", out_features=4096)
        x = b.layer("relu", x, name="1", inplace=True)
        x = b.layer("dropout", x, name="2", p=dropout)
        x = b.layer("linear", x, name="3", out_features=4096)
        x = b.layer("relu", x, name="4", inplace=True)
        x = b.layer("dropout", x, name="5", p=dropout)
        x = b.layer("linear", x, name="6", out_features=num_classes)
    return b.build(x)


def _features(b: Builder, x: Node, depth: int, batch_norm: bool) -> Node:
    """Five stages of 3x3 convolutions, each ended by a pooling; layers are numbered through as in an nn.Sequential."""
    place = 0
    for width, convolutions in zip(WIDTHS, CONVOLUTIONS[depth], strict=True):
        for _ in range(convolutions):
            x = b.layer("conv2d", x, name=str(place), out_channels=width, kernel_size=3, padding=1)
            if batch_norm:
                place += 1
                x = b.layer("batch_norm", x, name=str(place))
            x = b.layer("relu", x, name=str(place + 1), inplace=True)
            place += 2
        x = b.layer("max_pool2d", x, name=str(place), kernel_size=2, stride=2)
        place += 1
    return x
