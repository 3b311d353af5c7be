"""Every architecture of segmentation_models_pytorch with three encoders: a residual one, a compound-scaled one and a transformer."""

from __future__ import annotations

from validation.libraries.subjects import OPTIMIZERS, Subject

ENCODERS = ("resnet18", "timm-efficientnet-b0", "mit_b0")
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Unet", "MAnet", "FPN", "PSPNet", "Segformer", "UPerNet"), ENCODERS),
    **dict.fromkeys(("UnetPlusPlus", "Linknet"), ("resnet18", "timm-efficientnet-b0", "densenet121")),  # they refuse mit
    **dict.fromkeys(("DeepLabV3", "DeepLabV3Plus", "PAN"), ("resnet18", "timm-efficientnet-b0", "mobilenet_v2")),  # nor can it be dilated
    "DPT": ("tu-vit_tiny_patch16_224", "tu-vit_small_patch16_dinov3", "tu-deit3_small_patch16_224"),  # transformers alone
}

SIZES = {"DPT": "2x3x224x224", "PAN": "2x3x128x128"}


def _subject(number: int, architecture: str, encoder: str) -> Subject:
    return Subject(
        library="smp",
        name=f"{architecture} {encoder}",
        model=f"segmentation_models_pytorch:{architecture}('{encoder}', encoder_weights=None, classes=3)",
        inputs=(SIZES.get(architecture, "2x3x96x96"),),
        optimizer=OPTIMIZERS[number % 2],
    )


_PAIRS = [(architecture, encoder) for architecture, encoders in ARCHITECTURES.items() for encoder in encoders]
SUBJECTS = {f"{a} {e}": _subject(n, a, e) for n, (a, e) in enumerate(_PAIRS)}
