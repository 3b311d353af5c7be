"""DenseNet-121, 161, 169 and 201 as torchvision builds them (torchvision/models/densenet.py, ``memory_efficient=False``).

Source: Huang et al., "Densely Connected Convolutional Networks".
"""

from __future__ import annotations

from memest.network.graph import Graph
from memest.sources.builder import Builder, Node

BOTTLENECK = 4


def densenet(
    name: str,
    growth_rate: int,
    blocks: tuple[int, int, int, int],
    num_init_features: int,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    drop_rate: float = 0.0,
) -> Graph:
    """Four dense blocks with transitions between them; input (N, in_channels, H, W), output (N, num_classes)."""
    b = Builder(name)
    x = b.input("input", ("N", in_channels, "H", "W"))
    with b.module("features", x):
        x = b.layer("conv2d", x, name="conv0", out_channels=num_init_features, kernel_size=7, stride=2, padding=3, bias=False)
        x = b.layer("batch_norm", x, name="norm0")
        x = b.layer("relu", x, name="relu0", inplace=True)
        x = b.layer("max_pool2d", x, name="pool0", kernel_size=3, stride=2, padding=1)
        for i, layers in enumerate(blocks):
            if i > 0:
                with b.module(f"transition{i}", x):
                    x = _transition(b, x)
            with b.module(f"denseblock{i + 1}", x):
                x = _dense_block(b, x, layers, growth_rate, drop_rate)
        x = b.layer("batch_norm", x, name="norm5")
    with b.holding(x):
        out = b.layer("relu", x, inplace=True)
        out = b.layer("adaptive_avg_pool2d", out, output_size=(1, 1))
        out = b.layer("flatten", out, start_dim=1)
        out = b.layer("linear", out, name="classifier", out_features=num_classes)
    return b.build(out)


def _dense_block(b: Builder, x: Node, layers: int, growth_rate: int, drop_rate: float) -> Node:
    """Each layer reads all features before it; the list of them lives until the block returns."""
    features = [x]
    for i in range(layers):
        with b.scope(f"denselayer{i + 1}"):
            features.append(_dense_layer(b, features, growth_rate, drop_rate))
    out: Node = b.layer("cat", features, dim=1)
    b.keep_until_here(*reversed(features[:-1]), features[-1])
    return out


def _dense_layer(b: Builder, features: list[Node], growth_rate: int, drop_rate: float) -> Node:
    joined = b.layer("cat", features, dim=1)
    with b.holding(joined):
        x = b.layer("batch_norm", joined, name="norm1")
        x = b.layer("relu", x, name="relu1", inplace=True)
        narrow = b.layer("conv2d", x, name="conv1", out_channels=BOTTLENECK * growth_rate, kernel_size=1, bias=False)
    with b.holding(narrow):
        x = b.layer("batch_norm", narrow, name="norm2")
        x = b.layer("relu", x, name="relu2", inplace=True)
        new: Node = b.layer("conv2d", x, name="conv2", out_channels=growth_rate, kernel_size=3, padding=1, bias=False)
        if drop_rate > 0:
            new = b.layer("dropout", new, p=drop_rate)
    return new


def _transition(b: Builder, x: Node) -> Node:
    channels = x.shape[1] // 2
    x = b.layer("batch_norm", x, name="norm")
    x = b.layer("relu", x, name="relu", inplace=True)
    x = b.layer("conv2d", x, name="conv", out_channels=channels, kernel_size=1, bias=False)
    x = b.layer("avg_pool2d", x, name="pool", kernel_size=2, stride=2)
    return x
