"""The cases that are measured: which network, at which shape, done what with, on which runtime.

A case's identity is everything that changes what torch allocates; a stored result whose case has changed is stale and says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

Shape = tuple[int, ...]
LATER_FIELDS: dict[str, Any] = {  # added when results were stored already: left out of the digest while they say nothing
    "levers": (),
    "dtype": "float32",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measured case. ``model`` is a built-in name with options, or ``package.module:callable(args)``; ``group`` names the claim."""

    group: str
    model: str
    shape: Shape
    mode: str
    optimizer: str = ""
    loss: str = ""
    channels_last: bool = False
    hold_output: bool = False
    first_step: bool = False
    threads: int = 2
    isa: str = "avx512"
    stream: bool = False
    levers: tuple[str, ...] = ()
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """A short file name, unique by a digest of the case."""
        base = self.model.rpartition(":")[2] if ":" in self.model and "." in self.model.partition(":")[0] else self.model
        label = "".join(c if c.isalnum() else "-" for c in base)[:40].strip("-")
        size = "x".join(str(n) for n in self.shape)
        return f"{label}_{size}_{self.mode}_{self.digest}"

    @property
    def digest(self) -> str:
        """Of everything but the group; fields that came later count only where they say something."""
        given = {k: v for k, v in asdict(self).items() if k not in ("group", "stream")}
        fields = {k: v for k, v in given.items() if k not in LATER_FIELDS or v != LATER_FIELDS[k]}
        return hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()[:8]


def _vision(name: str, package: str = "torchvision.models", arguments: str = "") -> str:
    return f"{package}:{name}({arguments})"


TRAININGS = ("sgd:momentum=0.9", "adam", "adamw")
ODD, EVEN = (3, 3, 201, 173), (2, 3, 224, 224)
CLASSIFICATION: dict[str, tuple[Shape, Shape]] = {
    **dict.fromkeys(
        (
            "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "mnasnet1_0", "mobilenet_v2",
            "mobilenet_v3_small", "mobilenet_v3_large", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d",
            "shufflenet_v2_x1_0", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "wide_resnet50_2",
        ),
        (EVEN, ODD),
    ),
    "inception_v3": ((2, 3, 299, 299), (3, 3, 307, 331)),
    "vit_b_16": ((2, 3, 224, 224), (3, 3, 224, 224)),
    "maxvit_t": ((1, 3, 224, 224), (2, 3, 224, 224)),
}  # fmt: skip
SEGMENTATION = ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d")
STREAMS = ("resnet18", "mobilenet_v2", "densenet121", "convnext_tiny")
BUILT_IN: dict[str, tuple[Shape, ...]] = {
    **dict.fromkeys(
        (
            "unet3d", "vnet", "plain_conv_unet:dims=3,features_per_stage=16-32-64-128",
            "residual_encoder_unet:dims=3,features_per_stage=16-32-64-128",
        ),
        ((2, 1, 16, 16, 16), (2, 1, 32, 32, 32), (1, 1, 48, 32, 16), (3, 1, 16, 32, 48), (2, 1, 16, 48, 16), (1, 1, 64, 64, 32)),
    ),
    "unet2d": ((1, 3, 64, 64), (2, 3, 96, 64), (3, 3, 128, 128), (1, 3, 160, 96), (4, 3, 32, 48), (2, 3, 192, 192)),
    **dict.fromkeys(
        (
            "resnet18", "resnet50", "vgg11", "vgg13_bn", "densenet121", "mobilenet_v2", "alexnet", "resnext50_32x4d", "wide_resnet50_2",
            "resnet101",
        ),
        ((1, 3, 224, 224), (2, 3, 64, 64), (3, 3, 101, 73), (2, 3, 128, 160), (5, 3, 96, 96), (2, 3, 193, 129)),
    ),
}  # fmt: skip
CONVERTED: dict[str, tuple[Shape, Shape]] = {
    _vision("resnet50"): ((2, 3, 96, 96), (3, 3, 101, 73)),
    _vision("mobilenet_v2"): ((2, 3, 96, 96), (3, 3, 101, 73)),
    "unet3d": ((2, 1, 16, 16, 16), (1, 1, 48, 32, 16)),
    "plain_conv_unet:dims=2,features_per_stage=16-32-64-128": ((2, 1, 64, 64), (3, 1, 96, 32)),
    "plain_conv_unet:dims=3,features_per_stage=16-32-64-128": ((2, 1, 16, 16, 16), (1, 1, 48, 32, 16)),
}
RUNTIMES: tuple[dict[str, Any], ...] = ({"threads": 1}, {"isa": "avx2"}, {"isa": "avx2", "threads": 1})


def _classification() -> Iterator[Case]:
    for name, shapes in CLASSIFICATION.items():
        arguments = "weights=None, init_weights=False" if name in ("googlenet", "inception_v3") else ""
        model = _vision(name, arguments=arguments)
        for i, shape in enumerate(shapes):
            case = Case(group="classification", model=model, shape=shape, mode="infer", stream=name in STREAMS)
            yield case
            for optimizer in TRAININGS[:2] if i == 0 else TRAININGS[2:]:
                yield replace(case, mode="train", optimizer=optimizer, loss="cross_entropy")


def _dense() -> Iterator[Case]:
    images: tuple[Shape, Shape] = ((2, 3, 96, 96), (3, 3, 101, 85))
    for name in SEGMENTATION:
        model = _vision(name, "torchvision.models.segmentation", "weights_backbone=None")
        for i, shape in enumerate(images):
            yield Case(group="segmentation", model=model, shape=shape, mode="infer")
            for optimizer in TRAININGS[2 * i : 2 * i + 2]:
                yield Case(group="segmentation", model=model, shape=shape, mode="train", optimizer=optimizer, loss="cross_entropy")
    small: tuple[Shape, Shape] = ((1, 3, 16, 64, 64), (2, 3, 14, 67, 61))
    large: tuple[Shape, Shape] = ((1, 3, 16, 224, 224), (1, 3, 15, 225, 231))  # s3d ends in a 7x7 pooling of its 1/32 map
    for name in VIDEO:
        for i, shape in enumerate(large if name == "s3d" else small):
            model = _vision(name, "torchvision.models.video")
            yield Case(group="video", model=model, shape=shape, mode="infer")
            for optimizer in TRAININGS[2 * i : 2 * i + 2]:
                yield Case(group="video", model=model, shape=shape, mode="train", optimizer=optimizer, loss="cross_entropy")


def _built_in() -> Iterator[Case]:
    for model, shapes in BUILT_IN.items():
        dense = any(word in model for word in ("unet", "vnet"))
        loss = "binary_cross_entropy" if model == "unet3d" else "cross_entropy"
        for i, shape in enumerate(shapes):
            case = Case(group="built-in", model=model, shape=shape, mode="infer", stream=model == "unet3d")
            if dense or i % 2:
                yield case
            if not dense and i % 2:
                continue
            yield replace(case, mode="train", optimizer=TRAININGS[i % 3], loss=loss, hold_output=dense and i == 1)


def _runtimes() -> Iterator[Case]:
    """The same networks with one thread, under AVX2, in channels_last, in the first step."""
    for name in ("resnet18", "mobilenet_v2", "densenet121", "convnext_tiny", "resnet50", "googlenet"):
        arguments = "weights=None, init_weights=False" if name == "googlenet" else ""
        model, shape = _vision(name, arguments=arguments), (2, 3, 129, 97)
        case = Case(group="runtimes", model=model, shape=shape, mode="infer")
        training = replace(case, mode="train", optimizer="adam", loss="cross_entropy")
        for changes in (*RUNTIMES, {"channels_last": True}):
            yield replace(case, **changes)
            yield replace(training, **changes)
        yield replace(training, first_step=True)
    volume = Case(group="runtimes", model="unet3d", shape=(2, 1, 32, 32, 32), mode="train", optimizer="adam", loss="binary_cross_entropy")
    image = Case(group="runtimes", model="unet2d", shape=(2, 3, 96, 64), mode="train", optimizer="adam", loss="cross_entropy")
    for changes in RUNTIMES:
        yield replace(volume, **changes)
        yield replace(image, **changes)


def _dtypes() -> Iterator[Case]:
    """Whole networks converted by ``model.to(dtype)``."""
    for dtype in ("float64", "bfloat16", "float16"):
        for model, shapes in CONVERTED.items():
            loss = "binary_cross_entropy_with_logits" if model == "unet3d" else "cross_entropy"
            for i, shape in enumerate(shapes):
                case = Case(group="dtypes", model=model, shape=shape, mode="infer", dtype=dtype)
                if i == 0:
                    yield case
                yield replace(case, mode="train", optimizer=TRAININGS[i], loss=loss, stream=i == 0)


REGIMES: dict[str, tuple[tuple[Shape, Shape], str]] = {
    _vision("resnet50"): (((4, 3, 96, 96), (3, 3, 75, 53)), "layer1+layer2.0"),
    _vision("mobilenet_v2"): (((4, 3, 96, 96), (3, 3, 75, 53)), "features.0+features.1"),
    "unet3d:inplace=false": (((4, 1, 32, 16, 16), (3, 1, 16, 32, 32)), "encoder.0"),
    "plain_conv_unet:dims=2,features_per_stage=16-32-64": (((4, 1, 32, 32), (3, 1, 48, 32)), "encoder.stages.0"),
    "plain_conv_unet:dims=3,features_per_stage=16-32-64": (((4, 1, 16, 16, 16), (3, 1, 32, 16, 16)), "encoder.stages.0"),
}


def _levers() -> Iterator[Case]:
    """Every lever of the training regime alone, and some together, on five networks at two shapes."""
    for model, (shapes, frozen) in REGIMES.items():
        loss = "binary_cross_entropy" if model.startswith("unet3d") else "cross_entropy"
        texts: tuple[tuple[str, ...], ...] = (
            ("accumulate:steps=3",), ("micro_batch:size=2",), ("clip:norm=1",), ("ema",), ("ema:buffers=true",), ("offload_optimizer",),
            (f"freeze:modules={frozen}",), (f"freeze:modules={frozen},eval=true",), ("inplace",), ("channels_last",),
            ("accumulate:steps=2", "micro_batch:size=1,mean=false", "clip:norm=1", "ema", "offload_optimizer", "channels_last"),
            ("autocast",), ("checkpoint:every=1",), ("autocast", "checkpoint:every=1", "accumulate:steps=2"),
        )  # fmt: skip
        for i, shape in enumerate(shapes):
            case = Case(group="levers", model=model, shape=shape, mode="train", optimizer="adam", loss=loss, stream="dims=2" in model)
            for n, levers in enumerate(texts):
                if levers != ("inplace",) or "inplace=false" in model:
                    yield replace(case, levers=levers, optimizer=TRAININGS[(n + i) % 3], hold_output=n == 0 and i == 1)
            for optimizer in ("adam:foreach=true", "adamw:fused=true"):
                yield replace(case, optimizer=optimizer)


def _joined(*parts: tuple[str, int, int]) -> str:
    """``prefix.first`` up to ``prefix.last``, joined as the levers want their blocks."""
    return "+".join(f"{prefix}{i}" for prefix, first, last in parts for i in range(first, last + 1))


WRAPPED: dict[str, tuple[str, tuple[Shape, Shape]]] = {
    "torchvision.models:resnet50()": (_joined(("layer", 1, 4)), ((2, 3, 128, 128), (3, 3, 97, 65))),
    "torchvision.models:mobilenet_v2()": (_joined(("features.", 0, 18)), ((2, 3, 128, 128), (3, 3, 97, 65))),
    "validation.networks:UNet3d()": (_joined(("encoder.", 0, 4), ("decoder.", 0, 3)), ((1, 1, 64, 64, 32), (2, 1, 16, 32, 48))),
    "validation.networks:PlainConvUNet(features_per_stage=(16, 32, 64, 128))": (
        _joined(("encoder.stages.", 0, 3), ("decoder.stages.", 0, 2)), ((1, 1, 64, 64, 32), (2, 1, 16, 48, 32))
    ),
}  # fmt: skip


def _parallel() -> Iterator[Case]:
    """One rank of two, as DistributedDataParallel, ZeroRedundancyOptimizer and fully_shard leave it."""
    for model, (blocks, shapes) in WRAPPED.items():
        loss = "binary_cross_entropy" if "UNet3d" in model else "cross_entropy"
        ddp, zero, view = "ddp", "zero:stage=1", "ddp:gradient_as_bucket_view=true"
        if "PlainConvUNet" in model:  # the loss takes one of its heads
            ddp, zero, view = (f"{text}find_unused_parameters=true" for text in (f"{ddp}:", f"{zero},", f"{view},"))
        for i, shape in enumerate(shapes):
            case = Case(group="parallel", model=model, shape=shape, mode="train", optimizer=TRAININGS[1 - i], loss=loss, threads=1)
            others = (zero, view) if i else (f"zero:stage=2,blocks={blocks}",)
            for lever in (ddp, f"fsdp:blocks={blocks}", *others):
                yield replace(case, levers=(lever,))
            yield replace(case, levers=(ddp, "autocast", "accumulate:steps=2") if i else (f"fsdp:blocks={blocks}", "checkpoint:every=1"))
    model = "torchvision.models:mobilenet_v2()"
    blocks, (shape, _) = WRAPPED[model]
    case = Case(group="parallel", model=model, shape=shape, mode="train", optimizer="adamw", loss="cross_entropy", threads=1)
    unusual = ("ddp:find_unused_parameters=true", "ddp:static_graph=true", "ddp:broadcast_buffers=false,bucket_cap_mb=1", "fsdp")
    for lever in (*unusual, f"fsdp:blocks={blocks},reshard_after_forward=true", "zero:stage=1,gradient_as_bucket_view=true"):
        yield replace(case, levers=(lever,))


CASES: tuple[Case, ...] = (*_classification(), *_dense(), *_built_in(), *_runtimes(), *_levers(), *_parallel(), *_dtypes())
BY_NAME = {case.name: case for case in CASES}
