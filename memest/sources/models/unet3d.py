"""The 3D U-Net of IntelAI/unet (directory ``3D/``), the network that needed a terabyte to train.

A block is (3x3x3 convolution, batch norm, ReLU) twice. Encoder blocks of f, 2f, 4f, … filters with a max pooling between them, then a
2x2x2 transposed convolution of stride 2, the concatenation with the encoder's output and a block per level, a 1x1x1 convolution and a
sigmoid. With 16 base filters and 5 levels it has 5,650,801 parameters (running statistics counted). The torch twin is
``validation.networks.UNet3d``.
"""

from __future__ import annotations

from memest.network.graph import Graph
from memest.sources.builder import Builder, Node


def unet3d(*, in_channels: int = 1, out_channels: int = 1, base_filters: int = 16, levels: int = 5, inplace: bool = True) -> Graph:
    """Input (N, in_channels, D, H, W), each size a multiple of ``2 ** (levels - 1)``; output (N, out_channels, D, H, W).

    ``inplace`` says whether the ReLUs work in place, as one writes them in torch.
    """
    b = Builder("unet3d", dict.fromkeys("DHW", 2 ** (levels + 1)))
    b.register("encoder", "pool", "up", "decoder")
    x = b.input("input", ("N", in_channels, "D", "H", "W"))
    skips: list[Node] = []
    for i in range(levels):
        with b.module(f"encoder.{i}", x):
            x = _block(b, x, base_filters * 2**i, inplace)
        if i < levels - 1:
            skips.append(x)
            x = b.layer("max_pool3d", x, name=f"pool.{i}", kernel_size=2)
    for i, skip in enumerate(reversed(skips)):
        filters = skip.shape[1]
        x = b.layer("conv_transpose3d", x, name=f"up.{i}", out_channels=filters, kernel_size=2, stride=2)
        x = b.layer("cat", [skip, x], dim=1)
        with b.module(f"decoder.{i}", x):
            x = _block(b, x, filters, inplace)
    with b.holding(x):
        logits = b.layer("conv3d", x, name="head", out_channels=out_channels, kernel_size=1)
        out = b.layer("sigmoid", logits)
    return b.build(out)


def _block(b: Builder, x: Node, filters: int, inplace: bool) -> Node:
    for i in (1, 2):
        x = b.layer("conv3d", x, name=f"conv{i}", out_channels=filters, kernel_size=3, padding=1)
        x = b.layer("batch_norm", x, name=f"norm{i}")
        x = b.layer("relu", x, name=f"relu{i}", inplace=inplace)
    return x
