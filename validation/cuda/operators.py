"""Operators of convolutional networks and transformers at the sizes of real ones, in the dtypes and layouts that decide about memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from validation.cuda.calls import BFLOAT, HALF, Call, Embedding, Function, HalfInput, InEval, SelfAttention, Shape, Twice, attention_by
from validation.cuda.parallel import synced

IMAGE = (32, 64, 56, 56)
VOLUME = (2, 32, 64, 64, 64)
MASK = (2, 1, 128, 128, 128)
RESNET: tuple[tuple[str, int, int, int, int, int], ...] = (  # name, channels in and out, kernel, image, stride: its convolutions, batch 32
    ("7x7s2 3-64 @224", 3, 64, 7, 224, 2),
    ("3x3 64-64 @56", 64, 64, 3, 56, 1),
    ("1x1 64-256 @56", 64, 256, 1, 56, 1),
    ("1x1 256-64 @56", 256, 64, 1, 56, 1),
    ("3x3s2 128-128 @56", 128, 128, 3, 56, 2),
    ("1x1s2 256-512 @56", 256, 512, 1, 56, 2),
    ("3x3 256-256 @14", 256, 256, 3, 14, 1),
    ("1x1 1024-2048s2 @14", 1024, 2048, 1, 14, 2),
    ("3x3 512-512 @7", 512, 512, 3, 7, 1),
)


def calls() -> tuple[Call, ...]:
    """All cases."""
    return (
        *_images(), *_single_images(), *_depthwise(), *_volumes(), *_normalization(), *_pointwise(), *_pooling(), *_moving(),
        *_reductions(), *_products(), *_losses(), *_attention(), *synced(),
    )  # fmt: skip


def _function(name: str, function: Callable[..., Any], *shapes: Shape, **given: Any) -> Call:
    return Call(name=name, make=partial(Function, function), shapes=shapes, **given)


def _module(name: str, make: Callable[[], nn.Module], shape: Shape, **given: Any) -> Call:
    return Call(name=name, make=make, shapes=(shape,), **given)


# convolutions ------------------------------------------------------------------------------------------------------------


def _conv2d(
    name: str, batch: int, channels: int, out: int, kernel: int, size: int, stride: int = 1, *, dilation: int = 1, groups: int = 1,
    bias: bool = False, **given: Any,
) -> Call:  # fmt: skip
    padding = kernel // 2 * dilation
    make = partial(nn.Conv2d, channels, out, kernel, stride, padding, dilation, groups, bias=bias)
    return _module(f"conv2d {name}", make, (batch, channels, size, size), **given)


def _images() -> Iterator[Call]:
    """ResNet's convolutions: float32, half in both layouts, under autocast; some measured by trying, without cuDNN, without gradients."""
    for name, *sizes in RESNET:
        yield _conv2d(f"fp32 {name}", 32, *sizes)
        yield _conv2d(f"fp16 channels_last {name}", 32, *sizes, dtype=HALF, channels_last=True)
    for name, *sizes in RESNET[:6]:
        yield _conv2d(f"fp16 {name}", 32, *sizes, dtype=HALF)
        yield _conv2d(f"amp fp16 {name}", 32, *sizes, autocast=HALF)
    for name, *sizes in RESNET[1:4]:
        yield _conv2d(f"fp32 channels_last {name}", 32, *sizes, channels_last=True)
        yield _conv2d(f"bf16 amp {name}", 32, *sizes, autocast=BFLOAT)
        yield _conv2d(f"fp32 benchmark {name}", 32, *sizes, benchmark=True)
        yield _conv2d(f"fp32 no cudnn {name}", 32, *sizes, cudnn=False)
        yield _conv2d(f"fp32 eval {name}", 32, *sizes, train=False)


def _single_images() -> Iterator[Call]:
    yield _conv2d("fp32 bias 3x3 64-64 @56", 32, 64, 64, 3, 56, bias=True)
    yield _conv2d("fp32 input without grad 7x7s2", 32, 3, 64, 7, 224, 2, input_grad=False)
    yield _conv2d("fp32 batch 1 3x3 64-64 @56", 1, 64, 64, 3, 56)
    yield _conv2d("fp32 batch 256 3x3 64-64 @56", 256, 64, 64, 3, 56)
    yield _conv2d("fp32 dilated 2 512-512 @65", 2, 512, 512, 3, 65, dilation=2)
    yield _conv2d("fp32 dilated 12 2048-256 @65", 2, 2048, 256, 3, 65, dilation=12)
    yield _conv2d("fp32 grouped 32 128-128 @56", 32, 128, 128, 3, 56, groups=32)
    yield _conv2d("fp16 grouped 32 128-128 @56", 32, 128, 128, 3, 56, groups=32, dtype=HALF, channels_last=True)
    yield _conv2d("fp16 odd channels 3-5 @64", 8, 3, 5, 3, 64, dtype=HALF)
    yield _conv2d("fp16 channels_last odd channels 3-64 @224", 32, 3, 64, 3, 224, dtype=HALF, channels_last=True)
    yield _conv2d("fp32 U-Net 64-64 @512x512", 2, 64, 64, 3, 512)
    yield _conv2d("fp32 U-Net 1024-512 @32", 4, 1024, 512, 3, 32)
    yield _module("conv1d fp32 64-128 k3 @4096", partial(nn.Conv1d, 64, 128, 3, padding=1), (8, 64, 4096))
    for layout in (False, True):
        last = partial(nn.Conv2d, 512, 1, 4, bias=False)
        yield _module(f"conv2d fp32 to one pixel 512-1 4x4 {'channels_last' * layout}".rstrip(), last, (8, 512, 4, 4), channels_last=layout)
    first = partial(nn.ConvTranspose2d, 1, 64, 4, bias=False)
    yield _module("conv_transpose2d fp32 channels_last from one pixel 1-64 4x4", first, (8, 1, 1, 1), channels_last=True)
    transposed = partial(nn.ConvTranspose2d, 128, 64, 2, 2)
    yield _module("conv_transpose2d fp32 2x2s2 128-64 @128", transposed, (4, 128, 128, 128))
    transposed = partial(nn.ConvTranspose2d, 256, 128, 4, 2, 1)
    half: dict[str, Any] = {"dtype": HALF, "channels_last": True}
    yield _module("conv_transpose2d fp16 channels_last 4x4s2 256-128 @64", transposed, (4, 256, 64, 64), **half)


def _depthwise() -> Iterator[Call]:
    half: dict[str, Any] = {"dtype": HALF}
    yield _conv2d("fp32 depthwise 3x3 96 @112", 32, 96, 96, 3, 112, groups=96)
    yield _conv2d("fp32 depthwise 3x3s2 96 @112", 32, 96, 96, 3, 112, 2, groups=96)
    yield _conv2d("fp32 depthwise 7x7 96 @56", 32, 96, 96, 7, 56, groups=96)
    yield _conv2d("fp32 channels_last depthwise 7x7 96 @56", 32, 96, 96, 7, 56, groups=96, channels_last=True)
    yield _conv2d("fp16 depthwise 3x3 96 @112", 32, 96, 96, 3, 112, groups=96, **half)
    yield _conv2d("fp16 channels_last depthwise 3x3 96 @112", 32, 96, 96, 3, 112, groups=96, channels_last=True, **half)
    yield _conv2d("fp16 channels_last depthwise 7x7 96 @56", 32, 96, 96, 7, 56, groups=96, channels_last=True, **half)


def _conv3d(name: str, channels: int, out: int, kernel: int, side: int, stride: int = 1, *, bias: bool = False, **given: Any) -> Call:
    make = partial(nn.Conv3d, channels, out, kernel, stride, kernel // 2, bias=bias)
    return _module(f"conv3d {name}", make, (2, channels, side, side, side), **given)


def _volumes() -> Iterator[Call]:
    """A 3-D U-Net's convolutions, in float32 and under autocast; those of video networks."""
    unet = (
        ("3x3x3 1-32 @128^3", 1, 32, 3, 128), ("3x3x3 32-32 @128^3", 32, 32, 3, 128), ("3x3x3 64-64 @64^3", 64, 64, 3, 64),
        ("3x3x3 128-128 @32^3", 128, 128, 3, 32), ("3x3x3 320-320 @8^3", 320, 320, 3, 8), ("1x1x1 32-3 @128^3", 32, 3, 1, 128),
    )  # fmt: skip
    for name, *sizes in unet:
        yield _conv3d(f"fp32 {name}", *sizes)
        yield _conv3d(f"amp fp16 {name}", *sizes, autocast=HALF, bias=True)
    yield _conv3d("fp16 channels_last_3d 32-32 @128^3", 32, 32, 3, 128, dtype=HALF, channels_last=True)
    yield _conv3d("fp32 stride 2 32-64 @128^3", 32, 64, 3, 128, 2)
    yield _conv3d("fp32 no cudnn 32-32 @32^3", 32, 32, 3, 32, cudnn=False)
    depthwise = partial(nn.Conv3d, 64, 64, 3, 1, 1, groups=64, bias=False)
    yield _module("conv3d fp32 depthwise 64 @16x56x56", depthwise, (8, 64, 16, 56, 56))
    yield _module("conv3d fp16 depthwise 64 @16x56x56", depthwise, (8, 64, 16, 56, 56), dtype=HALF)
    stem = partial(nn.Conv3d, 3, 64, (5, 7, 7), 2, (2, 3, 3), bias=False)
    yield _module("conv3d fp32 5x7x7 3-64 @32x224", stem, (8, 3, 32, 224, 224))
    in_space = partial(nn.Conv3d, 64, 64, (1, 3, 3), padding=(0, 1, 1), bias=False)
    yield _module("conv3d fp32 1x3x3 64-64 @8x56", in_space, (8, 64, 8, 56, 56))
    in_time = partial(nn.Conv3d, 256, 256, (3, 1, 1), padding=(1, 0, 0), bias=False)
    yield _module("conv3d fp32 3x1x1 256-256 @8x14", in_time, (8, 256, 8, 14, 14))
    up = partial(nn.ConvTranspose3d, 64, 32, 2, 2)
    yield _module("conv_transpose3d fp32 2x2x2s2 64-32 @64^3", up, (2, 64, 64, 64, 64))
    yield _module("conv_transpose3d amp 2x2x2s2 64-32 @64^3", up, (2, 64, 64, 64, 64), autocast=HALF)


# normalization -----------------------------------------------------------------------------------------------------------


def _after_conv(norm: Callable[[], nn.Module], conv: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(conv(), norm())


def _half_batch_norm(dims: int, channels: int) -> nn.Module:
    return HalfInput((nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(channels))


def _normalization() -> Iterator[Call]:
    for channels, size in ((64, 112), (256, 56), (2048, 7)):
        shape, at = (32, channels, size, size), f"{channels} @{size}"
        yield _module(f"batch_norm2d fp32 {at}", partial(nn.BatchNorm2d, channels), shape)
        name = f"batch_norm2d fp16 in, fp32 weights, channels_last {at}"
        yield _module(name, partial(_half_batch_norm, 2, channels), shape, channels_last=True)
    shape, norm = (32, 256, 56, 56), partial(nn.BatchNorm2d, 256)
    yield _module("batch_norm2d fp32 channels_last 256 @56", norm, shape, channels_last=True)
    yield _module("batch_norm2d fp32 no cudnn 256 @56", norm, shape, cudnn=False)
    yield _module("batch_norm2d eval 256 @56", norm, shape, train=False)
    yield _module("batch_norm2d eval mode with gradient 256 @56", lambda: InEval(norm()), shape)
    after = partial(_after_conv, partial(nn.BatchNorm2d, 64), partial(nn.Conv2d, 64, 64, 3, padding=1, bias=False))
    yield _module("batch_norm2d amp after conv 64 @56", after, IMAGE, autocast=HALF)
    yield _module("batch_norm2d amp after conv channels_last 64 @56", after, IMAGE, autocast=HALF, channels_last=True)
    yield _module("batch_norm1d fp32 512 x 4096", partial(nn.BatchNorm1d, 512), (4096, 512))
    yield _module("batch_norm3d fp32 32 @64^3", partial(nn.BatchNorm3d, 32), VOLUME)
    yield _module("batch_norm3d fp16 channels_last 32 @64^3", partial(_half_batch_norm, 3, 32), VOLUME, channels_last=True)
    instance = partial(nn.InstanceNorm3d, 32, affine=True)
    yield _module("instance_norm3d fp32 affine 32 @64^3", instance, VOLUME)
    after = partial(_after_conv, instance, partial(nn.Conv3d, 32, 32, 3, padding=1))
    yield _module("instance_norm3d amp after conv 32 @64^3", after, VOLUME, autocast=HALF)
    yield _module("instance_norm2d fp32 64 @128", partial(nn.InstanceNorm2d, 64), (4, 64, 128, 128))
    group, shape = partial(nn.GroupNorm, 32, 256), (16, 256, 56, 56)
    yield _module("group_norm fp32 32 groups 256 @56", group, shape)
    yield _module("group_norm fp32 channels_last 256 @56", group, shape, channels_last=True)
    yield _module("group_norm fp16 256 @56", group, shape, dtype=HALF)
    layer, tokens = partial(nn.LayerNorm, 768), (32, 197, 768)
    yield _module("layer_norm fp32 96 @56x56", partial(nn.LayerNorm, 96), (16, 56, 56, 96))
    yield _module("layer_norm fp16 768 x 197", layer, tokens, dtype=HALF)
    yield _module("layer_norm amp 768 x 197", partial(_after_conv, layer, partial(nn.Linear, 768, 768)), tokens, autocast=HALF)
    yield _module("rms_norm fp32 768 x 197", partial(nn.RMSNorm, 768), tokens)


# activations, dropout, pooling -------------------------------------------------------------------------------------------


def _pointwise() -> Iterator[Call]:
    activations = (
        F.relu, F.gelu, F.silu, F.leaky_relu, torch.sigmoid, F.hardswish, F.mish, F.elu, F.softplus, torch.tanh, F.relu6, F.hardsigmoid
    )  # fmt: skip
    for function in activations:
        yield _function(function.__name__, function, IMAGE)
    yield _function("relu inplace after add", lambda a, b: F.relu_(a + b), IMAGE, IMAGE)
    yield _function("leaky_relu inplace after add", lambda a, b: F.leaky_relu_(a + b, 0.01), IMAGE, IMAGE)
    yield _function("prelu", F.prelu, IMAGE, (64,))
    yield _function("mul broadcast (squeeze-excite)", torch.mul, IMAGE, (32, 64, 1, 1))
    yield _function("dropout 0.5", lambda a: F.dropout(a, 0.5), (32, 4096))
    yield _function("dropout2d 0.1", lambda a: F.dropout2d(a, 0.1), IMAGE)
    yield _function("dropout fp16", lambda a: F.dropout(a, 0.1), (32, 197, 768), dtype=HALF)
    yield _function("softmax", lambda a: F.softmax(a, -1), (32, 12, 197, 197))
    yield _function("softmax over channel", lambda a: F.softmax(a, 1), (2, 19, 256, 256))
    yield _function("log_softmax fp16 to fp32", lambda a: F.log_softmax(a, 1, dtype=torch.float32), (256, 1000), dtype=HALF)


def _pooling() -> Iterator[Call]:
    large, pooled = (32, 64, 112, 112), (32, 2048, 7, 7)
    yield _function("max_pool2d 3s2p1", lambda a: F.max_pool2d(a, 3, 2, 1), large)
    yield _function("max_pool2d channels_last fp16", lambda a: F.max_pool2d(a, 3, 2, 1), large, dtype=HALF, channels_last=True)
    yield _function("max_pool2d 2", lambda a: F.max_pool2d(a, 2), IMAGE)
    yield _function("max_pool2d no grad", lambda a: F.max_pool2d(a, 2), IMAGE, train=False)
    yield _function("max_pool3d 2", lambda a: F.max_pool3d(a, 2), VOLUME)
    yield _function("max_pool3d 1x3x3s1x2x2", lambda a: F.max_pool3d(a, (1, 3, 3), (1, 2, 2), (0, 1, 1)), (8, 64, 8, 112, 112))
    yield _function("avg_pool2d 2", lambda a: F.avg_pool2d(a, 2), IMAGE)
    yield _function("avg_pool3d 2", lambda a: F.avg_pool3d(a, 2), VOLUME)
    yield _function("adaptive_avg_pool2d 1", lambda a: F.adaptive_avg_pool2d(a, 1), pooled)
    yield _function("adaptive_avg_pool2d 1 channels_last", lambda a: F.adaptive_avg_pool2d(a, 1), pooled, channels_last=True)
    yield _function("adaptive_avg_pool2d 3", lambda a: F.adaptive_avg_pool2d(a, 3), (4, 512, 65, 65))
    yield _function("adaptive_avg_pool3d 1", lambda a: F.adaptive_avg_pool3d(a, 1), (8, 2048, 4, 7, 7))
    yield _function("adaptive_max_pool2d 7", lambda a: F.adaptive_max_pool2d(a, 7), IMAGE)


# shapes, indices, reductions ---------------------------------------------------------------------------------------------


def _moving() -> Iterator[Call]:
    rows = (4096, 256)
    bilinear: dict[str, Any] = {"scale_factor": 4, "mode": "bilinear", "align_corners": False}
    yield _function("interpolate bilinear x4", lambda a: F.interpolate(a, **bilinear), (2, 19, 128, 256))
    yield _function("interpolate nearest x2", lambda a: F.interpolate(a, scale_factor=2, mode="nearest"), IMAGE)
    trilinear: dict[str, Any] = {"scale_factor": 2, "mode": "trilinear", "align_corners": False}
    yield _function("interpolate trilinear x2", lambda a: F.interpolate(a, **trilinear), (1, 32, 32, 32, 32))
    yield _function("interpolate bicubic x2", lambda a: F.interpolate(a, scale_factor=2, mode="bicubic"), (2, 19, 64, 64))
    yield _function("cat two", lambda a, b: torch.cat([a, b], 1), IMAGE, IMAGE)
    yield _function("cat channels_last", lambda a, b: torch.cat([a, b], 1), IMAGE, IMAGE, channels_last=True)
    yield _function("stack two", lambda a, b: torch.stack([a, b], 1), IMAGE, IMAGE)
    yield _function("pad reflect", lambda a: F.pad(a, (1, 1, 1, 1), mode="reflect"), IMAGE)
    yield _function("pad constant", lambda a: F.pad(a, (1, 1, 1, 1)), IMAGE)
    yield _function("pixel_shuffle 2", lambda a: F.pixel_shuffle(a, 2), IMAGE)
    yield _function("grid_sample", lambda a, grid: F.grid_sample(a, grid, align_corners=False), (4, 64, 64, 64), (4, 64, 64, 2))
    yield _function("index_select", lambda a: a.index_select(0, torch.arange(64, device=a.device) % a.shape[0]), rows)
    picked = lambda a: a[torch.arange(256, device=a.device) % a.shape[0]]  # noqa: E731
    yield _function("index backward (index_put accumulate)", picked, rows)
    yield _function("gather", lambda a: a.gather(1, torch.zeros(a.shape[0], 1, dtype=torch.long, device=a.device)), rows)
    yield _function("nonzero", lambda a: torch.nonzero(a > 0), (1 << 20,), train=False)
    yield _function("masked_select", lambda a: a[a > 0], (1 << 20,), train=False)


def _reductions() -> Iterator[Call]:
    yield _function("mean over space", lambda a: a.mean((2, 3)), IMAGE)
    yield _function("sum of everything", lambda a: a.sum(), IMAGE)
    yield _function("std_mean over space", lambda a: torch.var_mean(a, (0, 2, 3)), IMAGE)
    yield _function("max over channel", lambda a: a.max(1).values, IMAGE)
    yield _function("norm of everything", lambda a: a.norm(), IMAGE)
    yield _function("cumsum", lambda a: a.cumsum(1), (4096, 1024))
    yield _function("sort", lambda a: a.sort(1).values, (4096, 1024))
    yield _function("sort long row", lambda a: a.sort().values, (1 << 22,))
    yield _function("topk 8", lambda a: a.topk(8, 1).values, (4096, 1024))


# products ----------------------------------------------------------------------------------------------------------------


def _products() -> Iterator[Call]:
    square, left, right = (4096, 4096), (64, 197, 64), (64, 64, 197)
    yield _function("matmul fp32 4096", torch.matmul, square, square)
    yield _function("matmul fp16 4096", torch.matmul, square, square, dtype=HALF)
    yield _function("matmul small", torch.matmul, (64, 64), (64, 64))
    yield _function("bmm fp32", torch.bmm, left, right)
    yield _function("einsum", lambda a, b: torch.einsum("bik,bkj->bij", a, b), left, right)
    head, features = partial(nn.Linear, 2048, 1000), (256, 2048)
    yield _module("linear fp32 2048-1000", head, features)
    yield _module("linear fp16 2048-1000", head, features, dtype=HALF)
    yield _module("linear amp 2048-1000", head, features, autocast=HALF)
    yield _module("linear fp32 without bias", partial(nn.Linear, 2048, 1000, bias=False), features)
    yield _module("linear amp twice (weight cache)", lambda: Twice(nn.Linear(2048, 2048)), features, autocast=HALF)
    yield _module("linear fp32 3-D input", partial(nn.Linear, 768, 3072), (32, 197, 768))
    yield _module("embedding 30000x256", partial(Embedding, 30000, 256), (32, 128), input_grad=False)


# losses ------------------------------------------------------------------------------------------------------------------


def _losses() -> Iterator[Call]:
    def classes(name: str, function: Callable[..., Any], shape: Shape, *rows: tuple[str, dict[str, Any]]) -> Call:
        return _function(f"cross_entropy {name}", function, shape, target="classes", rows=rows)

    def numbers(name: str, function: Callable[..., Any], *rows: tuple[str, dict[str, Any]]) -> Call:
        return _function(name, function, MASK, target="numbers", rows=rows)

    city = (2, 19, 512, 1024)
    plain: tuple[str, dict[str, Any]] = ("cross_entropy", {})
    smoothed: dict[str, Any] = {"label_smoothing": 0.1}
    yield classes("1000 classes", F.cross_entropy, (256, 1000), plain)
    yield classes("label smoothing", partial(F.cross_entropy, **smoothed), (256, 1000), ("cross_entropy", smoothed))
    yield classes("2-D 19 classes", F.cross_entropy, city, plain)
    yield classes("3-D 4 classes", F.cross_entropy, (2, 4, 64, 64, 64), plain)
    apart = lambda a, y: F.cross_entropy(a, y, reduction="none").mean()  # noqa: E731
    yield classes("2-D none then mean", apart, city, ("cross_entropy", {"reduction": "none"}), ("mean", {}))
    yield numbers("bce_with_logits", F.binary_cross_entropy_with_logits, ("binary_cross_entropy_with_logits", {}))
    of_sigmoid = lambda a, y: F.binary_cross_entropy(torch.sigmoid(a), y)  # noqa: E731
    yield numbers("bce of sigmoid", of_sigmoid, ("sigmoid", {}), ("binary_cross_entropy", {}))
    yield numbers("mse", F.mse_loss, ("mse_loss", {}))
    yield numbers("smooth_l1", F.smooth_l1_loss, ("smooth_l1_loss", {}))


# attention ---------------------------------------------------------------------------------------------------------------


def _attention() -> Iterator[Call]:
    short, long = ((8, 12, 197, 64),) * 3, ((8, 12, 1024, 64),) * 3
    attend = F.scaled_dot_product_attention
    yield _function("sdpa fp16", attend, *short, dtype=HALF)
    yield _function("sdpa bf16", attend, *short, dtype=BFLOAT)
    yield _function("sdpa fp32", attend, *short)
    yield _function("sdpa fp16 causal", partial(attend, is_causal=True), *short, dtype=HALF)
    yield _function("sdpa fp16 dropout", partial(attend, dropout_p=0.1), *short, dtype=HALF)
    for backend in ("MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"):
        yield _function(f"sdpa {backend} fp16", attention_by(backend), *long, dtype=HALF)
    tokens = (8, 197, 768)
    yield _module("multihead_attention fp32 768", partial(SelfAttention, 768, 12), tokens)
    layer = partial(nn.TransformerEncoderLayer, 768, 12, 3072, 0.1, batch_first=True)
    yield _module("transformer layer amp 768", layer, tokens, autocast=HALF)
