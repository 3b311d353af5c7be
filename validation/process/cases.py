"""The processes that are measured: those looked at while the rules were written, and those held out until the rules stood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

SGD, ADAM = "sgd:momentum=0.9", "adam"
VISION, SEGMENTING, VIDEO, OWN = "torchvision.models", "torchvision.models.segmentation", "torchvision.models.video", "validation.networks"
CLASSES = 1000


class Case(NamedTuple):
    """A network, its input, and what is done with it; ``malloc`` is written as a question has it."""

    model: str
    shape: tuple[int, ...]
    optimizer: str  # '': an inference call
    loss: str
    target: tuple[int, ...]
    held_out: bool
    malloc: str = "glibc"

    @staticmethod
    def of(row: Mapping[str, Any]) -> Case:
        """The case of a stored line."""
        given: dict[str, Any] = {name: tuple(row[name]) if name in ("shape", "target") else row[name] for name in Case._fields}
        return Case(**given)

    @property
    def mode(self) -> str:
        """``train`` or ``infer``."""
        return "train" if self.optimizer else "infer"

    @property
    def name(self) -> str:
        """For a line: ``resnet18() 4x3x224x224 adam glibc``."""
        return f"{self.model.partition(':')[2]} {'x'.join(map(str, self.shape))} {self.optimizer or self.mode} {self.malloc}"

    def told(self, thread: str) -> dict[str, Any]:
        """What the measuring process is told."""
        return {
            "model": self.model,
            "shape": self.shape,
            "mode": self.mode,
            "optimizer": self.optimizer,
            "loss": self.loss,
            "target": self.target,
            "thread": thread,
        }


def image(name: str, batch: int, side: int, optimizer: str = "", *, held_out: bool, arguments: str = "") -> Case:
    """A classifier of torchvision."""
    return Case(f"{VISION}:{name}({arguments})", (batch, 3, side, side), optimizer, "cross_entropy", (batch,), held_out)


def clip(name: str, shape: tuple[int, ...], optimizer: str = "", *, held_out: bool) -> Case:
    """A classifier of clips."""
    return Case(f"{VIDEO}:{name}()", shape, optimizer, "cross_entropy", shape[:1], held_out)


def dense(name: str, shape: tuple[int, ...], optimizer: str = "", *, held_out: bool, home: str = OWN, arguments: str = "") -> Case:
    """A network with an output for each point, trained with one of two classes (U-Net in 3-D: one output, squared errors)."""
    one = name == "UNet3d"
    target = (shape[0], 1, *shape[2:]) if one else (shape[0], *shape[2:])
    return Case(f"{home}:{name}({arguments})", shape, optimizer, "mse" if one else "cross_entropy", target, held_out)


def _seen() -> Iterator[Case]:
    for name, batch, side, optimizer in (
        ("resnet18", 4, 224, SGD),
        ("resnet18", 8, 224, ""),
        ("resnet50", 4, 224, ADAM),
        ("densenet121", 4, 224, SGD),
        ("mobilenet_v2", 8, 224, ADAM),
        ("vgg11", 2, 224, SGD),
        ("densenet121", 4, 224, ""),
        ("mobilenet_v2", 16, 224, ""),
        ("densenet169", 4, 256, ""),
        ("resnext50_32x4d", 4, 256, ""),
    ):
        yield image(name, batch, side, optimizer, held_out=False)
    yield dense("UNet3d", (1, 1, 64, 64, 64), ADAM, held_out=False)
    yield dense("UNet3d", (1, 1, 96, 96, 96), "", held_out=False)
    yield dense("UNet2d", (2, 3, 256, 256), ADAM, held_out=False)
    yield clip("r3d_18", (1, 3, 8, 112, 112), SGD, held_out=False)
    yield clip("r2plus1d_18", (1, 3, 16, 112, 112), held_out=False)


def _held() -> Iterator[Case]:
    images: tuple[tuple[str, int, int, str], ...] = (
        ("resnet34", 4, 224, ADAM), ("vgg13", 2, 192, SGD), ("squeezenet1_1", 8, 224, ADAM), ("mnasnet1_0", 8, 192, SGD),
        ("efficientnet_b0", 4, 224, ADAM), ("shufflenet_v2_x1_0", 16, 224, SGD), ("mobilenet_v3_large", 8, 224, ADAM),
        ("regnet_x_400mf", 8, 224, SGD), ("densenet169", 2, 224, ADAM), ("resnext50_32x4d", 2, 224, SGD), ("alexnet", 16, 224, ADAM),
        ("convnext_tiny", 2, 224, ADAM), ("swin_t", 2, 224, SGD), ("vit_b_16", 1, 224, SGD), ("wide_resnet50_2", 2, 192, SGD),
        ("vgg16_bn", 2, 160, SGD), ("resnet101", 2, 160, ADAM), ("regnet_y_400mf", 4, 256, ADAM), ("mobilenet_v3_small", 16, 256, SGD),
        ("efficientnet_b1", 2, 240, SGD), ("resnet18", 12, 160, ADAM), ("resnet50", 3, 288, SGD),
        ("resnet34", 8, 256, ""), ("resnet50", 8, 224, ""), ("vgg13", 4, 224, ""), ("squeezenet1_1", 16, 224, ""),
        ("mnasnet1_0", 16, 224, ""), ("efficientnet_b0", 8, 256, ""), ("shufflenet_v2_x1_0", 32, 224, ""),
        ("mobilenet_v3_large", 32, 224, ""), ("convnext_tiny", 4, 224, ""),
        ("swin_t", 4, 224, ""), ("vit_b_16", 4, 224, ""), ("alexnet", 64, 224, ""), ("regnet_y_400mf", 16, 224, ""),
    )  # fmt: skip
    dense_ones: tuple[tuple[str, tuple[int, ...], str, str], ...] = (
        ("UNet3d", (2, 1, 48, 48, 48), SGD, "base_filters=24"), ("UNet3d", (1, 1, 80, 96, 64), ADAM, "base_filters=8"),
        ("UNet3d", (1, 1, 112, 112, 80), "", ""), ("UNet3d", (1, 1, 144, 144, 96), "", "base_filters=8"),
        ("UNet3d", (1, 2, 96, 80, 80), ADAM, "in_channels=2"), ("UNet3d", (4, 1, 32, 48, 64), SGD, ""),
        ("UNet2d", (4, 3, 192, 192), SGD, ""), ("UNet2d", (1, 3, 320, 384), ADAM, ""), ("UNet2d", (4, 3, 256, 320), "", ""),
        ("UNet2d", (1, 3, 512, 512), "", ""), ("VNet", (1, 1, 48, 48, 48), SGD, ""), ("VNet", (1, 1, 64, 64, 48), "", ""),
        ("VNet", (1, 1, 32, 64, 64), ADAM, ""),
    )  # fmt: skip
    clips: tuple[tuple[str, tuple[int, ...], str], ...] = (
        ("mc3_18", (1, 3, 8, 112, 112), SGD), ("r2plus1d_18", (1, 3, 8, 96, 96), ADAM), ("s3d", (1, 3, 16, 224, 224), ""),
        ("mc3_18", (2, 3, 16, 112, 112), ""), ("r3d_18", (2, 3, 16, 112, 112), ""), ("r3d_18", (2, 3, 8, 96, 96), ADAM),
    )  # fmt: skip
    segmenters: tuple[tuple[str, tuple[int, ...], str], ...] = (
        ("fcn_resnet50", (2, 3, 160, 160), SGD), ("lraspp_mobilenet_v3_large", (4, 3, 256, 256), ADAM),
        ("deeplabv3_mobilenet_v3_large", (2, 3, 256, 256), SGD), ("fcn_resnet50", (1, 3, 320, 320), ""),
        ("lraspp_mobilenet_v3_large", (8, 3, 320, 320), ""), ("deeplabv3_mobilenet_v3_large", (4, 3, 320, 320), ""),
    )  # fmt: skip
    found = [
        *(image(*row, held_out=True) for row in images),
        *(dense(name, shape, how, held_out=True, arguments=arguments) for name, shape, how, arguments in dense_ones),
        *(clip(*row, held_out=True) for row in clips),
        *(dense(*row, held_out=True, home=SEGMENTING, arguments="weights_backbone=None") for row in segmenters),
    ]
    for start in range(7):  # part of them is as mixed as all
        yield from found[start::7]


def _all() -> Iterator[Case]:
    for case in (*_seen(), *_held()):
        yield case
        yield case._replace(malloc=FIXED)


FIXED = "glibc:mmap_threshold=131072"
CASES = tuple(_all())
