"""Vision architectures of Hugging Face's transformers, each from a configuration made small: no weights."""

from __future__ import annotations

from validation.libraries.subjects import OPTIMIZERS, Subject

IMAGE = "2x3x64x64"
WIDTH = "hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64"
DINO = "hidden_size=32, num_hidden_layers=2, num_attention_heads=4"
PATCHES = "image_size=64, patch_size=16"
STAGES = "depths=[1, 1, 2, 1], hidden_sizes=[16, 32, 48, 64]"
WINDOWS = "image_size=64, patch_size=4, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=4"
PYRAMID = "depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 40, 64]"
TEXT = "vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=16"
CLASSIFIERS: dict[str, str] = {  # ForImageClassification, by its configuration's arguments
    "ViT": f"{PATCHES}, {WIDTH}",
    "DeiT": f"{PATCHES}, {WIDTH}",
    "ViTMSN": f"{PATCHES}, {WIDTH}",
    "IJepa": f"{PATCHES}, {WIDTH}",
    "Beit": f"{PATCHES}, {WIDTH}, use_relative_position_bias=True",
    "Data2VecVision": f"{PATCHES}, {WIDTH}, use_shared_relative_position_bias=True",
    "Dinov2": f"image_size=56, patch_size=14, {DINO}",
    "Dinov2WithRegisters": f"image_size=56, patch_size=14, {DINO}",
    "ConvNext": STAGES,
    "ConvNextV2": STAGES,
    "Swin": WINDOWS,
    "Swinv2": WINDOWS,
    "DonutSwin": WINDOWS,
    "ResNet": "embedding_size=16, hidden_sizes=[32, 64], depths=[1, 2]",
    "RegNet": "embedding_size=16, hidden_sizes=[32, 64], depths=[1, 2], groups_width=16",
    "Bit": "embedding_size=32, hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 2, 1], num_groups=8",
    "MobileNetV1": "depth_multiplier=0.25",
    "MobileNetV2": "depth_multiplier=0.35",
    "MobileViT": "image_size=64, hidden_sizes=[32, 48, 64], neck_hidden_sizes=[16, 16, 24, 32, 48, 64, 128]",
    "MobileViTV2": "image_size=64, width_multiplier=0.25",
    "EfficientNet": "image_size=64, width_coefficient=0.5, depth_coefficient=0.5, hidden_dim=640",
    "FocalNet": "image_size=64, embed_dim=16, depths=[1, 1, 2, 1]",
    "Hiera": "image_size=[64, 64], embed_dim=16, num_heads=[1, 2, 4, 8], depths=[1, 1, 2, 1]",
    "Cvt": "embed_dim=[16, 32, 64], num_heads=[1, 2, 4], depth=[1, 2, 10]",
    "Levit": "image_size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 2], key_dim=[8, 8, 8]",
    "PoolFormer": "hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1]",
    "Pvt": "image_size=64, hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1]",
    "PvtV2": "image_size=64, hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1]",
    "SwiftFormer": "image_size=64, depths=[1, 1, 2, 1], embed_dims=[16, 32, 48, 64]",
    "TextNet": "image_size=[64, 64]",
    "HGNetV2": (
        "stem_channels=[3, 8, 16], stage_in_channels=[16, 32, 64, 96], stage_mid_channels=[8, 16, 24, 32], "
        "stage_out_channels=[32, 64, 96, 128], stage_num_blocks=[1, 1, 2, 1], hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 2, 1]"
    ),
    "PPLCNet": "scale=0.25",
    "Segformer": f"{PYRAMID}, decoder_hidden_size=32",
    "Siglip": f"vision_config=dict({PATCHES}, {WIDTH}), text_config=dict({TEXT})",
    "CLIP": f"vision_config=dict({PATCHES}, {WIDTH}), text_config=dict({TEXT})",
    "ImageGPT": "n_positions=64, n_embd=32, n_layer=2, n_head=4, vocab_size=33",
}
OTHERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "SegformerForSemanticSegmentation": (f"transformers.SegformerConfig({PYRAMID}, decoder_hidden_size=32)", (IMAGE,)),
    "MobileViTForSemanticSegmentation": (
        "transformers.MobileViTConfig(image_size=64, hidden_sizes=[32, 48, 64], neck_hidden_sizes=[16, 16, 24, 32, 48, 64, 128])", (IMAGE,)
    ),
    "BeitForSemanticSegmentation": (
        f"transformers.BeitConfig({PATCHES}, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, "
        "out_indices=[1, 2, 3, 4], use_auxiliary_head=False)", (IMAGE,)
    ),
    "GLPNForDepthEstimation": (f"transformers.GLPNConfig({PYRAMID}, decoder_hidden_size=16)", (IMAGE,)),
    "DPTForDepthEstimation": (
        f"transformers.DPTConfig({PATCHES}, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, "
        "backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 16, 32, 32], fusion_hidden_size=16, is_hybrid=False)", (IMAGE,)
    ),
    "DepthAnythingForDepthEstimation": (
        "transformers.DepthAnythingConfig(backbone_config=transformers.Dinov2Config(image_size=56, patch_size=14, hidden_size=32, "
        "num_hidden_layers=4, num_attention_heads=4, out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True), "
        "reassemble_hidden_size=32, neck_hidden_sizes=[16, 16, 32, 32], fusion_hidden_size=16, head_hidden_size=8)", ("2x3x56x56",)
    ),
    "UperNetForSemanticSegmentation": (
        "transformers.UperNetConfig(backbone_config=transformers.ConvNextConfig(depths=[1, 1, 2, 1], hidden_sizes=[16, 32, 48, 64], "
        "out_features=['stage1', 'stage2', 'stage3', 'stage4']), hidden_size=32, auxiliary_channels=16)", (IMAGE,)
    ),
    "VideoMAEForVideoClassification": (f"transformers.VideoMAEConfig({PATCHES}, num_frames=8, {WIDTH})", ("2x8x3x64x64",)),
    "VivitForVideoClassification": (
        f"transformers.VivitConfig(image_size=64, num_frames=8, tubelet_size=[2, 16, 16], {WIDTH})", ("2x8x3x64x64",)
    ),
    "TimesformerForVideoClassification": (f"transformers.TimesformerConfig({PATCHES}, num_frames=4, {WIDTH})", ("2x4x3x64x64",)),
    "ViTMAEForPreTraining": (
        f"transformers.ViTMAEConfig({PATCHES}, {WIDTH}, decoder_hidden_size=16, decoder_num_hidden_layers=1, "
        "decoder_num_attention_heads=4, decoder_intermediate_size=32)", (IMAGE,)
    ),
    "Swin2SRForImageSuperResolution": (
        "transformers.Swin2SRConfig(image_size=32, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=8)", ("2x3x32x32",)
    ),
    "YolosForObjectDetection": (
        f"transformers.YolosConfig(image_size=[64, 64], patch_size=16, num_detection_tokens=10, {WIDTH})", (IMAGE,)
    ),
    "CLIPModel": (
        f"transformers.CLIPConfig(vision_config=dict({PATCHES}, {WIDTH}), text_config=dict({TEXT}), projection_dim=32)",
        ("2x16xint64", IMAGE),
    ),
    "CLIPVisionModel": (f"transformers.CLIPVisionConfig({PATCHES}, {WIDTH})", (IMAGE,)),
    "SiglipVisionModel": (f"transformers.SiglipVisionConfig({PATCHES}, {WIDTH})", (IMAGE,)),
    "BlipVisionModel": (f"transformers.BlipVisionConfig({PATCHES}, {WIDTH})", (IMAGE,)),
    "DINOv3ViTModel": (f"transformers.DINOv3ViTConfig({PATCHES}, {WIDTH}, num_register_tokens=4)", (IMAGE,)),
    "DINOv3ConvNextModel": (f"transformers.DINOv3ConvNextConfig({STAGES})", (IMAGE,)),
    "VitDetModel": ("transformers.VitDetConfig(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, "
                    "window_block_indices=[0], window_size=2)", (IMAGE,)),
    "PerceiverForImageClassificationConvProcessing": (
        "transformers.PerceiverConfig(num_latents=16, d_latents=64, num_blocks=1, num_self_attends_per_block=1, "
        "num_self_attention_heads=4, num_cross_attention_heads=1)", ("2x3x224x224",)
    ),
}  # fmt: skip
NAMED: dict[str, tuple[str, ...]] = {
    "ImageGPT": ("input_ids=2x64xint64",),
    "PerceiverForImageClassificationConvProcessing": ("pixel_values=2x3x224x224",),
}


def _subject(number: int, name: str) -> Subject:
    if name in CLASSIFIERS:
        model = f"{name}ForImageClassification(transformers.{name}Config({CLASSIFIERS[name]}))"
        side = "2x3x56x56" if name.startswith("Dinov2") else IMAGE
        inputs = NAMED.get(name, (side,))
    else:
        configuration, usual = OTHERS[name]
        model, inputs = f"{name}({configuration})", NAMED.get(name, usual)
    return Subject(
        library="transformers",
        name=name,
        model=f"transformers:{model}",
        inputs=inputs,
        loss="output" if name.endswith("PreTraining") else "mse_loss",
        optimizer=OPTIMIZERS[number % 2],
    )


SUBJECTS = {name: _subject(n, name) for n, name in enumerate((*CLASSIFIERS, *OTHERS))}
