"""``did you mean`` speaks where a slip explains the name, and is silent where it would be noise."""

from __future__ import annotations

import pytest

from memest.errors import did_you_mean
from memest.levers.table import LEVERS
from memest.ops.table import COMPOSITES, OPERATORS
from memest.runtimes.torch.losses import LOSSES
from memest.runtimes.torch.optimizers import OPTIMIZERS
from memest.sources.models import MODELS

OPS = [*OPERATORS, *COMPOSITES, "to", "bool"]


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("con2d", OPS, "conv2d"),
        ("Conv2d", OPS, "conv2d"),
        ("maxpool2d", OPS, "max_pool2d"),
        ("batchnorm", OPS, "batch_norm"),
        ("rellu", OPS, "relu"),
        ("cumsumm", OPS, "cumsum"),
        ("resnet19", MODELS, "resnet18"),
        ("alexnt", MODELS, "alexnet"),
        ("mobilenetv2", MODELS, "mobilenet_v2"),
        ("mobilenet", MODELS, "mobilenet_v2"),
        ("unet3", MODELS, "unet3d"),
        ("adm", OPTIMIZERS, "adam"),
        ("sdg", OPTIMIZERS, "sgd"),
        ("nadm", OPTIMIZERS, "nadam"),
        ("cross_entrpy", LOSSES, "cross_entropy"),
        ("chekpoint", LEVERS, "checkpoint"),
        ("channels-last", LEVERS, "channels_last"),
        ("accum", LEVERS, "accumulate"),
        ("t44", ["t4", "h100"], "t4"),
        ("h", ["N", "H", "W"], "H"),
        ("kernel_sise", ["kernel_size", "stride"], "kernel_size"),
    ],
)
def test_a_slip_is_understood(name: str, known: list[str], meant: str) -> None:
    assert did_you_mean(name, known) == f"; did you mean {meant!r}?"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *((name, OPS) for name in ("svd_lowrank", "lobpcg", "ormqr", "device", "quantile", "svdvals")),
        *((name, OPS) for name in ("__bool__", "__int__", "fft_rfft2")),
        *((name, MODELS) for name in ("net.h5", "model.onnx", "yolo", "swin_t", "efficientnet", "bert-base")),
        *((name, OPTIMIZERS) for name in ("lion", "lamb", "lbfgs", "adafactor", "momentum")),
        *((name, LOSSES) for name in ("focal", "triplet", "ctc_loss", "cosine")),
        *((name, LEVERS) for name in ("lora", "quantize", "compile")),
        ("", MODELS),
        ("x", ["N", "H", "W"]),
    ],
)
def test_a_name_of_something_else_gets_no_suggestion(name: str, known: list[str]) -> None:
    assert did_you_mean(name, known) == ""
