"""The U-Net for images, with "same" padding and batch norm, as it is usually written in torch.

Source: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation". A block is (3x3 convolution without bias,
batch norm, ReLU) twice; up-sampling is a transposed convolution, or bilinear interpolation. The torch twin is
``validation.networks.UNet2d``.
"""

from __future__ import annotations

from memest.network.graph import Graph
from memest.sources.builder import Builder, Node


def unet2d(
    *, in_channels: int = 3, out_channels: int = 2, base_filters: int = 64, levels: int = 5, bilinear: bool = False, inplace: bool = True
) -> Graph:
    """Input (N, in_channels, H, W), each size a multiple of ``2 ** (levels - 1)``; output (N, out_channels, H, W).

    ``bilinear`` interpolates where otherwise a transposed convolution halves the channels; ``inplace`` is that of the ReLUs.
    """
    b = Builder("unet2d", dict.fromkeys("HW", 2 ** (levels + 1)))
    b.register("encoder", "pool", "up", "decoder")
    x = b.input("input", ("N", in_channels, "H", "W"))
    skips: list[Node] = []
    for i in range(levels):
        with b.module(f"encoder.{i}", x):
            x = _block(b, x, base_filters * 2**i, inplace)
        if i < levels - 1:
            skips.append(x)
            x = b.layer("max_pool2d", x, name=f"pool.{i}", kernel_size=2)
    for i, skip in enumerate(reversed(skips)):
        filters = skip.shape[1]
        if bilinear:
            x = b.layer("interpolate", x, name=f"up.{i}", scale_factor=2.0, mode="bilinear", align_corners=True)
        else:
            x = b.layer("conv_transpose2d", x, name=f"up.{i}", out_channels=filters, kernel_size=2, stride=2)
        x = b.layer("cat", [skip, x], dim=1)
        with b.module(f"decoder.{i}", x):
            x = _block(b, x, filters, inplace)
    return b.build(b.layer("conv2d", x, name="head", out_channels=out_channels, kernel_size=1))


def _block(b: Builder, x: Node, filters: int, inplace: bool) -> Node:
    for i in (1, 2):
        x = b.layer("conv2d", x, name=f"conv{i}", out_channels=filters, kernel_size=3, padding=1, bias=False)
        x = b.layer("batch_norm", x, name=f"norm{i}")
        x = b.layer("relu", x, name=f"relu{i}", inplace=inplace)
    return x
