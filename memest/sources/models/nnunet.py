"""What nnU-Net's two networks share: the decoder, the convolution of a stage, and options given once or per stage.

Source: the package dynamic-network-architectures 0.4, building_blocks/{simple_conv_blocks,unet_decoder}.py. Left as it is, the style is
that of nnU-Net's planner: convolutions with bias, affine instance norm, LeakyReLU in place, no dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memest.errors import UsageError
from memest.sources.builder import Builder, Node

PerAxis = int | Sequence[int]
AXES = {2: ("H", "W"), 3: ("D", "H", "W")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An operator with its attributes."""

    op: str
    attributes: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What follows a convolution, and whether it has a bias; ``nonlin_first`` puts the activation before the norm."""

    bias: bool = True
    dropout: Call | None = None
    norm: Call | None = Call(op="instance_norm", attributes=(("affine", True),))
    nonlin: Call | None = Call(op="leaky_relu", attributes=(("inplace", True),))
    nonlin_first: bool = False


USUAL = Style()


class Stages:
    """Features, kernel sizes and strides of every resolution stage, each checked to fit the others; and the style of all."""

    def __init__(
        self,
        model: str,
        dims: int,
        features: Sequence[int],
        kernel_sizes: PerAxis | Sequence[PerAxis],
        strides: Sequence[PerAxis] | None,
        style: Style,
    ) -> None:
        self.model = model
        self.style = style
        self.dims = dims
        self.features = tuple(features)
        if strides is None:
            strides = (1, *(2,) * (len(self.features) - 1))
        self.kernel_sizes = self._axes("kernel_sizes", self.per_stage("kernel_sizes", kernel_sizes))
        self.strides = self._axes("strides", self.per_stage("strides", strides))

    def __len__(self) -> int:
        return len(self.features)

    def per_stage(self, option: str, given: Any, less: int = 0) -> tuple[Any, ...]:
        """One entry a stage (``less`` fewer in the decoder); a single number counts for all."""
        wanted = len(self.features) - less
        entries = (given,) * wanted if isinstance(given, int) else tuple(given)
        if len(entries) != wanted:
            raise UsageError(
                f"model {self.model!r}, option {option!r}: {len(self.features)} stages need {wanted} entries, got {len(entries)}"
            )
        return entries

    def _axes(self, option: str, entries: Sequence[PerAxis]) -> tuple[tuple[int, ...], ...]:
        made = tuple((e,) * self.dims if isinstance(e, int) else tuple(e) for e in entries)
        for e in made:
            if len(e) != self.dims:
                raise UsageError(f"model {self.model!r}, option {option!r}: {self.dims} axes need {self.dims} numbers, got {len(e)}")
        return made

    def builder(self) -> Builder:
        """A builder whose example sizes survive all strides."""
        sizes = {}
        for axis, name in enumerate(AXES[self.dims]):
            total = 4
            for stride in self.strides:
                total *= stride[axis]
            sizes[name] = total
        return Builder(self.model, sizes)

    def input(self, b: Builder, channels: int) -> Node:
        """The network's input."""
        return b.input("input", ("N", channels, *AXES[self.dims]))


def stacked(
    b: Builder, x: Node, name: str, number: int, features: int, kernel_size: tuple[int, ...], stride: tuple[int, ...], style: Style
) -> Node:
    """StackedConvBlocks: ``number`` convolutions with norm and activation, the first of them strided."""
    with b.module(f"{name}.convs", x):
        for i in range(number):
            x = conv_norm(b, x, str(i), features, kernel_size, stride if i == 0 else (1,) * len(stride), style)
    return x


def conv_norm(b: Builder, x: Node, name: str, features: int, kernel_size: tuple[int, ...], stride: tuple[int, ...], style: Style) -> Node:
    """ConvDropoutNormReLU."""
    padding = tuple((k - 1) // 2 for k in kernel_size)
    conv: dict[str, Any] = {"out_channels": features, "kernel_size": kernel_size, "stride": stride, "padding": padding, "bias": style.bias}
    after = [("norm", style.norm), ("nonlin", style.nonlin)]
    with b.module(name, x):
        x = b.layer(f"conv{len(stride)}d", x, name="conv", **conv)
        for part, call in (("dropout", style.dropout), *(reversed(after) if style.nonlin_first else after)):
            if call is not None:
                x = b.layer(call.op, x, name=part, **dict(call.attributes))
        return x


def decoder(
    b: Builder, skips: Sequence[Node], stages: Stages, convolutions: Sequence[int], num_classes: int, deep_supervision: bool
) -> tuple[Node, ...]:
    """UNetDecoder: per stage a transposed convolution, the concatenation with the skip, convolutions. Outputs largest first.

    The list of skips lives until the network returns; the layer that makes a stage's segmentation is there whether it is called or not.
    """
    dims, last = stages.dims, len(stages) - 2
    outputs: list[Node] = []
    with b.module("decoder", *reversed(skips)):
        b.register("stages", "transpconvs", "seg_layers")
        below = skips[-1]
        for s, skip in enumerate(reversed(skips[:-1])):
            features = skip.shape[1]
            stride = stages.strides[-(s + 1)]
            up: dict[str, Any] = {"out_channels": features, "kernel_size": stride, "stride": stride, "bias": stages.style.bias}
            x = b.layer(f"conv_transpose{dims}d", below, name=f"transpconvs.{s}", **up)
            x = b.layer("cat", [x, skip], dim=1)
            x = stacked(b, x, f"stages.{s}", convolutions[s], features, stages.kernel_sizes[-(s + 2)], (1,) * dims, stages.style)
            if deep_supervision or s == last:
                outputs.append(b.layer(f"conv{dims}d", x, name=f"seg_layers.{s}", out_channels=num_classes, kernel_size=1))
            else:
                b.unused(f"conv{dims}d", name=f"seg_layers.{s}", in_channels=features, out_channels=num_classes, kernel_size=1)
            b.keep_until_here(below)
            below = x
        b.keep_until_here(below)
    return tuple(reversed(outputs))
