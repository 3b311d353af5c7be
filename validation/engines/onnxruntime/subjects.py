"""The networks of the engines' validation, each at two shapes; made where torch and their libraries are installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Shape = tuple[int, ...]
IMAGE: Shape = (1, 3, 224, 224)
CLIP: Shape = (1, 3, 8, 112, 112)
VOLUME: Shape = (1, 1, 64, 64, 64)


class Subject(NamedTuple):
    """``make`` gives the module, for inputs of a ``shape`` and of another."""

    name: str
    make: Callable[[], Any]
    shape: Shape
    other: Shape
    legacy: bool = False


def subjects() -> list[Subject]:
    """All of them."""
    return [*_torchvision(), *_monai(), *_smp()]


def _twice(shape: Shape) -> Shape:
    return (2 * shape[0], *shape[1:])


def _torchvision() -> list[Subject]:
    import torchvision

    images = [
        *("alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "densenet121", "squeezenet1_1"),
        *("googlenet", "inception_v3", "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_large", "mnasnet1_0", "efficientnet_b0"),
        *("regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t"),
    ]
    found = []
    for name in images:
        given = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        shape = (1, 3, 299, 299) if name == "inception_v3" else IMAGE

        def make(name: str = name, given: dict[str, Any] = given) -> Any:
            return getattr(torchvision.models, name)(weights=None, **given)

        found.append(Subject(name, make, shape, _twice(shape)))
    for name in ("r3d_18", "mc3_18", "r2plus1d_18", "s3d"):
        shape = (1, 3, 16, 224, 224) if name == "s3d" else CLIP
        found.append(Subject(name, lambda name=name: getattr(torchvision.models.video, name)(weights=None), shape, _twice(shape)))
    for name in ("fcn_resnet50", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large"):
        found.append(Subject(name, lambda name=name: _one_output(name), (1, 3, 256, 256), (2, 3, 256, 256)))
    return found


def _one_output(name: str) -> Any:
    """A segmentation network that gives its map alone."""
    import torch
    import torchvision

    class Map(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None)

        def forward(self, x: Any) -> Any:
            return self.m(x)["out"]

    return Map()


def _monai() -> list[Subject]:
    from monai.networks import nets

    wide, flat = (16, 32, 64, 128), (2, 2, 2)
    makers: dict[str, tuple[Callable[[], Any], Shape]] = {
        "monai_unet2d": (lambda: nets.UNet(2, 1, 2, wide, flat), (1, 1, 128, 128)),
        "monai_unet3d": (lambda: nets.UNet(3, 1, 2, wide, flat, num_res_units=2), VOLUME),
        "monai_unet3d_batch": (lambda: nets.UNet(3, 1, 2, wide, flat, norm="batch"), VOLUME),
        "monai_basicunet2d": (lambda: nets.BasicUNet(2, 1, 2), (1, 1, 128, 128)),
        "monai_basicunet3d": (lambda: nets.BasicUNet(3, 1, 2, features=(16, 16, 32, 64, 128, 16)), VOLUME),
        "monai_vnet": (lambda: nets.VNet(3, 1, 2), VOLUME),
        "monai_segresnet": (lambda: nets.SegResNet(3, 8, 1, 2), VOLUME),
        "monai_dynunet": (lambda: nets.DynUNet(3, 1, 3, [3] * 4, [1, 2, 2, 2], [2, 2, 2], filters=list(wide)), VOLUME),
        "monai_attentionunet": (lambda: nets.AttentionUnet(3, 1, 2, (8, 16, 32, 64), flat), VOLUME),
        "monai_highresnet": (lambda: nets.HighResNet(3, 1, 2), (1, 1, 32, 32, 32)),
        "monai_resnet10": (lambda: nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=2), VOLUME),
        "monai_densenet121": (lambda: nets.DenseNet121(3, 1, 2), VOLUME),
        "monai_unetr": (lambda: nets.UNETR(1, 2, VOLUME[2:], feature_size=8, hidden_size=96, mlp_dim=192, num_heads=4), VOLUME),
    }
    return [Subject(name, make, shape, _twice(shape)) for name, (make, shape) in makers.items()]


def _smp() -> list[Subject]:
    import segmentation_models_pytorch as smp

    kinds = {"unet": smp.Unet, "fpn": smp.FPN, "unetplusplus": smp.UnetPlusPlus, "linknet": smp.Linknet}
    shape = (1, 3, 128, 160)
    found = [
        Subject(f"smp_{n}", lambda kind=kind: kind("resnet18", encoder_weights=None), shape, _twice(shape)) for n, kind in kinds.items()
    ]
    mobile = Subject("smp_deeplabv3plus", lambda: smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None), shape, _twice(shape))
    return [*found, mobile]
