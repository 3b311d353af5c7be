"""Built-in networks: known sizes, and the same bytes as the import of the torch module they mirror, event by event."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest

from memest.errors import GraphError, MemestError, ShapeError, UnknownNameError, UsageError
from memest.estimate.estimate import Estimate, estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from memest.network.tensor import numel
from memest.sources import models
from memest.sources.models import MODELS

CPU = Cpu()
# trainable parameters: torchvision's weights.meta["num_params"]; nnU-Net's networks as its package counts them
PARAMETERS = {
    "alexnet": 61_100_840,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "mobilenet_v2": 3_504_872,
    "plain_conv_unet": 31_195_594,
    "residual_encoder_unet": 102_349_770,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "unet2d": 31_037_698,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}
OWN = ("unet3d", "unet2d", "vnet", "plain_conv_unet", "residual_encoder_unet")
TORCHVISION = tuple(name for name in MODELS if name not in OWN)
QUICK = ("alexnet", "mobilenet_v2", "resnet18", "resnext50_32x4d", "vgg11", "vgg13_bn")
ODD = (3, 3, 101, 73)

every_model = pytest.mark.parametrize("name", MODELS)


@dataclass(frozen=True)
class Variant:
    """A network of ours with options, at a shape."""

    name: str
    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}".replace(" ", "") for k, v in self.options.items())])


VOLUME = (2, 1, 32, 32, 32)
VARIANTS = (
    Variant("unet3d", VOLUME),
    Variant("unet3d", VOLUME, {"levels": 3, "base_filters": 4, "out_channels": 3, "inplace": False}),
    Variant("unet3d", VOLUME, {"levels": 1}),
    Variant("unet3d", (1, 2, 64, 32, 48), {"levels": 2, "in_channels": 2}),
    Variant("unet2d", (2, 3, 64, 32)),
    Variant("unet2d", (2, 3, 64, 32), {"bilinear": True, "base_filters": 8}),
    Variant("unet2d", (2, 3, 64, 32), {"levels": 4, "inplace": False}),
    Variant("vnet", VOLUME),
    Variant("vnet", (1, 4, 32, 48, 32), {"in_channels": 4, "base_filters": 8, "activation": "prelu"}),
    Variant("vnet", VOLUME, {"dropout": 0.0}),
    Variant("plain_conv_unet", (2, 1, 64, 64, 64)),
    Variant("residual_encoder_unet", (2, 1, 64, 64, 64)),
)
NNUNET = (
    Variant("plain_conv_unet", VOLUME, {"features_per_stage": (8, 16, 32), "deep_supervision": True}),
    Variant(
        "plain_conv_unet",
        (2, 1, 64, 48),
        {
            "dims": 2,
            "features_per_stage": (8, 16, 32, 32),
            "kernel_sizes": (3, (1, 3), 3, 5),
            "strides": (1, (1, 2), 2, 2),
            "n_conv_per_stage": (1, 2, 3, 1),
            "n_conv_per_stage_decoder": 1,
        },
    ),
    Variant("residual_encoder_unet", VOLUME, {"features_per_stage": (8, 16, 32), "deep_supervision": True}),
    Variant(
        "residual_encoder_unet",
        (2, 1, 64, 48),
        {
            "dims": 2,
            "features_per_stage": (8, 8, 32, 32),
            "kernel_sizes": ((1, 3), 3, 3, 3),
            "strides": (1, (1, 2), 2, 2),
            "n_blocks_per_stage": 2,
            "n_conv_per_stage_decoder": (1, 2, 1),
        },
    ),
)


def _small(name: str) -> tuple[int, ...]:
    channels, *space = MODELS[name].input_shape
    return (2, channels, *(64 for _ in space))


def _trainable(graph: Graph) -> int:
    return sum(numel(p.shape) for p in graph.parameters if not p.buffer)


def _output_shapes(graph: Graph, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    values = estimate(graph, input_shape=shape, mode="infer", machine=CPU).timeline.values
    return [values[name].shape for name in graph.outputs]


# the list ----------------------------------------------------------------------------------------------------------------


@cache
def built(name: str) -> Graph:
    """A model without options, built once."""
    return models.build(name)


@every_model
def test_parameters_are_as_many_as_published(name: str) -> None:
    if name in PARAMETERS:
        assert _trainable(built(name)) == PARAMETERS[name]


def test_unet3d_has_the_parameters_of_the_repository() -> None:
    """Keras counts a batch norm's running statistics too."""
    counted = [p for p in models.build("unet3d").parameters if p.dtype == "float32"]
    assert sum(numel(p.shape) for p in counted) == 5_650_801


@every_model
def test_options_are_the_keywords_of_the_builder(name: str) -> None:
    model = MODELS[name]
    keywords = {k: p.default for k, p in inspect.signature(model.builder).parameters.items() if p.kind is p.KEYWORD_ONLY}
    for said_by_plans_alone in ("style", "stem_channels"):
        keywords.pop(said_by_plans_alone, None)
    assert {o.name: o.default for o in model.options} == keywords
    assert model.name == name
    assert "\n" not in model.description


@every_model
def test_defaults_pass_their_own_checks(name: str) -> None:
    for option in MODELS[name].options:
        if option.default is not None:
            assert option.check(option.default) == option.default


@every_model
def test_dims_are_symbols(name: str) -> None:
    graph = built(name)
    (given,) = graph.inputs
    channels, *space = MODELS[name].input_shape
    assert [str(d) for d in given.shape] == ["N", str(channels), *("DHW" if len(space) == 3 else "HW")]
    assert graph == models.build(name)


@every_model
def test_output_shape(name: str) -> None:
    shape = _small(name)
    classes = {"unet3d": 1, "unet2d": 2, "vnet": 1}.get(name, 2)
    wanted = (2, classes, *shape[2:]) if name in OWN else (2, 1000)
    assert _output_shapes(built(name), shape) == [wanted]


def test_deep_supervision_gives_the_largest_first() -> None:
    graph = models.build("plain_conv_unet", features_per_stage=(4, 8, 16, 16), deep_supervision=True)
    assert _output_shapes(graph, VOLUME) == [(2, 2, 32, 32, 32), (2, 2, 16, 16, 16), (2, 2, 8, 8, 8)]


def test_classes_and_channels() -> None:
    for name in ("resnet18", "vgg11", "alexnet", "densenet121", "mobilenet_v2"):
        graph = models.build(name, num_classes=7, in_channels=1)
        assert _output_shapes(graph, (2, 1, 64, 64)) == [(2, 7)]


def test_a_size_that_does_not_come_back_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"layer 'cat"):
        estimate(models.build("unet3d"), input_shape=(1, 1, 40, 32, 32), mode="infer", machine=CPU)


# names and options as text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("unet3d:base_filters=32,levels=4", {"base_filters": 32, "levels": 4}),
        ("unet3d: inplace = false ", {"inplace": False}),
        ("plain_conv_unet:dims=2,features_per_stage=8-16-32", {"dims": 2, "features_per_stage": [8, 16, 32]}),
        (
            "plain_conv_unet:features_per_stage=8-16-32,strides=1-1x2x2-2,kernel_sizes=1x3x3-3-3",
            {"features_per_stage": (8, 16, 32), "strides": (1, (1, 2, 2), 2), "kernel_sizes": [[1, 3, 3], 3, 3]},
        ),
        ("mobilenet_v2:width_mult=0.5,dropout=0", {"width_mult": 0.5, "dropout": 0}),
        ("vnet:activation=prelu", {"activation": "prelu"}),
    ],
)
def test_text_and_keywords_are_the_same(text: str, options: dict[str, Any]) -> None:
    written = models.build(text)
    assert written == models.build(text.partition(":")[0], **options)
    assert written != models.build(text.partition(":")[0])


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("unet3", UnknownNameError, r"unknown model 'unet3'; did you mean 'unet3d'\?"),
        ("", UnknownNameError, r"unknown model ''"),
        ("unet3d:base_filter=3", UnknownNameError, r"'unet3d' has no option 'base_filter'; did you mean 'base_filters'\?"),
        ("unet3d:levels", UsageError, r"'levels': write option=value"),
        ("unet3d:levels=", UsageError, r"write option=value"),
        ("unet3d:levels=3,levels=4", UsageError, r"'levels' is given twice"),
        ("unet3d:levels=three", UsageError, r"'levels': expected a whole number from 1 to 16, got 'three'"),
        ("unet3d:levels=0", UsageError, r"from 1 to 16, got '0'"),
        ("unet3d:levels=-1", UsageError, r"got '-1'"),
        ("unet3d:levels=2.5", UsageError, r"got '2.5'"),
        ("unet3d:levels=99", UsageError, r"got '99'"),
        ("unet3d:base_filters=" + "9" * 5000, UsageError, r"from 1 to"),
        ("unet3d:inplace=maybe", UsageError, r"expected true or false, got 'maybe'"),
        ("vgg11:dropout=2", UsageError, r"a number from 0 to 1"),
        ("vgg11:dropout=nan", UsageError, r"a number from 0 to 1"),
        ("mobilenet_v2:width_mult=inf", UsageError, r"at most 100"),
        ("vnet:activation=relu", UsageError, r"elu or prelu"),
        ("vnet:in_channels=3", UsageError, r"in_channels \(3\) must divide base_filters \(16\)"),
        ("plain_conv_unet:dims=4", UsageError, r"from 2 to 3"),
        ("plain_conv_unet:features_per_stage=8", UsageError, r"32-64-128, 2 to 16 of them"),
        ("plain_conv_unet:features_per_stage=8-0", UsageError, r"each from 1"),
        ("plain_conv_unet:features_per_stage=8-1x2", UsageError, r"numbers as 32-64-128"),
        ("plain_conv_unet:strides=1-2", UsageError, r"'strides': 6 stages need 6 entries, got 2"),
        ("plain_conv_unet:features_per_stage=8-8,strides=1-2x2", UsageError, r"3 axes need 3 numbers, got 2"),
        ("plain_conv_unet:n_conv_per_stage_decoder=1-2", UsageError, r"6 stages need 5 entries"),
        ("residual_encoder_unet:n_blocks_per_stage=0", UsageError, r"from 1 to 100, got '0'"),
        ("residual_encoder_unet:n_blocks_per_stage=1-0-1-1-1-1", UsageError, r"each from 1 to 100"),
    ],
)
def test_what_is_wrong_is_said(text: str, error: type[MemestError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        models.build(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"levels": True}, {"levels": 2.0}, {"levels": None}, {"levels": [3]}, {"inplace": 3}, {"base_filters": 10**30}]
)
def test_values_of_other_types_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        models.build("unet3d", **options)


@pytest.mark.parametrize("value", [8, "8", (), (8,), (8, None), (8, "x"), ((8, 8), 8), {8: 8}, (8, True)])
def test_stages_of_other_types_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="features_per_stage"):
        models.build("plain_conv_unet", features_per_stage=value)


def test_an_option_in_text_and_as_keyword_is_given_twice() -> None:
    with pytest.raises(UsageError, match="'levels' is given twice"):
        models.build("unet3d:levels=3", levels=3)


def test_names_are_graph_errors_for_the_command_line() -> None:
    with pytest.raises(GraphError):
        models.build("unet4d")


# the same bytes as torch's own module ------------------------------------------------------------------------------------


def _assert_same(graph: Graph, imported: Graph, shape: tuple[int, ...]) -> None:
    """Layers by name; parameters by name, order and kind; the streams of training and inference, release by release."""
    assert [layer.name for layer in graph.layers] == [layer.name for layer in imported.layers]
    assert [(p.name, p.shape, p.dtype, p.buffer, p.trainable) for p in graph.parameters] == [
        (p.name, p.shape, p.dtype, p.buffer, p.trainable) for p in imported.parameters
    ]
    for mode in ("train", "infer"):
        ours, theirs = (estimate(g, input_shape=shape, mode=mode, optimizer="sgd:momentum=0.9", machine=CPU) for g in (graph, imported))
        assert _stream(ours) == _stream(theirs), mode
        assert (ours.standing_bytes, ours.peak_bytes) == (theirs.standing_bytes, theirs.peak_bytes)


def _stream(e: Estimate) -> list[int]:
    return [step.delta for step in e.events]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TORCHVISION])
def test_same_as_torchvision(name: str) -> None:
    torch = pytest.importorskip("torch")
    if find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    from memest.sources.importers.torch.loading import build
    from memest.sources.importers.torch.network import from_torch

    with torch.device("meta"):
        module = build(f"torchvision.models:{name}()")
    imported, graph = from_torch(module, (2, 3, 64, 64)), models.build(name)
    _assert_same(graph, imported, (2, 3, 64, 64))
    _assert_same(graph, imported, ODD)


@pytest.mark.parametrize("variant", [*VARIANTS, *NNUNET], ids=str)
def test_same_as_the_torch_twin(variant: Variant) -> None:
    torch = pytest.importorskip("torch")
    from memest.sources.importers.torch.network import from_torch
    from validation.networks import TWINS

    with torch.device("meta"):
        module = TWINS[variant.name](**variant.options)
    _assert_same(models.build(variant.name, **variant.options), from_torch(module, variant.shape), variant.shape)


@pytest.mark.parametrize("variant", [*VARIANTS[-2:], *NNUNET], ids=str)
def test_same_as_nnunets_own_package(variant: Variant) -> None:
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    from memest.sources.importers.torch.network import from_torch

    with torch.device("meta"):
        module = _nnunet(package, variant)
    _assert_same(models.build(variant.name, **variant.options), from_torch(module, variant.shape), variant.shape)


def _nnunet(package: Any, variant: Variant) -> Any:
    """The package's network with the configuration of nnU-Net's plans."""
    from torch import nn

    given = {o.name: o.default for o in MODELS[variant.name].options} | dict(variant.options)
    dims, stages = given.pop("dims"), len(given["features_per_stage"])
    given["strides"] = given["strides"] or (1, *(2,) * (stages - 1))
    if variant.name == "residual_encoder_unet":
        given["n_blocks_per_stage"] = given["n_blocks_per_stage"] or (1, 3, 4, 6, 6, 6)[:stages]
    network = package.PlainConvUNet if variant.name == "plain_conv_unet" else package.ResidualEncoderUNet
    return network(
        n_stages=stages,
        conv_op=nn.Conv2d if dims == 2 else nn.Conv3d,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **given,
    )
