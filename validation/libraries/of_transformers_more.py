"""More vision architectures of Hugging Face's transformers: detectors, segmenters, matchers, and those that read a text, too."""

from __future__ import annotations

MORE: dict[str, tuple[str, tuple[str, ...]]] = {  # by name: the call of a class in ``transformers``, and its inputs
    "Aimv2VisionModel": (
        "Aimv2VisionModel(transformers.Aimv2VisionConfig(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64))",
        ("2x3x64x64",),
    ),
    "AltCLIPModel": (
        "AltCLIPModel(transformers.AltCLIPConfig(text_config=dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16, project_dim=32), "
        "vision_config=dict(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, "
        "intermediate_size=64), projection_dim=32))",
        (
            "2x8xint64",
            "2x3x64x64",
        ),
    ),
    "BlipModel": (
        "BlipModel(transformers.BlipConfig(text_config=dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16, encoder_hidden_size=32, projection_dim=32), "
        "vision_config=dict(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, "
        "intermediate_size=64, projection_dim=32), projection_dim=32))",
        (
            "2x8xint64",
            "2x3x64x64",
        ),
    ),
    "BlipForConditionalGeneration": (
        "BlipForConditionalGeneration(transformers.BlipConfig(text_config=dict(vocab_size=99, hidden_size=32, "
        "num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=16, encoder_hidden_size=32, "
        "projection_dim=32), vision_config=dict(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, projection_dim=32), projection_dim=32))",
        (
            "2x3x64x64",
            "2x8xint64",
        ),
    ),
    "Blip2VisionModel": (
        "Blip2VisionModel(transformers.Blip2VisionConfig(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64))",
        ("2x3x64x64",),
    ),
    "Blip2QFormerModel": (
        "Blip2QFormerModel(transformers.Blip2QFormerConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16, encoder_hidden_size=32))",
        (
            "query_embeds=2x8x32",
            "encoder_hidden_states=2x17x32",
        ),
    ),
    "ChineseCLIPModel": (
        "ChineseCLIPModel(transformers.ChineseCLIPConfig(text_config=dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16), vision_config=dict(image_size=64, "
        "patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64), projection_dim=32))",
        (
            "2x8xint64",
            "2x3x64x64",
        ),
    ),
    "CLIPSegForImageSegmentation": (
        "CLIPSegForImageSegmentation(transformers.CLIPSegConfig(text_config=dict(vocab_size=99, hidden_size=32, "
        "num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=16), "
        "vision_config=dict(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, "
        "intermediate_size=64), projection_dim=32, extract_layers=[0, 1], reduce_dim=16, decoder_num_attention_heads=4, "
        "decoder_intermediate_size=32))",
        (
            "2x8xint64",
            "2x3x64x64",
        ),
    ),
    "ConditionalDetrForObjectDetection": (
        "ConditionalDetrForObjectDetection(transformers.ConditionalDetrConfig(backbone_config=transformers.ResNetConfig(embedding_size=16,"
        " hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=['stage1', 'stage2', 'stage3', 'stage4']), "
        "d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, "
        "encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10, use_timm_backbone=False, use_pretrained_backbone=False, "
        "backbone=None))",
        ("2x3x64x64",),
    ),
    "DFineForObjectDetection": (
        "DFineForObjectDetection(transformers.DFineConfig(backbone_config=transformers.HGNetV2Config(stem_channels=[3, 8, 16], "
        "stage_in_channels=[16, 32, 64, 96], stage_mid_channels=[8, 16, 24, 32], stage_out_channels=[32, 64, 96, 128], "
        "stage_num_blocks=[1, 1, 2, 1], stage_numb_of_layers=[2, 2, 2, 2], hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 2, 1],"
        " out_features=['stage2', 'stage3', 'stage4']), encoder_hidden_dim=32, encoder_ffn_dim=64, encoder_attention_heads=4, "
        "encoder_in_channels=[64, 96, 128], d_model=32, num_queries=10, decoder_in_channels=[32, 32, 32], decoder_ffn_dim=64, "
        "decoder_layers=2, decoder_attention_heads=4, num_denoising=0, anchor_image_size=None, eval_size=None, "
        "decoder_n_points=[2, 2, 2]))",
        ("2x3x64x64",),
    ),
    "Data2VecVisionForSemanticSegmentation": (
        "Data2VecVisionForSemanticSegmentation(transformers.Data2VecVisionConfig(image_size=64, patch_size=16, hidden_size=32, "
        "num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, out_indices=[0, 1, 2, 3]))",
        ("2x3x64x64",),
    ),
    "DeformableDetrForObjectDetection": (
        "DeformableDetrForObjectDetection(transformers.DeformableDetrConfig(backbone_config=transformers.ResNetConfig(embedding_size=16,"
        " hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=['stage2', 'stage3', 'stage4']), "
        "num_feature_levels=4, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, "
        "decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10, use_timm_backbone=False, "
        "use_pretrained_backbone=False, backbone=None))",
        ("2x3x64x64",),
    ),
    "DeformableDetrTwoStage": (
        "DeformableDetrForObjectDetection(transformers.DeformableDetrConfig(backbone_config=transformers.ResNetConfig(embedding_size=16,"
        " hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=['stage2', 'stage3', 'stage4']), "
        "num_feature_levels=4, two_stage=True, with_box_refine=True, two_stage_num_proposals=10, d_model=32, encoder_layers=1, "
        "decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, "
        "num_queries=10, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None))",
        ("2x3x64x64",),
    ),
    "DeiTForMaskedImageModeling": (
        "DeiTForMaskedImageModeling(transformers.DeiTConfig(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64))",
        ("2x3x64x64",),
    ),
    "ViTForMaskedImageModeling": (
        "ViTForMaskedImageModeling(transformers.ViTConfig(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64))",
        ("2x3x64x64",),
    ),
    "SwinForMaskedImageModeling": (
        "SwinForMaskedImageModeling(transformers.SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[1, 2], "
        "num_heads=[2, 4], window_size=4))",
        ("2x3x64x64",),
    ),
    "Swinv2ForMaskedImageModeling": (
        "Swinv2ForMaskedImageModeling(transformers.Swinv2Config(image_size=64, patch_size=4, embed_dim=16, depths=[1, 2], "
        "num_heads=[2, 4], window_size=4))",
        ("2x3x64x64",),
    ),
    "FocalNetForMaskedImageModeling": (
        "FocalNetForMaskedImageModeling(transformers.FocalNetConfig(image_size=64, embed_dim=16, depths=[1, 1, 2, 1]))",
        ("2x3x64x64",),
    ),
    "DetrForObjectDetection": (
        "DetrForObjectDetection(transformers.DetrConfig(backbone_config=transformers.ResNetConfig(embedding_size=16, "
        "hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=['stage1', 'stage2', 'stage3', 'stage4']), "
        "d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, "
        "encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10, use_timm_backbone=False, use_pretrained_backbone=False, "
        "backbone=None))",
        ("2x3x64x64",),
    ),
    "DPTForSemanticSegmentation": (
        "DPTForSemanticSegmentation(transformers.DPTConfig(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=4, "
        "num_attention_heads=4, intermediate_size=64, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 16, 32, 32], "
        "fusion_hidden_size=16, is_hybrid=False))",
        ("2x3x64x64",),
    ),
    "EomtForUniversalSegmentation": (
        "EomtForUniversalSegmentation(transformers.EomtConfig(image_size=64, patch_size=16, hidden_size=32, "
        "num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, num_blocks=1, num_queries=10, num_upscale_blocks=1))",
        ("2x3x64x64",),
    ),
    "EomtDinov3ForUniversalSegmentation": (
        "EomtDinov3ForUniversalSegmentation(transformers.EomtDinov3Config(image_size=64, patch_size=16, hidden_size=32, "
        "num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, num_blocks=1, num_queries=10, num_upscale_blocks=1))",
        ("2x3x64x64",),
    ),
    "Mask2FormerForUniversalSegmentation": (
        "Mask2FormerForUniversalSegmentation(transformers.Mask2FormerConfig(backbone_config=transformers.SwinConfig(image_size=64,"
        " patch_size=4, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[2, 2, 4, 4], window_size=4, out_features=['stage1', "
        "'stage2', 'stage3', 'stage4']), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=64, "
        "encoder_layers=1, decoder_layers=2, num_attention_heads=4, dim_feedforward=64, num_queries=10))",
        ("2x3x64x64",),
    ),
    "MetaClip2Model": (
        "MetaClip2Model(transformers.MetaClip2Config(text_config=dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16), vision_config=dict(image_size=64, "
        "patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64), projection_dim=32))",
        (
            "2x8xint64",
            "2x3x64x64",
        ),
    ),
    "MLCDVisionModel": (
        "MLCDVisionModel(transformers.MLCDVisionConfig(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64))",
        ("2x3x64x64",),
    ),
    "MllamaVisionModel": (
        "MllamaVisionModel(transformers.models.mllama.MllamaVisionConfig(image_size=64, patch_size=16, hidden_size=32, "
        "num_hidden_layers=2, num_global_layers=1, attention_heads=4, intermediate_size=64, max_num_tiles=2, "
        "intermediate_layers_indices=[0, 1], supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]]))",
        (
            "pixel_values=1x1x2x3x64x64",
            "aspect_ratio_ids=1x1xint64",
            "aspect_ratio_mask=1x1x2xint64",
        ),
    ),
    "OwlViTForObjectDetection": (
        "OwlViTForObjectDetection(transformers.OwlViTConfig(text_config=dict(vocab_size=99, hidden_size=32, "
        "num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=16), "
        "vision_config=dict(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, "
        "intermediate_size=64), projection_dim=32))",
        (
            "input_ids=2x16xint64",
            "pixel_values=2x3x64x64",
        ),
    ),
    "Owlv2ForObjectDetection": (
        "Owlv2ForObjectDetection(transformers.Owlv2Config(text_config=dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16), vision_config=dict(image_size=64, "
        "patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64), projection_dim=32))",
        (
            "input_ids=2x16xint64",
            "pixel_values=2x3x64x64",
        ),
    ),
    "PerceiverForImageClassificationLearned": (
        "PerceiverForImageClassificationLearned(transformers.PerceiverConfig(num_latents=16, d_latents=64, num_blocks=1, "
        "num_self_attends_per_block=1, num_self_attention_heads=4, num_cross_attention_heads=1, image_size=32))",
        ("pixel_values=2x3x32x32",),
    ),
    "PerceiverForImageClassificationFourier": (
        "PerceiverForImageClassificationFourier(transformers.PerceiverConfig(num_latents=16, d_latents=64, num_blocks=1, "
        "num_self_attends_per_block=1, num_self_attention_heads=4, num_cross_attention_heads=1))",
        ("pixel_values=2x3x224x224",),
    ),
    "PerceiverForOpticalFlow": (
        "PerceiverForOpticalFlow(transformers.PerceiverConfig(num_latents=16, d_latents=64, num_blocks=1, "
        "num_self_attends_per_block=1, num_self_attention_heads=4, num_cross_attention_heads=1, train_size=[32, 32]))",
        ("inputs=1x2x27x32x32",),
    ),
    "PixioModel": (
        "PixioModel(transformers.PixioConfig(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, mlp_ratio=2))",
        ("2x3x64x64",),
    ),
    "PromptDepthAnythingForDepthEstimation": (
        "PromptDepthAnythingForDepthEstimation(transformers.PromptDepthAnythingConfig(backbone_config=transformers.Dinov2Config(image_size=56,"
        " patch_size=14, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, out_indices=[1, 2, 3, 4], "
        "reshape_hidden_states=False, apply_layernorm=True), reassemble_hidden_size=32, neck_hidden_sizes=[16, 16, 32, 32], "
        "fusion_hidden_size=16, head_hidden_size=8))",
        (
            "pixel_values=2x3x56x56",
            "prompt_depth=2x1x16x16",
        ),
    ),
    "RTDetrForObjectDetection": (
        "RTDetrForObjectDetection(transformers.RTDetrConfig(backbone_config=transformers.RTDetrResNetConfig(embedding_size=16, "
        "hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=['stage2', 'stage3', 'stage4']), "
        "encoder_hidden_dim=32, encoder_ffn_dim=64, encoder_attention_heads=4, encoder_in_channels=[32, 48, 64], d_model=32, "
        "num_queries=10, decoder_in_channels=[32, 32, 32], decoder_ffn_dim=64, decoder_layers=2, decoder_attention_heads=4, "
        "num_denoising=0, anchor_image_size=None, eval_size=None))",
        ("2x3x64x64",),
    ),
    "RTDetrV2ForObjectDetection": (
        "RTDetrV2ForObjectDetection(transformers.RTDetrV2Config(backbone_config=transformers.RTDetrResNetConfig(embedding_size=16,"
        " hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=['stage2', 'stage3', 'stage4']), "
        "encoder_hidden_dim=32, encoder_ffn_dim=64, encoder_attention_heads=4, encoder_in_channels=[32, 48, 64], d_model=32, "
        "num_queries=10, decoder_in_channels=[32, 32, 32], decoder_ffn_dim=64, decoder_layers=2, decoder_attention_heads=4, "
        "num_denoising=0, anchor_image_size=None, eval_size=None))",
        ("2x3x64x64",),
    ),
    "Sam2Model": (
        "Sam2Model(transformers.Sam2Config(vision_config=dict(backbone_config=dict(model_type='sam2_hiera_det_model', "
        "hidden_size=16, num_attention_heads=1, image_size=[128, 128], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[16, "
        "32, 64, 128], num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[4, 4, 4, 4], "
        "global_attention_blocks=[3], window_positional_embedding_background_size=[4, 4]), backbone_channel_list=[128, 64, 32, "
        "16], backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]], fpn_hidden_size=32), "
        "prompt_encoder_config=dict(hidden_size=32, image_size=128, patch_size=16), mask_decoder_config=dict(hidden_size=32, "
        "num_hidden_layers=2, num_attention_heads=4, mlp_dim=64, iou_head_hidden_dim=32)))",
        (
            "pixel_values=2x3x128x128",
            "input_points=2x1x2x2",
        ),
    ),
    "TableTransformerForObjectDetection": (
        "TableTransformerForObjectDetection(transformers.TableTransformerConfig(backbone_config=transformers.ResNetConfig(embedding_size=16,"
        " hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=['stage1', 'stage2', 'stage3', 'stage4']), "
        "d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, "
        "encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10, use_timm_backbone=False, use_pretrained_backbone=False, "
        "backbone=None))",
        ("2x3x64x64",),
    ),
    "TimmWrapperForImageClassification": (
        "TimmWrapperForImageClassification(transformers.TimmWrapperConfig(architecture='resnet18', num_labels=3))",
        ("2x3x64x64",),
    ),
    "VisionEncoderDecoderModel": (
        "VisionEncoderDecoderModel(transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(transformers.ViTConfig(image_size=64,"
        " patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64), "
        "transformers.BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, "
        "intermediate_size=64, max_position_embeddings=16)))",
        (
            "pixel_values=2x3x64x64",
            "decoder_input_ids=2x8xint64",
        ),
    ),
    "VitMatteForImageMatting": (
        "VitMatteForImageMatting(transformers.VitMatteConfig(backbone_config=transformers.VitDetConfig(image_size=64, "
        "patch_size=16, num_channels=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, out_features=['stage2']), "
        "hidden_size=32, fusion_hidden_sizes=[64, 32, 16, 8], convstream_hidden_sizes=[16, 32, 48]))",
        ("2x4x64x64",),
    ),
    "VitPoseForPoseEstimation": (
        "VitPoseForPoseEstimation(transformers.VitPoseConfig(backbone_config=transformers.VitPoseBackboneConfig(image_size=[64,"
        " 48], patch_size=[16, 16], hidden_size=32, num_hidden_layers=2, num_attention_heads=4, out_indices=[2]), "
        "num_labels=5))",
        ("2x3x64x48",),
    ),
    "ZoeDepthForDepthEstimation": (
        "ZoeDepthForDepthEstimation(transformers.ZoeDepthConfig(backbone_config=transformers.BeitConfig(image_size=64, "
        "patch_size=16, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, out_indices=[1, 2, 3,"
        " 4], reshape_hidden_states=False, use_relative_position_bias=True), neck_hidden_sizes=[16, 16, 32, 32], "
        "fusion_hidden_size=16, bottleneck_features=16, num_relative_features=8, bin_embedding_dim=16, "
        "num_patch_transformer_hidden_size=16))",
        ("2x3x64x64",),
    ),
    "GroupViTModel": (
        "GroupViTModel(transformers.GroupViTConfig(text_config=dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16), vision_config=dict(image_size=64, "
        "patch_size=16, hidden_size=32, depths=[1, 1, 1], num_group_tokens=[8, 4, 0], num_output_groups=[8, 4, 4], "
        "num_attention_heads=4, intermediate_size=64), projection_dim=32, projection_intermediate_dim=32))",
        (
            "2x8xint64",
            "2x3x64x64",
        ),
    ),
    "XCLIPModel": (
        "XCLIPModel(transformers.XCLIPConfig(text_config=dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16), vision_config=dict(image_size=64, "
        "patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_frames=2, "
        "mit_hidden_size=32, mit_num_hidden_layers=1, mit_num_attention_heads=4, mit_intermediate_size=64), projection_dim=32, "
        "prompt_num_attention_heads=4))",
        (
            "input_ids=3x8xint64",
            "pixel_values=2x2x3x64x64",
        ),
    ),
    "FlavaModel": (
        "FlavaModel(transformers.FlavaConfig(text_config=dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16), image_config=dict(image_size=64, "
        "patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64), "
        "multimodal_config=dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64), "
        "projection_dim=32))",
        (
            "input_ids=2x8xint64",
            "pixel_values=2x3x64x64",
        ),
    ),
    "LayoutLMv3ForSequenceClassification": (
        "LayoutLMv3ForSequenceClassification(transformers.LayoutLMv3Config(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16, input_size=64, patch_size=16, "
        "coordinate_size=4, shape_size=8, max_2d_position_embeddings=64, num_labels=3))",
        (
            "input_ids=2x8xint64",
            "bbox=2x8x4xint64",
            "pixel_values=2x3x64x64",
        ),
    ),
    "LlavaForConditionalGeneration": (
        "LlavaForConditionalGeneration(transformers.LlavaConfig(vision_config=transformers.CLIPVisionConfig(image_size=64, "
        "patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64), "
        "text_config=transformers.LlamaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, "
        "intermediate_size=64, max_position_embeddings=16), image_token_index=98))",
        ("input_ids=2x8xint64",),
    ),
    "VideoPrismVisionModel": (
        "VideoPrismVisionModel(transformers.VideoPrismVisionConfig(image_size=64, patch_size=16, num_frames=4, tubelet_size=[1,"
        " 16, 16], hidden_size=32, num_attention_heads=4, intermediate_size=64, num_spatial_layers=1, num_temporal_layers=1))",
        ("2x4x3x64x64",),
    ),
    "Deimv2ForObjectDetection": (
        "Deimv2ForObjectDetection(transformers.Deimv2Config())",
        ("1x3x320x320",),
    ),
    "PPOCRV5MobileDetForObjectDetection": (
        "PPOCRV5MobileDetForObjectDetection(transformers.PPOCRV5MobileDetConfig())",
        ("2x3x64x64",),
    ),
    "MgpstrForSceneTextRecognition": (
        "MgpstrForSceneTextRecognition(transformers.MgpstrConfig(image_size=[32, 128], patch_size=4, hidden_size=32, "
        "num_hidden_layers=2, num_attention_heads=4))",
        ("2x3x32x128",),
    ),
    "TrOCRForCausalLM": (
        "TrOCRForCausalLM(transformers.TrOCRConfig(vocab_size=99, d_model=32, decoder_layers=2, decoder_attention_heads=4, "
        "decoder_ffn_dim=64))",
        ("2x8xint64",),
    ),
    "ViTMAEModel": (
        "ViTMAEModel(transformers.ViTMAEConfig(image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64))",
        ("2x3x64x64",),
    ),
    "VisualBertModel": (
        "VisualBertModel(transformers.VisualBertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=4, intermediate_size=64, max_position_embeddings=16, visual_embedding_dim=32))",
        (
            "input_ids=2x8xint64",
            "visual_embeds=2x4x32",
        ),
    ),
    "DabDetrForObjectDetection": (
        "DabDetrForObjectDetection(transformers.DabDetrConfig(backbone_config=transformers.ResNetConfig(embedding_size=16, "
        "hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=['stage1', 'stage2', 'stage3', 'stage4']), "
        "hidden_size=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, "
        "encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10, use_timm_backbone=False, use_pretrained_backbone=False, "
        "backbone=None))",
        ("2x3x64x64",),
    ),
    "MaskFormerForInstanceSegmentation": (
        "MaskFormerForInstanceSegmentation(transformers.MaskFormerConfig(backbone_config=transformers.SwinConfig(image_size=64,"
        " patch_size=4, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[2, 2, 4, 4], window_size=4, out_features=['stage1', "
        "'stage2', 'stage3', 'stage4']), fpn_feature_size=32, mask_feature_size=32, "
        "decoder_config=transformers.DetrConfig(d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, "
        "decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10, use_timm_backbone=False, "
        "use_pretrained_backbone=False, backbone=None)))",
        ("2x3x64x64",),
    ),
}
