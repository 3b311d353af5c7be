"""Built-in networks: the list of them, and :func:`build`, which gives the graph of one.

>>> build("unet3d:base_filters=32,levels=4")
>>> build("resnet50", num_classes=10)

Where torchvision has the network, its graph takes the same bytes as the import of torchvision's: parameters in the same order, values
that live as long as torchvision's Python keeps them. The others are pinned to torch twins in ``validation/networks.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from memest.errors import UnknownNameError, UsageError, did_you_mean
from memest.network.graph import Graph
from memest.sources.models import alexnet, densenet, mobilenet_v2, plain_conv_unet, residual_encoder_unet, resnet, unet2d, unet3d, vgg, vnet
from memest.sources.models.options import (
    MAX_CHANNELS,
    MAX_STAGES,
    Option,
    checked,
    factor,
    flag,
    fraction,
    one_of,
    parsed,
    per_stage,
    whole,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A built-in network: ``builder`` takes the options as keywords; ``input_shape`` is the usual one, without the batch."""

    name: str
    description: str
    builder: Callable[..., Graph]
    options: tuple[Option, ...]
    input_shape: tuple[int, ...]


def _option(name: str, default: Any, check: Callable[[Any], Any]) -> Option:
    return Option(name=name, default=default, check=check)


def _channels(name: str, default: int) -> Option:
    return _option(name, default, whole(1, MAX_CHANNELS))


def _dropout(default: float, name: str = "dropout") -> Option:
    return _option(name, default, fraction)


CLASSIFIER = (_channels("num_classes", 1000), _channels("in_channels", 3))
NNUNET = (
    _channels("input_channels", 1),
    _channels("num_classes", 2),
    _option("dims", 3, whole(2, 3)),
    _option("features_per_stage", (32, 64, 128, 256, 320, 320), per_stage(MAX_CHANNELS)),
    _option("kernel_sizes", 3, per_stage(31, alone=True, axes=True)),
    _option("strides", None, per_stage(16, axes=True)),
)


def _resnet(name: str, description: str, family: resnet.Family) -> Model:
    builder = partial(resnet.resnet, name, family)
    return Model(name=name, description=description, builder=builder, options=CLASSIFIER, input_shape=(3, 224, 224))


def _vgg(name: str, depth: int, batch_norm: bool) -> Model:
    description = f"VGG with {depth} layers of weights{' and batch norm' if batch_norm else ''}"
    builder = partial(vgg.vgg, name, depth, batch_norm)
    return Model(name=name, description=description, builder=builder, options=(*CLASSIFIER, _dropout(0.5)), input_shape=(3, 224, 224))


def _densenet(name: str, growth_rate: int, blocks: tuple[int, int, int, int], num_init_features: int) -> Model:
    description = f"DenseNet of {sum(blocks)} dense layers, growth rate {growth_rate}"
    builder = partial(densenet.densenet, name, growth_rate, blocks, num_init_features)
    options = (*CLASSIFIER, _dropout(0.0, "drop_rate"))
    return Model(name=name, description=description, builder=builder, options=options, input_shape=(3, 224, 224))


_MODELS = (
    Model(
        name="unet3d",
        description="3D U-Net of IntelAI/unet: two 3x3x3 convolutions with batch norm per level",
        builder=unet3d.unet3d,
        options=(
            _channels("in_channels", 1),
            _channels("out_channels", 1),
            _channels("base_filters", 16),
            _option("levels", 5, whole(1, MAX_STAGES)),
            _option("inplace", True, flag),
        ),
        input_shape=(1, 144, 144, 144),
    ),
    Model(
        name="unet2d",
        description="U-Net for images: two 3x3 convolutions with batch norm per level",
        builder=unet2d.unet2d,
        options=(
            _channels("in_channels", 3),
            _channels("out_channels", 2),
            _channels("base_filters", 64),
            _option("levels", 5, whole(1, MAX_STAGES)),
            _option("bilinear", False, flag),
            _option("inplace", True, flag),
        ),
        input_shape=(3, 512, 512),
    ),
    Model(
        name="vnet",
        description="V-Net: residual stages of 5x5x5 convolutions",
        builder=vnet.vnet,
        options=(
            _channels("in_channels", 1),
            _channels("out_channels", 1),
            _channels("base_filters", 16),
            _option("activation", "elu", one_of("elu", "prelu")),
            _dropout(0.5),
        ),
        input_shape=(1, 128, 128, 64),
    ),
    Model(
        name="plain_conv_unet",
        description="nnU-Net's PlainConvUNet: strided convolutions, instance norm, LeakyReLU",
        builder=plain_conv_unet.plain_conv_unet,
        options=(
            *NNUNET,
            _option("n_conv_per_stage", 2, per_stage(100, alone=True)),
            _option("n_conv_per_stage_decoder", 2, per_stage(100, alone=True)),
            _option("deep_supervision", False, flag),
        ),
        input_shape=(1, 128, 128, 128),
    ),
    Model(
        name="residual_encoder_unet",
        description="nnU-Net's ResidualEncoderUNet: residual blocks in the encoder",
        builder=residual_encoder_unet.residual_encoder_unet,
        options=(
            *NNUNET,
            _option("n_blocks_per_stage", None, per_stage(100, alone=True)),
            _option("n_conv_per_stage_decoder", 1, per_stage(100, alone=True)),
            _option("deep_supervision", False, flag),
        ),
        input_shape=(1, 128, 128, 128),
    ),
    _resnet("resnet18", "ResNet of 18 layers, basic blocks", resnet.RESNET18),
    _resnet("resnet34", "ResNet of 34 layers, basic blocks", resnet.RESNET34),
    _resnet("resnet50", "ResNet of 50 layers, bottlenecks", resnet.RESNET50),
    _resnet("resnet101", "ResNet of 101 layers, bottlenecks", resnet.RESNET101),
    _resnet("resnet152", "ResNet of 152 layers, bottlenecks", resnet.RESNET152),
    _resnet("resnext50_32x4d", "ResNeXt of 50 layers, 32 groups of width 4", resnet.RESNEXT50_32X4D),
    _resnet("resnext101_32x8d", "ResNeXt of 101 layers, 32 groups of width 8", resnet.RESNEXT101_32X8D),
    _resnet("resnext101_64x4d", "ResNeXt of 101 layers, 64 groups of width 4", resnet.RESNEXT101_64X4D),
    _resnet("wide_resnet50_2", "ResNet of 50 layers, bottlenecks twice as wide", resnet.WIDE_RESNET50_2),
    _resnet("wide_resnet101_2", "ResNet of 101 layers, bottlenecks twice as wide", resnet.WIDE_RESNET101_2),
    _vgg("vgg11", 11, False),
    _vgg("vgg11_bn", 11, True),
    _vgg("vgg13", 13, False),
    _vgg("vgg13_bn", 13, True),
    _vgg("vgg16", 16, False),
    _vgg("vgg16_bn", 16, True),
    _vgg("vgg19", 19, False),
    _vgg("vgg19_bn", 19, True),
    _densenet("densenet121", 32, (6, 12, 24, 16), 64),
    _densenet("densenet161", 48, (6, 12, 36, 24), 96),
    _densenet("densenet169", 32, (6, 12, 32, 32), 64),
    _densenet("densenet201", 32, (6, 12, 48, 32), 64),
    Model(
        name="mobilenet_v2",
        description="MobileNetV2: inverted residuals of depthwise convolutions",
        builder=mobilenet_v2.mobilenet_v2,
        options=(*CLASSIFIER, _option("width_mult", 1.0, factor), _dropout(0.2)),
        input_shape=(3, 224, 224),
    ),
    Model(
        name="alexnet",
        description="AlexNet: five convolutions, three linear layers",
        builder=alexnet.alexnet,
        options=(*CLASSIFIER, _dropout(0.5)),
        input_shape=(3, 224, 224),
    ),
)
MODELS: dict[str, Model] = {m.name: m for m in _MODELS}


def named(name: str) -> Model:
    """The built-in model called ``name``; UnknownNameError with the nearest name."""
    if name not in MODELS:
        raise UnknownNameError(f"unknown model {name!r}{did_you_mean(name, MODELS)}")
    return MODELS[name]


def build(text: str, **options: Any) -> Graph:
    """The graph of the model written as ``name`` or ``name:option=value,option=value``, or given by name and keywords.

    Raises UnknownNameError for a name or option that is not there, UsageError for a value that does not fit.
    """
    model = named(text.partition(":")[0].strip())
    _, written = parsed(text)
    twice = next((key for key in options if key in written), None)
    if twice is not None:
        raise UsageError(f"model option {twice!r} is given twice")
    return model.builder(**checked(model.name, model.options, {**written, **options}))


__all__ = ["MODELS", "Model", "Option", "build", "named"]
