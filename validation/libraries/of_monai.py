"""Every network of ``monai.networks.nets``, small. Not those that need another package (``HyenaNDUNETR``, Quicknat's
squeeze and excitation) or fetch weights (``CellSamWrapper``, ``Transchex``)."""

from __future__ import annotations

from validation.libraries.subjects import OPTIMIZERS, Subject

VOLUME, IMAGE = "2x1x32x32x32", "2x1x64x64"
UNET = "channels=(8, 16, 32), strides=(2, 2)"
CODER = "channels=(8, 16, 32), strides=(2, 2, 2)"
LATENT = "channels=(32, 64, 64), attention_levels=(False, False, True), num_res_blocks=1"
PLAIN: dict[str, tuple[str, str]] = {  # by network: its arguments, and its input
    "AHNet": ("spatial_dims=2, upsample_mode='bilinear', out_channels=2", "2x1x128x128"),
    "AttentionUnet": (f"spatial_dims=3, in_channels=1, out_channels=2, {UNET}", VOLUME),
    "AutoEncoder": (f"spatial_dims=3, in_channels=1, out_channels=2, {CODER}, num_res_units=1", VOLUME),
    "BasicUNet": ("spatial_dims=3, features=(8, 8, 16, 32, 64, 8)", VOLUME),
    "BasicUNetPlusPlus": ("spatial_dims=2, features=(8, 8, 16, 32, 64, 8), deep_supervision=True", IMAGE),
    "Classifier": ("in_shape=(1, 64, 64), classes=4, channels=(8, 16, 32), strides=(2, 2, 2)", IMAGE),
    "Critic": ("in_shape=(1, 64, 64), channels=(8, 16, 32), strides=(2, 2, 2)", IMAGE),
    "Discriminator": ("in_shape=(1, 64, 64), channels=(8, 16, 32), strides=(2, 2, 2)", IMAGE),
    "Regressor": ("in_shape=(1, 64, 64), out_shape=(2, 2), channels=(8, 16, 32), strides=(2, 2, 2)", IMAGE),
    "Generator": ("latent_shape=(12,), start_shape=(32, 8, 8), channels=(16, 8, 1), strides=(2, 2, 2)", "2x12"),
    "VarAutoEncoder": (f"spatial_dims=2, in_shape=(1, 64, 64), out_channels=1, latent_size=8, {CODER}", IMAGE),
    "FullyConnectedNet": ("in_channels=16, out_channels=4, hidden_channels=(32, 32), dropout=0.2", "8x16"),
    "VarFullyConnectedNet": (
        "in_channels=16, out_channels=16, latent_size=4, encode_channels=(32, 16), decode_channels=(16, 32)", "8x16"
    ),
    "AutoencoderKL": (f"spatial_dims=2, {LATENT}", IMAGE),
    "VQVAE": ("spatial_dims=2, in_channels=1, out_channels=1, channels=(32, 64), num_res_layers=1, num_res_channels=(32, 64), "
              "downsample_parameters=((2, 4, 1, 1), (2, 4, 1, 1)), upsample_parameters=((2, 4, 1, 1, 0), (2, 4, 1, 1, 0))", IMAGE),
    "DAF3D": ("in_channels=1, out_channels=1", "2x1x64x64x64"),
    "DenseNet121": ("spatial_dims=3, in_channels=1, out_channels=2", VOLUME),
    "DiNTS": ("monai.networks.nets.TopologySearch(channel_mul=0.2, num_blocks=3, num_depths=2), in_channels=1, num_classes=2", VOLUME),
    "DynUNet": (
        "spatial_dims=3, in_channels=1, out_channels=2, kernel_size=(3, 3, 3), strides=(1, 2, 2), upsample_kernel_size=(2, 2), "
        "filters=(8, 16, 32), deep_supervision=True, res_block=True", VOLUME
    ),
    "EfficientNetBN": ("'efficientnet-b0', pretrained=False, in_channels=1, num_classes=4", IMAGE),
    "EfficientNetBNFeatures": ("'efficientnet-b0', pretrained=False, in_channels=1", IMAGE),
    "FlexibleUNet": ("in_channels=1, out_channels=2, backbone='resnet18'", IMAGE),
    "GlobalNet": ("image_size=[32, 32, 32], spatial_dims=3, in_channels=1, num_channel_initial=8, depth=2", VOLUME),
    "LocalNet": ("spatial_dims=3, in_channels=1, num_channel_initial=8, extract_levels=(0, 1, 2)", VOLUME),
    "RegUNet": ("spatial_dims=3, in_channels=1, num_channel_initial=8, depth=2", VOLUME),
    "HighResNet": ("out_channels=2", VOLUME),
    "HoVerNet": ("mode='fast', out_classes=3", "2x3x256x256"),
    "MaskedAutoEncoderViT": (
        "in_channels=1, img_size=(32, 32, 32), patch_size=(8, 8, 8), hidden_size=96, mlp_dim=128, num_layers=2, num_heads=4, "
        "decoder_hidden_size=48, decoder_mlp_dim=64, decoder_num_layers=1, decoder_num_heads=4", VOLUME
    ),
    "MedNeXt": ("init_filters=8", VOLUME),
    "MILModel": ("num_classes=2, mil_mode='att_trans', pretrained=False, backbone='resnet18', trans_blocks=1", "2x3x3x64x64"),
    "NetAdapter": ("torchvision.models.resnet18(weights=None), num_classes=3, use_conv=True, pool=None", "2x3x64x64"),
    "TorchVisionFCModel": ("'resnet18', num_classes=3, pool=None, use_conv=True", "2x3x64x64"),
    "PatchDiscriminator": ("spatial_dims=2, channels=16, in_channels=1", IMAGE),
    "MultiScalePatchDiscriminator": ("num_d=2, num_layers_d=2, spatial_dims=2, channels=8, in_channels=1, minimum_size_im=64", IMAGE),
    "Quicknat": ("num_classes=4, num_filters=16", IMAGE),
    "ResNetFeatures": ("'resnet18', pretrained=False", VOLUME),
    "SEResNet50": ("spatial_dims=2, in_channels=1, num_classes=4", IMAGE),
    "SegResNet": ("", VOLUME),
    "SegResNetVAE": ("input_image_size=(32, 32, 32)", VOLUME),
    "SegResNetDS": ("init_filters=8, dsdepth=3", VOLUME),
    "SegResNetDS2": ("init_filters=8", VOLUME),
    "SwinUNETR": ("in_channels=1, out_channels=2, feature_size=12", "2x1x64x64x64"),
    "UNet": (f"spatial_dims=3, in_channels=1, out_channels=2, {UNET}, num_res_units=2", VOLUME),
    "UNETR": ("in_channels=1, out_channels=2, img_size=(32, 32, 32), hidden_size=96, mlp_dim=128, num_heads=4", VOLUME),
    "VNet": ("out_channels=2", VOLUME),
    "ViT": (
        "in_channels=1, img_size=(64, 64), patch_size=(16, 16), hidden_size=96, mlp_dim=128, num_layers=2, num_heads=4, "
        "classification=True, spatial_dims=2", IMAGE
    ),
    "ViTAutoEnc": (
        "in_channels=1, img_size=(64, 64), patch_size=(16, 16), hidden_size=96, mlp_dim=128, num_layers=2, num_heads=4, spatial_dims=2",
        IMAGE,
    ),
    "VoxelMorphUNet": (
        "spatial_dims=3, in_channels=2, unet_out_channels=8, channels=(8, 8, 16, 16), final_conv_channels=(8, 8)", "2x2x32x32x32"
    ),
    "restormer.Restormer": ("in_channels=1, out_channels=1, dim=16, num_refinement_blocks=1", IMAGE),
    "resnet18": ("spatial_dims=3, n_input_channels=1, num_classes=4", VOLUME),
    "SENet154": ("spatial_dims=2, in_channels=1, num_classes=4, layers=(1, 1, 1, 1)", IMAGE),
}  # fmt: skip
UNSHARED = f"spatial_dims=2, in_channels=1, {LATENT}, num_head_channels=8"
SEVERAL: dict[str, tuple[str, tuple[str, ...]]] = {
    "ControlNet": (f"{UNSHARED}, conditioning_embedding_num_channels=(16,)", (IMAGE, "2xint64", IMAGE)),
    "DecoderOnlyTransformer": (
        "num_tokens=32, max_seq_len=24, attn_layers_dim=32, attn_layers_depth=2, attn_layers_heads=4, with_cross_attention=True",
        ("2x24xint64", "2x8x32"),
    ),
    "DiffusionModelUNet": (f"out_channels=1, {UNSHARED}", (IMAGE, "2xint64")),
    "SPADEDiffusionModelUNet": (f"out_channels=1, label_nc=3, {UNSHARED}", (IMAGE, "2xint64", "2x3x64x64")),
    "SPADEAutoencoderKL": (f"spatial_dims=2, label_nc=3, {LATENT}", (IMAGE, "2x3x64x64")),
    "SPADENet": (
        "spatial_dims=2, in_channels=1, out_channels=1, label_nc=3, input_shape=(64, 64), channels=[16, 16, 8], z_dim=8",
        ("2x3x64x64", IMAGE),
    ),
    "MultiModal": (
        "1, 1, 1, dict(hidden_size=96, intermediate_size=128, num_attention_heads=4, vocab_size=100, max_position_embeddings=32)",
        ("input_ids=2x16xint64", "token_type_ids=2x16xint64", "vision_feats=2x16x96"),
    ),
    "VoxelMorph": ("", (VOLUME, VOLUME)),
    "NaViT": (
        "image_size=32, patch_size=8, num_classes=3, hidden_size=48, mlp_dim=64, num_layers=2, num_heads=4, spatial_dims=2",
        ("batched_images.0.0=1x32x32", "batched_images.0.1=1x16x32", "batched_images.1.0=1x24x24"),
    ),
    "vista3d132": ("encoder_embed_dim=8, in_channels=1", ("input_images=1x1x64x64x64", "class_vector=2x1xint64")),
}


ASSUMED = {"NaViT": (("selected", 3),)}  # of its rows for images, those that hold one


def _subject(number: int, network: str) -> Subject:
    arguments, inputs = SEVERAL[network] if network in SEVERAL else (PLAIN[network][0], (PLAIN[network][1],))
    return Subject(
        library="monai",
        name=network,
        model=f"monai.networks.nets:{network}({arguments})",
        inputs=inputs,
        loss="mse_loss",
        optimizer=OPTIMIZERS[number % 2],
        assume=ASSUMED.get(network, ()),
    )


SUBJECTS = {network: _subject(n, network) for n, network in enumerate((*PLAIN, *SEVERAL))}
