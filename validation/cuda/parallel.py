"""Whole steps of one of several ranks, and nn.SyncBatchNorm by itself.

Networks are called at shapes and in precisions of :mod:`networks <validation.cuda.networks>`, whose convolutions' plans are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from validation.cuda.calls import BFLOAT, HALF, Call, HalfInput, InEval, Shape
from validation.cuda.networks import IMAGE, VIDEO, Network

BLOCKS = "blocks=layer1+layer2+layer3+layer4"
SGD, ADAM = "sgd:momentum=0.9", "adam"
HALVES, BFLOATS, LAST = "autocast:dtype=float16", "autocast:dtype=bfloat16", "channels_last"
RESNET18: tuple[tuple[str, tuple[str, ...]], ...] = (  # an optimizer, levers
    ("sgd", ("ddp",)),
    (SGD, ("ddp:world=8",)),
    (ADAM, ("ddp:gradient_as_bucket_view=true",)),
    (SGD, ("ddp:bucket_cap_mb=5,broadcast_buffers=false",)),
    ("adamw", (HALVES, "ddp:world=8")),
    (SGD, (BFLOATS, "ddp:gradient_as_bucket_view=true")),
    ("adamw:fused=true", (LAST, "ddp")),
    (SGD, ("ddp:static_graph=true",)),
    (SGD, ("ddp:static_graph=true,gradient_as_bucket_view=true",)),
    (ADAM, ("ddp:find_unused_parameters=true",)),
    (SGD, ("accumulate:steps=3", "ddp")),
    (SGD, ("accumulate:steps=2", "ddp:gradient_as_bucket_view=true")),
    (SGD, ("accumulate:steps=2", "ddp:static_graph=true")),
    (SGD, ("accumulate:steps=4", "ddp:static_graph=true")),
    (SGD, (HALVES, "clip:norm=1", "ddp:gradient_as_bucket_view=true")),
    (SGD, ("ema", "ddp")),
    (SGD, ("freeze:modules=layer1", "ddp")),
    (ADAM, ("offload_optimizer", "ddp")),
    (SGD, ("checkpoint:modules=layer2", "ddp")),
    (SGD, ("ddp:sync_batch_norm=true",)),
    (ADAM, ("ddp:sync_batch_norm=true,world=8",)),
    (SGD, (LAST, "ddp:sync_batch_norm=true")),
    ("adamw", (HALVES, "ddp:sync_batch_norm=true")),
    (SGD, (BFLOATS, "ddp:sync_batch_norm=true,gradient_as_bucket_view=true")),
    (ADAM, ("zero:stage=1",)),
    (ADAM, ("zero:stage=1,world=4,rank=3,gradient_as_bucket_view=true",)),
    ("adadelta", ("zero:stage=1,world=8",)),
    (ADAM, (f"zero:stage=2,{BLOCKS}",)),
    (ADAM, ("zero:stage=3,world=3,rank=2",)),
    (ADAM, (f"fsdp:{BLOCKS}",)),
    (SGD, (f"fsdp:{BLOCKS},world=8,rank=7",)),
    ("adamw:fused=true", (HALVES, f"fsdp:{BLOCKS}")),
    (SGD, (HALVES, f"fsdp:{BLOCKS},world=8")),
    (ADAM, ("fsdp:blocks=layer1+layer2,reshard_after_forward=true",)),
    (ADAM, ("checkpoint:modules=layer2", "fsdp:blocks=layer1+layer1.0+layer4,world=3")),
    ("sgd", ("freeze:modules=layer1", f"fsdp:{BLOCKS}")),
    (SGD, ("accumulate:steps=3", f"fsdp:{BLOCKS}")),
)
OTHERS: tuple[tuple[str, Shape, str, tuple[str, ...]], ...] = (  # of torchvision.models
    (":resnet50(weights=None)", IMAGE, SGD, ("ddp:world=8",)),
    (":resnet50(weights=None)", IMAGE, ADAM, (HALVES, "ddp:sync_batch_norm=true,world=8")),
    (":resnet50(weights=None)", IMAGE, ADAM, (f"fsdp:{BLOCKS},world=8",)),
    (":densenet121(weights=None)", IMAGE, SGD, ("ddp",)),
    (":vgg11_bn(weights=None)", IMAGE, "adamw", ("zero:stage=1",)),
    (":googlenet(weights=None, init_weights=False)", IMAGE, SGD, ("ddp:find_unused_parameters=true",)),
    (":vit_b_16(weights=None)", IMAGE, "adamw", ("fsdp:world=4",)),
    (":swin_t(weights=None)", IMAGE, "adamw", ("ddp",)),
    (".video:r3d_18(weights=None)", VIDEO["r3d_18"], SGD, ("ddp:sync_batch_norm=true",)),
    (".video:r3d_18(weights=None)", VIDEO["r3d_18"], SGD, (LAST, "ddp:sync_batch_norm=true")),
)


def cases() -> Iterator[Network]:
    """All steps."""
    network = Network(model="torchvision.models:resnet18(weights=None)", shape=IMAGE, loss="cross_entropy")
    for optimizer, levers in RESNET18:
        yield replace(network, optimizer=optimizer, levers=levers)
    for model, shape, optimizer, levers in OTHERS:
        yield replace(network, model=f"torchvision.models{model}", shape=shape, optimizer=optimizer, levers=levers)
    unet = Network(model="unet3d", shape=(2, 1, 64, 64, 64), loss="binary_cross_entropy_with_logits")
    yield replace(unet, optimizer="sgd", levers=("ddp",))
    yield replace(unet, optimizer=ADAM, levers=("ddp:gradient_as_bucket_view=true,world=8",))


def synced() -> Iterator[Call]:
    """nn.SyncBatchNorm of 2 and 8 ranks, in all kernels that it takes; of one rank, and in evaluation, where it is batch norm."""
    images: Shape = (32, 64, 56, 56)
    plain, bare = partial(nn.SyncBatchNorm, 64), partial(nn.SyncBatchNorm, 64, affine=False, track_running_stats=False)
    for ranks in (2, 8):
        at = f"of {ranks} ranks, 64 @56"
        yield _call(f"sync_batch_norm fp32 {at}", plain, images, ranks)
        yield _call(f"sync_batch_norm fp32 channels_last {at}", plain, images, ranks, channels_last=True)
        yield _call(f"sync_batch_norm fp16 in, fp32 weights {at}", partial(_half, plain), images, ranks)
        yield _call(f"sync_batch_norm fp16 in, fp32 weights, channels_last {at}", partial(_half, plain), images, ranks, channels_last=True)
    yield _call("sync_batch_norm bf16 of 2 ranks, 64 @56", plain, images, 2, dtype=BFLOAT)
    yield _call("sync_batch_norm fp16 of 2 ranks, 64 @56", plain, images, 2, dtype=HALF)
    yield _call("sync_batch_norm fp64 of 3 ranks, 64 @56", plain, images, 3, dtype="float64")
    yield _call("sync_batch_norm amp of 2 ranks, 64 @56", plain, images, 2, autocast=HALF)
    yield _call("sync_batch_norm without weights of 2 ranks, 64 @56", bare, images, 2)
    yield _call("sync_batch_norm without weights, channels_last of 2 ranks, 64 @56", bare, images, 2, channels_last=True)
    yield _call("sync_batch_norm no gradient of the input of 2 ranks, 64 @56", plain, images, 2, input_grad=False)
    yield _call("sync_batch_norm of 2 ranks, 512 x 4096", partial(nn.SyncBatchNorm, 512), (4096, 512), 2)
    volume: Shape = (2, 32, 32, 32, 32)
    yield _call("sync_batch_norm of 2 ranks, 32 @32^3", partial(nn.SyncBatchNorm, 32), volume, 2)
    yield _call("sync_batch_norm channels_last of 2 ranks, 32 @32^3", partial(nn.SyncBatchNorm, 32), volume, 2, channels_last=True)
    yield _call("sync_batch_norm of 1 rank, 64 @56", plain, images, 1)
    yield _call("sync_batch_norm eval of 2 ranks, 64 @56", plain, images, 2, train=False)
    yield _call("sync_batch_norm eval mode with gradient of 2 ranks, 64 @56", lambda: InEval(plain()), images, 2)


def _call(name: str, make: Callable[[], nn.Module], shape: Shape, ranks: int, **given: Any) -> Call:
    return Call(name=name, make=make, shapes=(shape,), ranks=ranks, **given)


def _half(make: Callable[[], nn.Module]) -> nn.Module:
    return HalfInput(make())
