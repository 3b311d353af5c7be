"""AlexNet as torchvision builds it (torchvision/models/alexnet.py).

Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks".
"""

from __future__ import annotations

from memest.network.graph import Graph
from memest.sources.builder import Builder


def alexnet(*, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> Graph:
    """Five convolutions and three linear layers; input (N, in_channels, H, W), output (N, num_classes)."""
    b = Builder("alexnet")
    x = b.input("input", ("N", in_channels, "H", "W"))
    with b.module("features", x):
        x = b.layer("conv2d", x, name="0", out_channels=64, kernel_size=11, stride=4, padding=2)
        x = b.layer("relu", x, name="1", inplace=True)
        x = b.layer("max_pool2d", x, name="2", kernel_size=3, stride=2)
        x = b.layer("conv2d", x, name="3", out_channels=192, kernel_size=5, padding=2)
        x = b.layer("relu", x, name="4", inplace=True)
        x = b.layer("max_pool2d", x, name="5", kernel_size=3, stride=2)
        x = b.layer("conv2d", x, name="6", out_channels=384, kernel_size=3, padding=1)
        x = b.layer("relu", x, name="7", inplace=True)
        x = b.layer("conv2d", x, name="8", out_channels=256, kernel_size=3, padding=1)
        x = b.layer("relu", x, name="9", inplace=True)
        x = b.layer("conv2d", x, name="10", out_channels=256, kernel_size=3, padding=1)
        x = b.layer("relu", x, name="11", inplace=True)
        x = b.layer("max_pool2d", x, name="12", kernel_size=3, stride=2)
    x = b.layer("adaptive_avg_pool2d", x, name="avgpool", output_size=(6, 6))
    x = b.layer("flatten", x, start_dim=1)
    with b.module("classifier", x):
        x = b.layer("dropout", x, name="0", p=dropout)
        x = b.layer("linear", x, name="1", out_features=4096)
        x = b.layer("relu", x, name="2", inplace=True)
        x = b.layer("dropout", x, name="3", p=dropout)
        x = b.layer("linear", x, name="4", out_features=4096)
        x = b.layer("relu", x, name="5", inplace=True)
        x = b.layer("linear", x, name="6", out_features=num_classes)
    return b.build(x)
