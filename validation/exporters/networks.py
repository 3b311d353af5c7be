"""The networks: torchvision's, some of each library's catalogue, and the built-in ones, each at one small size."""

from __future__ import annotations

from collections.abc import Iterator

from validation.libraries.subjects import Subject, subjects

SIDES = {"inception_v3": 299, "vit_b_16": 224, "maxvit_t": 224, "alexnet": 224, "vgg11_bn": 224}
IMAGES = (
    *("alexnet", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "densenet121", "googlenet", "inception_v3", "mobilenet_v2"),
    *("mobilenet_v3_large", "mnasnet1_0", "shufflenet_v2_x1_0", "squeezenet1_1", "efficientnet_b0", "efficientnet_v2_s"),
    *("regnet_y_400mf", "convnext_tiny", "swin_t", "swin_v2_t", "vit_b_16", "maxvit_t"),
)
MAPS = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
CLIPS = {**dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), "2x3x8x64x64"), **dict.fromkeys(("s3d", "mvit_v1_b"), "1x3x16x224x224")}
OWN = {"UNet2d": "1x3x64x64", "UNet3d": "1x1x32x32x32", "VNet": "1x1x32x32x32", "PlainConvUNet": "1x1x64x64x64"}
CHOSEN: dict[str, tuple[str, ...]] = {
    "monai": (
        *("UNet", "BasicUNet", "BasicUNetPlusPlus", "AttentionUnet", "SegResNet", "SegResNetDS", "DynUNet", "UNETR", "SwinUNETR", "VNet"),
        *("HighResNet", "FlexibleUNet", "AHNet", "MedNeXt", "DenseNet121", "Quicknat", "VoxelMorphUNet", "VoxelMorph"),
        *("ViTAutoEnc", "AutoencoderKL", "DiffusionModelUNet", "restormer.Restormer", "DAF3D"),
    ),
    "smp": (
        *("Unet resnet18", "MAnet resnet18", "FPN resnet18", "PSPNet resnet18", "Segformer resnet18", "UPerNet resnet18"),
        *("UnetPlusPlus resnet18", "Linknet resnet18", "DeepLabV3 resnet18", "DeepLabV3Plus resnet18", "PAN resnet18"),
    ),
    "transformers": (
        *("ViT", "Beit", "ConvNext", "Swinv2", "MobileViT", "FocalNet", "Hiera", "Cvt", "Levit", "PvtV2", "SwiftFormer", "CLIPModel"),
        *("SegformerForSemanticSegmentation", "DPTForDepthEstimation", "DINOv3ViTModel", "VideoMAEForVideoClassification"),
    ),
}


def networks() -> Iterator[Subject]:
    """All of them."""
    for name in IMAGES:
        side = SIDES.get(name, 128)
        plain = ", aux_logits=False, init_weights=False" if name in ("googlenet", "inception_v3") else ""
        yield _subject("torchvision", name, f"torchvision.models:{name}(weights=None{plain})", f"2x3x{side}x{side}")
    for name in MAPS:
        made = f"torchvision.models.segmentation:{name}(weights=None, weights_backbone=None)"
        yield _subject("torchvision", name, made, "2x3x128x128")
    for name, shape in CLIPS.items():
        yield _subject("torchvision", name, f"torchvision.models.video:{name}(weights=None)", shape)
    for name, shape in OWN.items():
        yield _subject("own", name, f"validation.networks:{name}()", shape)
    for library, chosen in CHOSEN.items():
        known = {s.name: s for s in subjects(library)}
        yield from (known[name] for name in chosen)


def _subject(library: str, name: str, model: str, shape: str) -> Subject:
    return Subject(library=library, name=name, model=model, inputs=(shape,))
