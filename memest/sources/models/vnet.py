"""V-Net: residual stages of 5x5x5 convolutions, 2x2x2 convolutions of stride 2 between them.

Source: Milletari et al., "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation", with the batch norms,
dropouts and number of convolutions of its usual torch versions (mattmacy/vnet.pytorch, MONAI's ``VNet``). The torch twin is
``validation.networks.VNet``.
"""

from __future__ import annotations

from memest.errors import UsageError
from memest.network.graph import Graph
from memest.sources.builder import Builder, Node

ENCODER_CONVOLUTIONS = (1, 2, 3, 2)
DECODER_CONVOLUTIONS = (2, 2, 1, 1)
ENCODER_DROPOUT = (False, False, True, True)
DECODER_DROPOUT = (True, True, False, False)


def vnet(*, in_channels: int = 1, out_channels: int = 1, base_filters: int = 16, activation: str = "elu", dropout: float = 0.5) -> Graph:
    """Input (N, in_channels, D, H, W), each size a multiple of 16; output (N, out_channels, D, H, W).

    ``in_channels`` divides ``base_filters``: the input is repeated to be added to the first stage. ``activation`` is ``elu`` (in place)
    or ``prelu``. UsageError when they do not fit.
    """
    if base_filters % in_channels:
        raise UsageError(f"vnet: in_channels ({in_channels}) must divide base_filters ({base_filters})")
    b = Builder("vnet", dict.fromkeys("DHW", 64))
    x = b.input("input", ("N", in_channels, "D", "H", "W"))
    with b.module("first", x):
        x = _first(b, x, base_filters, activation)
    skips: list[Node] = []
    for i, convolutions in enumerate(ENCODER_CONVOLUTIONS):
        skips.append(x)
        with b.module(f"downs.{i}", x):
            x = _down(b, x, convolutions, activation, dropout if ENCODER_DROPOUT[i] else 0.0)
    for i, convolutions in enumerate(DECODER_CONVOLUTIONS):
        skip = skips.pop()
        filters = skip.shape[1] * 2
        with b.module(f"ups.{i}", skip, x):
            x = _up(b, x, skip, filters, convolutions, activation, dropout if DECODER_DROPOUT[i] else 0.0, dropout)
    with b.module("last", x):
        x = _last(b, x, out_channels, activation)
    return b.build(x)


def _first(b: Builder, x: Node, filters: int, activation: str) -> Node:
    out = b.layer("conv3d", x, name="conv", out_channels=filters, kernel_size=5, padding=2, bias=False)
    out = b.layer("batch_norm", out, name="norm")
    repeated = b.layer("repeat", x, repeats=(1, filters // x.shape[1], 1, 1, 1))
    with b.holding(out):
        return _activation(b, b.layer("add", out, repeated), "act", activation)


def _down(b: Builder, x: Node, convolutions: int, activation: str, dropout: float) -> Node:
    filters = 2 * x.shape[1]
    down = b.layer("conv3d", x, name="down", out_channels=filters, kernel_size=2, stride=2, bias=False)
    down = b.layer("batch_norm", down, name="norm")
    down = _activation(b, down, "act1", activation)
    out = b.layer("dropout3d", down, name="dropout", p=dropout) if dropout else down
    out = _convolutions(b, out, convolutions, activation)
    with b.holding(down, out):
        return _activation(b, b.layer("add", out, down), "act2", activation)


def _up(b: Builder, x: Node, skip: Node, filters: int, convolutions: int, activation: str, dropout: float, skip_dropout: float) -> Node:
    x = b.layer("dropout3d", x, name="dropout", p=dropout) if dropout else x
    skip = b.layer("dropout3d", skip, name="skip_dropout", p=skip_dropout) if skip_dropout else skip
    with b.holding(x):
        x = b.layer("conv_transpose3d", x, name="up", out_channels=filters // 2, kernel_size=2, stride=2)
        x = b.layer("batch_norm", x, name="norm")
        x = _activation(b, x, "act1", activation)
    joined = b.layer("cat", [x, skip], dim=1)
    out = _convolutions(b, joined, convolutions, activation)
    with b.holding(x, skip, joined, out):
        return _activation(b, b.layer("add", out, joined), "act2", activation)


def _last(b: Builder, x: Node, out_channels: int, activation: str) -> Node:
    x = b.layer("conv3d", x, name="conv", out_channels=out_channels, kernel_size=5, padding=2, bias=False)
    x = b.layer("batch_norm", x, name="norm")
    x = _activation(b, x, "act", activation)
    out: Node = b.layer("conv3d", x, name="head", out_channels=out_channels, kernel_size=1)
    return out


def _convolutions(b: Builder, x: Node, number: int, activation: str) -> Node:
    """``number`` 5x5x5 convolutions that keep the channels."""
    with b.module("convs", x):
        for i in range(number):
            with b.module(str(i), x):
                x = b.layer("conv3d", x, name="conv", out_channels=x.shape[1], kernel_size=5, padding=2, bias=False)
                x = b.layer("batch_norm", x, name="norm")
                x = _activation(b, x, "act", activation)
    return x


def _activation(b: Builder, x: Node, name: str, activation: str) -> Node:
    out: Node
    if activation == "prelu":
        out = b.layer("prelu", x, name=name, num_parameters=x.shape[1])
    else:
        out = b.layer("elu", x, name=name, inplace=True)
    return out
