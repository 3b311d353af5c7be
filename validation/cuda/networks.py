"""Whole steps: networks of torchvision and timm and built-in ones, in four precisions and layouts, under the usual optimizers.

Not the full product: every network has all four precisions, each with another optimizer, and one inference; over the networks every
pairing of precision and optimizer comes up equally often. On torch releases before the newest a third of them: every network in one or two
of its five ways, and every way of a third of the networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice

Shape = tuple[int, ...]
IMAGE = (8, 3, 224, 224)
OPTIMIZERS = ("sgd:momentum=0.9", "adam", "adamw", "adamw:fused=true")
PRECISIONS: tuple[tuple[str, ...], ...] = ((), ("autocast:dtype=float16",), ("autocast:dtype=bfloat16",), ("channels_last",))

TORCHVISION: dict[str, Shape] = {
    **dict.fromkeys(
        (
            "resnet18", "resnet50", "resnet152", "resnext50_32x4d", "wide_resnet50_2", "vgg11_bn", "vgg16", "alexnet", "densenet121",
            "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "squeezenet1_1", "shufflenet_v2_x1_0",
            "mnasnet1_0", "regnet_y_1_6gf", "regnet_x_400mf", "googlenet", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t",
        ),
        IMAGE,
    ),
    "inception_v3": (8, 3, 299, 299),
    "maxvit_t": (4, 3, 224, 224),
}  # fmt: skip
SEGMENTATION = ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
VIDEO: dict[str, Shape] = {
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), (2, 3, 16, 112, 112)),
    "s3d": (2, 3, 16, 224, 224),
}
TIMM: dict[str, Shape] = {
    **dict.fromkeys(
        (
            "resnet50d", "seresnet50", "res2net50_26w_4s", "resnest50d", "hrnet_w18", "dpn68", "dm_nfnet_f0", "efficientnetv2_rw_s",
            "convnextv2_nano", "mobilenetv4_conv_small", "ghostnet_100", "repvgg_a0", "rexnet_100", "mixer_b16_224",
            "deit_small_patch16_224", "cspresnet50", "tf_efficientnet_b0", "poolformer_s12", "vgg11_bn", "resnetv2_50", "regnetx_032",
            "gernet_l", "selecsls60",
        ),
        IMAGE,
    ),
    "xception41": (8, 3, 299, 299),
    "inception_resnet_v2": (8, 3, 299, 299),
    "edgenext_small": (8, 3, 256, 256),
    "mobilevit_s": (8, 3, 256, 256),
}  # fmt: skip
SAMPLED = 3
NNUNET = "features_per_stage=32-64-128-256-320"
BUILT_IN: dict[str, tuple[Shape, str]] = {
    "unet2d": ((2, 3, 256, 256), "cross_entropy"),
    "unet3d": ((2, 1, 64, 64, 64), "binary_cross_entropy_with_logits"),
    "vnet": ((2, 1, 64, 64, 64), "cross_entropy"),
    f"plain_conv_unet:dims=2,{NNUNET}": ((4, 1, 256, 256), "cross_entropy"),
    f"plain_conv_unet:dims=3,{NNUNET}": ((2, 1, 80, 80, 80), "cross_entropy"),
    f"residual_encoder_unet:dims=3,{NNUNET}": ((2, 1, 64, 64, 64), "cross_entropy"),
    "resnet50": (IMAGE, "cross_entropy"),
    "densenet121": (IMAGE, "cross_entropy"),
}


@dataclass(frozen=True, kw_only=True)
class Network:
    """One case: a network, what is done with it, and how. ``model`` is a built-in name or ``package.module:callable(arguments)``."""

    model: str
    shape: Shape
    mode: str = "train"
    optimizer: str = ""
    loss: str = ""
    levers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """All of it, shortened."""
        size = "x".join(str(n) for n in self.shape)
        return " ".join([self.model, size, self.mode, *([self.optimizer] if self.optimizer else []), *self.levers])

    @property
    def settings(self) -> dict[str, object]:
        """All of it, for telling whether a result is of this case."""
        return asdict(self)

    @property
    def external(self) -> bool:
        """Whether it is a module to be imported."""
        return "." in self.model.partition(":")[0]

    @property
    def channels_last(self) -> bool:
        """Whether that lever is pulled."""
        return "channels_last" in self.levers


def networks() -> Iterator[Network]:
    """All networks, as they are trained."""
    for name, shape in TORCHVISION.items():
        arguments = ", init_weights=False" if name in ("googlenet", "inception_v3") else ""
        yield Network(model=f"torchvision.models:{name}(weights=None{arguments})", shape=shape, loss="cross_entropy")
    for name in SEGMENTATION:
        model = f"torchvision.models.segmentation:{name}(weights=None, weights_backbone=None, num_classes=19)"
        yield Network(model=model, shape=(2, 3, 256, 256), loss="cross_entropy")
    for name, shape in VIDEO.items():
        yield Network(model=f"torchvision.models.video:{name}(weights=None)", shape=shape, loss="cross_entropy")
    for name, shape in TIMM.items():
        yield Network(model=f"timm.models:create_model('{name}')", shape=shape, loss="cross_entropy")
    for name, (shape, loss) in BUILT_IN.items():
        yield Network(model=name, shape=shape, loss=loss)


def cases() -> Iterator[Network]:
    """Each network in every precision, and one call of it."""
    for i, network in enumerate(networks()):
        for j, levers in enumerate(PRECISIONS):
            yield replace(network, levers=levers, optimizer=OPTIMIZERS[(i + j) % len(OPTIMIZERS)])
        yield replace(network, mode="infer", loss="", levers=PRECISIONS[i % len(PRECISIONS)])


def sample() -> Iterator[Network]:
    """One case in three."""
    return islice(cases(), 0, None, SAMPLED)
