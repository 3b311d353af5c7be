"""ResNet, ResNeXt and Wide ResNet as torchvision builds them (torchvision/models/resnet.py).

Source: He et al., "Deep Residual Learning for Image Recognition", with the stride in the 3x3 convolution (ResNet V1.5);
Xie et al., "Aggregated Residual Transformations"; Zagoruyko and Komodakis, "Wide Residual Networks".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memest.network.graph import Graph
from memest.sources.builder import Builder, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What tells one ResNet from another: the block, how many in each of the four layers, the groups and width of a bottleneck."""

    block: Callable[[Builder, Node, int, int, Family], Node]
    expansion: int
    layers: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64


def resnet(name: str, family: Family, *, num_classes: int = 1000, in_channels: int = 3) -> Graph:
    """The network called ``name``; input (N, in_channels, H, W), output (N, num_classes)."""
    b = Builder(name)
    x = b.input("input", ("N", in_channels, "H", "W"))
    x = b.layer("conv2d", x, name="conv1", out_channels=64, kernel_size=7, stride=2, padding=3, bias=False)
    x = b.layer("batch_norm", x, name="bn1")
    x = b.layer("relu", x, name="relu", inplace=True)
    x = b.layer("max_pool2d", x, name="maxpool", kernel_size=3, stride=2, padding=1)
    for i, blocks in enumerate(family.layers):
        with b.module(f"layer{i + 1}", x):
            for n in range(blocks):
                with b.module(str(n), x):
                    x = family.block(b, x, 64 * 2**i, 2 if i > 0 and n == 0 else 1, family)
    x = b.layer("adaptive_avg_pool2d", x, name="avgpool", output_size=(1, 1))
    x = b.layer("flatten", x, start_dim=1)
    return b.build(b.layer("linear", x, name="fc", out_features=num_classes))


def basic_block(b: Builder, x: Node, planes: int, stride: int, family: Family) -> Node:
    """Two 3x3 convolutions beside the identity."""
    out = b.layer("conv2d", x, name="conv1", out_channels=planes, kernel_size=3, stride=stride, padding=1, bias=False)
    out = b.layer("batch_norm", out, name="bn1")
    out = b.layer("relu", out, name="relu", inplace=True)
    out = b.layer("conv2d", out, name="conv2", out_channels=planes, kernel_size=3, padding=1, bias=False)
    out = b.layer("batch_norm", out, name="bn2")
    return _joined(b, x, out, stride)


def bottleneck(b: Builder, x: Node, planes: int, stride: int, family: Family) -> Node:
    """1x1, 3x3 and 1x1 convolutions beside the identity; the 3x3 takes the stride and the groups."""
    width = planes * family.width_per_group // 64 * family.groups
    out = b.layer("conv2d", x, name="conv1", out_channels=width, kernel_size=1, bias=False)
    out = b.layer("batch_norm", out, name="bn1")
    out = b.layer("relu", out, name="relu", inplace=True)
    out = b.layer(
        "conv2d", out, name="conv2", out_channels=width, kernel_size=3, stride=stride, padding=1, groups=family.groups, bias=False
    )
    out = b.layer("batch_norm", out, name="bn2")
    out = _relu_again(b, out)
    out = b.layer("conv2d", out, name="conv3", out_channels=planes * family.expansion, kernel_size=1, bias=False)
    out = b.layer("batch_norm", out, name="bn3")
    return _joined(b, x, out, stride)


def _joined(b: Builder, x: Node, out: Node, stride: int) -> Node:
    """``relu(out + identity)``; the block's frame keeps ``identity`` to its end."""
    identity = x
    if stride != 1 or x.shape[1] != out.shape[1]:
        with b.module("downsample", x):
            identity = b.layer("conv2d", x, name="0", out_channels=out.shape[1], kernel_size=1, stride=stride, bias=False)
            identity = b.layer("batch_norm", identity, name="1")
    with b.holding(identity):
        return _relu_again(b, b.layer("add", out, identity, inplace=True))


def _relu_again(b: Builder, x: Node) -> Node:
    """A further call of the block's one ``relu`` module."""
    with b.scope("relu"):
        out: Node = b.layer("relu", x, inplace=True)
    return out


RESNET18 = Family(block=basic_block, expansion=1, layers=(2, 2, 2, 2))
RESNET34 = Family(block=basic_block, expansion=1, layers=(3, 4, 6, 3))
RESNET50 = Family(block=bottleneck, expansion=4, layers=(3, 4, 6, 3))
RESNET101 = Family(block=bottleneck, expansion=4, layers=(3, 4, 23, 3))
RESNET152 = Family(block=bottleneck, expansion=4, layers=(3, 8, 36, 3))
RESNEXT50_32X4D = Family(block=bottleneck, expansion=4, layers=(3, 4, 6, 3), groups=32, width_per_group=4)
RESNEXT101_32X8D = Family(block=bottleneck, expansion=4, layers=(3, 4, 23, 3), groups=32, width_per_group=8)
RESNEXT101_64X4D = Family(block=bottleneck, expansion=4, layers=(3, 4, 23, 3), groups=64, width_per_group=4)
WIDE_RESNET50_2 = Family(block=bottleneck, expansion=4, layers=(3, 4, 6, 3), width_per_group=128)
WIDE_RESNET101_2 = Family(block=bottleneck, expansion=4, layers=(3, 4, 23, 3), width_per_group=128)
