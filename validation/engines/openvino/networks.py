"""The networks measured on OpenVINO: modules of torch and torchvision, two shapes each. Needs torch; comparing does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

IMAGE = ((1, 3, 224, 224), (4, 3, 256, 192))
SCENE = ((1, 3, 256, 256), (2, 3, 320, 224))
CLIP = ((1, 3, 16, 112, 112), (2, 3, 16, 128, 96))
VOLUME = ((1, 1, 64, 64, 64), (2, 1, 48, 64, 32))
CLASSIFIERS = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "mnasnet1_0", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d", "shufflenet_v2_x1_0", "squeezenet1_1", "swin_t",
    "vgg16",
)  # fmt: skip
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    **dict.fromkeys(CLASSIFIERS, IMAGE),
    "googlenet": IMAGE,
    "inception_v3": ((1, 3, 299, 299), (4, 3, 299, 331)),
    "vit_b_16": ((1, 3, 224, 224), (4, 3, 224, 224)),
    **dict.fromkeys(("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"), SCENE),
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), CLIP),
    "s3d": ((1, 3, 16, 224, 224), (2, 3, 16, 256, 224)),
    **dict.fromkeys(("unet3d", "vnet", "plain_conv_unet", "residual_encoder_unet"), VOLUME),
    **dict.fromkeys(("unet2d", "unet2d_bilinear"), ((1, 3, 256, 256), (2, 3, 192, 320))),
}
"""The shapes of each network."""


def cases() -> list[tuple[str, tuple[int, ...]]]:
    """Network and shape of each case."""
    return [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]


def module(name: str) -> Any:
    """The network, ready to infer, as training leaves it."""
    import torch

    from validation.modules import trained

    torch.manual_seed(0)
    return trained(_made(name)().eval())


def _made(name: str) -> Callable[[], Any]:
    import torch
    from torchvision import models

    from validation import networks

    own: dict[str, Callable[[], Any]] = {
        "unet3d": networks.UNet3d,
        "unet2d": networks.UNet2d,
        "unet2d_bilinear": lambda: networks.UNet2d(bilinear=True),
        "vnet": networks.VNet,
        "plain_conv_unet": lambda: networks.PlainConvUNet(features_per_stage=(32, 64, 128, 256, 320)),
        "residual_encoder_unet": lambda: networks.ResidualEncoderUNet(features_per_stage=(32, 64, 128, 256, 320)),
    }
    if name in own:
        return own[name]
    if name in ("googlenet", "inception_v3"):
        return lambda: getattr(models, name)(weights=None, aux_logits=False, init_weights=False)
    if hasattr(models.segmentation, name):
        return lambda: Output(getattr(models.segmentation, name)(weights=None, weights_backbone=None))
    home = models.video if hasattr(models.video, name) else models
    assert torch
    return lambda: getattr(home, name)(weights=None)


def Output(network: Any) -> Any:  # noqa: N802
    """A segmentation network that returns its segmentation alone."""
    import torch

    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = network

        def forward(self, x: Any) -> Any:
            return self.m(x)["out"]

    return Alone()
