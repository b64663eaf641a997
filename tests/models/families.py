"""A tiny checkpoint with random weights for every family."""

import json
from functools import partial
from pathlib import Path

from deployments.models.families import FAMILIES
from tests.models.tiny import EFFICIENTNET, HEADS, LAYERS, STAGES, SWIN, VIT, Tiny, build, dual
from tests.models.tokenizers import (
    bert_tokenizer,
    clip_tokenizer,
    siglip2_tokenizer,
    siglip_tokenizer,
    tipsv2_tokenizer,
    xlm_roberta_tokenizer,
)

BLIP, BLIP_VIT = "Salesforce/blip-itm-base-coco", {**VIT, "image_size": 384}

TINY: dict[str, Tiny] = {
    # As in OpenAI's files, whose eos_token_id has always been wrong.
    "CLIP": dual(
        "CLIPModel",
        "openai/clip-vit-base-patch32",
        clip_tokenizer,
        {"eos_token_id": 2, "hidden_act": "quick_gelu"},
        projection_dim=24,
    ),
    "OpenCLIP": dual(
        "CLIPModel",
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        partial(clip_tokenizer, pad_token="!"),
        {"hidden_act": "gelu"},
        projection_dim=24,
    ),
    "MetaCLIP 2": dual(
        "MetaClip2Model",
        "facebook/metaclip-2-worldwide-huge-quickgelu",
        xlm_roberta_tokenizer,
        {},
        projection_dim=24,
    ),
    "SigLIP": dual("SiglipModel", "google/siglip-base-patch16-224", siglip_tokenizer, {}),
    "SigLIP 2": dual("SiglipModel", "google/siglip2-base-patch16-224", siglip2_tokenizer, {}),
    "SigLIP 2 NaFlex": dual(
        "Siglip2Model", "google/siglip2-base-patch16-naflex", siglip2_tokenizer, {}, LAYERS
    ),
    "ALIGN": dual(
        "AlignModel",
        "kakaobrain/align-base",
        bert_tokenizer,
        {},
        EFFICIENTNET,
        projection_dim=32,
        temperature_init_value=0.1,
    ),
    "AltCLIP": dual(
        "AltCLIPModel",
        "BAAI/AltCLIP",
        xlm_roberta_tokenizer,
        {"project_dim": 28, "max_position_embeddings": 514},
        projection_dim=24,
    ),
    "Chinese-CLIP": dual(
        "ChineseCLIPModel",
        "OFA-Sys/chinese-clip-vit-base-patch16",
        partial(bert_tokenizer, vocabulary_alone=True),
        {},
        projection_dim=24,
    ),
    "TIPSv2": dual(
        "Tipsv2Model",
        "google/tipsv2-b14",
        tipsv2_tokenizer,
        {},
        {**VIT, "image_size": 448},
        temperature_init_value=0.1,
    ),
    "TIPSv2, vision alone": Tiny(
        "Tipsv2VisionModel", "google/tipsv2-b14", {**VIT, "image_size": 448}
    ),
    "CLIPSeg": dual(
        "CLIPSegForImageSegmentation",
        "CIDAS/clipseg-rd64-refined",
        clip_tokenizer,
        {"eos_token_id": 2},
        projection_dim=24,
        reduce_dim=8,
        extract_layers=[0, 1],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    ),
    "GroupViT": dual(
        "GroupViTModel",
        "nvidia/groupvit-gcc-yfcc",
        clip_tokenizer,
        {"eos_token_id": 2},
        {**VIT, "depths": [1, 1, 1], "num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 4]},
        projection_dim=24,
        projection_intermediate_dim=32,
    ),
    "AIMv2": dual(
        "Aimv2Model", "apple/aimv2-large-patch14-224-lit", clip_tokenizer, {}, projection_dim=24
    ),
    "FLAVA": Tiny(
        "FlavaForPreTraining",
        "facebook/flava-full",
        {
            "image_config": {**VIT, "vocab_size": 16},
            "text_config": LAYERS,
            "multimodal_config": LAYERS,
            "image_codebook_config": {"hidden_size": 8, "num_blocks_per_group": 1},
            **{"hidden_size": 32, "projection_dim": 24},
        },
        bert_tokenizer,
    ),
    "BLIP": dual("BlipModel", BLIP, bert_tokenizer, {}, BLIP_VIT, projection_dim=24),
    "BLIP, retrieval": dual(
        "BlipForImageTextRetrieval",
        BLIP,
        bert_tokenizer,
        {},
        BLIP_VIT,
        image_text_hidden_size=24,
    ),
    "BLIP, captions": Tiny(
        "BlipForConditionalGeneration", BLIP, {"vision_config": BLIP_VIT, "text_config": LAYERS}
    ),
    "BLIP, vision alone": Tiny("BlipVisionModel", BLIP, BLIP_VIT),
    "AIMv2, vision alone": Tiny(
        "Aimv2VisionModel", "apple/aimv2-large-patch14-224-lit", {**VIT, "use_head": False}
    ),
    "CLIP, classifier": Tiny(
        "CLIPForImageClassification",
        "openai/clip-vit-base-patch32",
        {"vision_config": VIT, "text_config": LAYERS},
    ),
    "SigLIP, classifier": Tiny(
        "SiglipForImageClassification",
        "google/siglip-base-patch16-224",
        {"vision_config": VIT, "text_config": LAYERS},
    ),
    "CLIP, vision alone": Tiny("CLIPVisionModel", "openai/clip-vit-base-patch32", VIT),
    "CLIP, vision projected": Tiny(
        "CLIPVisionModelWithProjection",
        "openai/clip-vit-base-patch32",
        {**VIT, "projection_dim": 24},
    ),
    "SigLIP, vision alone": Tiny("SiglipVisionModel", "google/siglip-base-patch16-224", VIT),
    "SigLIP 2 NaFlex, vision alone": Tiny(
        "Siglip2VisionModel", "google/siglip2-base-patch16-naflex", LAYERS
    ),
    "ViT": Tiny("ViTModel", "google/vit-base-patch16-224", VIT),
    "ViT, classifier": Tiny("ViTForImageClassification", "google/vit-base-patch16-224", VIT),
    "DeiT": Tiny("DeiTModel", "facebook/deit-base-distilled-patch16-224", VIT),
    "DeiT, classifier": Tiny(
        "DeiTForImageClassificationWithTeacher", "facebook/deit-base-distilled-patch16-224", VIT
    ),
    "BEiT": Tiny(
        "BeitForImageClassification",
        "microsoft/beit-base-patch16-224-pt22k-ft22k",
        {**VIT, "use_relative_position_bias": True},
    ),
    "data2vec": Tiny(
        "Data2VecVisionForImageClassification",
        "facebook/data2vec-vision-base-ft1k",
        {**VIT, "use_relative_position_bias": True},
    ),
    "ViT-MSN": Tiny("ViTMSNModel", "facebook/vit-msn-small", VIT),
    "I-JEPA": Tiny("IJepaModel", "facebook/ijepa_vith14_1k", VIT),
    "MLCD": Tiny(
        "MLCDVisionModel", "DeepGlint-AI/mlcd-vit-bigG-patch14-336", {**VIT, "image_size": 336}
    ),
    "Pixio": Tiny("PixioModel", "facebook/pixio-vitb16", {**VIT, "image_size": 256}),
    "C-RADIO": Tiny("RadioModel", "nvidia/C-RADIOv4-H", {**VIT, "max_img_size": 256}),
    "ViT-MAE": Tiny(
        "ViTMAEForPreTraining",
        "facebook/vit-mae-base",
        {
            **VIT,
            "decoder_hidden_size": 32,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
        },
    ),
    "DINOv2": Tiny(
        "Dinov2Model", "facebook/dinov2-base", {**VIT, "image_size": 518, "patch_size": 14}
    ),
    "DINOv2, registers": Tiny(
        "Dinov2WithRegistersModel", "facebook/dinov2-with-registers-base", VIT
    ),
    "DINOv3": Tiny(
        "DINOv3ViTModel",
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        {**VIT, "num_register_tokens": 4},
    ),
    "DINOv3, ConvNeXt": Tiny(
        "DINOv3ConvNextModel", "facebook/dinov3-vits16-pretrain-lvd1689m", STAGES
    ),
    "Swin": Tiny("SwinForImageClassification", "microsoft/swin-tiny-patch4-window7-224", SWIN),
    "Swin v2": Tiny(
        "Swinv2Model",
        "microsoft/swinv2-tiny-patch4-window8-256",
        {**SWIN, "image_size": 256, "window_size": 8},
    ),
    "Hiera": Tiny(
        "HieraForImageClassification",
        "facebook/hiera-tiny-224-hf",
        {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    ),
    "FocalNet": Tiny(
        "FocalNetForImageClassification",
        "microsoft/focalnet-tiny",
        {"embed_dim": 8, "depths": [1, 1, 1, 1]},
    ),
    "LeViT": Tiny(
        "LevitForImageClassificationWithTeacher",
        "facebook/levit-128S",
        {
            **{"hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2]},
            **{"depths": [1, 1, 1], "key_dim": [8, 8, 8]},
        },
    ),
    "PVT": Tiny("PvtForImageClassification", "Zetatech/pvt-tiny-224", {**STAGES, **HEADS}),
    "PVT v2": Tiny("PvtV2ForImageClassification", "Zetatech/pvt-tiny-224", {**STAGES, **HEADS}),
    "SegFormer": Tiny("SegformerForImageClassification", "nvidia/mit-b0", {**STAGES, **HEADS}),
    "CvT": Tiny(
        "CvtForImageClassification",
        "microsoft/cvt-13",
        {"embed_dim": [8, 16, 24], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
    ),
    "PoolFormer": Tiny("PoolFormerForImageClassification", "sail/poolformer_s12", STAGES),
    "SwiftFormer": Tiny(
        "SwiftFormerForImageClassification",
        "MBZUAI/swiftformer-xs",
        {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    ),
    "ConvNeXt": Tiny("ConvNextForImageClassification", "facebook/convnext-tiny-224", STAGES),
    "ConvNeXt v2": Tiny("ConvNextV2Model", "facebook/convnextv2-tiny-22k-384", STAGES),
    "ResNet": Tiny(
        "ResNetForImageClassification", "microsoft/resnet-50", {**STAGES, "embedding_size": 8}
    ),
    "RegNet": Tiny(
        "RegNetForImageClassification",
        "facebook/regnet-y-040",
        {**STAGES, "embedding_size": 8, "groups_width": 8},
    ),
    "EfficientNet": Tiny(
        "EfficientNetForImageClassification",
        "google/efficientnet-b0",
        {**EFFICIENTNET, "image_size": 224, "hidden_dim": 1280},
    ),
    "MobileNet v1": Tiny(
        "MobileNetV1ForImageClassification",
        "google/mobilenet_v1_1.0_224",
        {"depth_multiplier": 0.1},
    ),
    "MobileNet v2": Tiny(
        "MobileNetV2ForImageClassification",
        "google/mobilenet_v2_1.0_224",
        {"depth_multiplier": 0.1},
    ),
    "MobileViT": Tiny(
        "MobileViTForImageClassification",
        "apple/mobilevit-small",
        {
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48],
            "expand_ratio": 2.0,
        },
    ),
    "MobileViT v2": Tiny(
        "MobileViTV2Model",
        "apple/mobilevit-small",
        {"base_attn_unit_dims": [16, 24, 32], "n_attn_blocks": [1, 1, 1], "width_multiplier": 0.25},
    ),
    "BiT": Tiny(
        "BitForImageClassification",
        "google/bit-50",
        {**STAGES, "embedding_size": 8, "num_groups": 4},
    ),
}


def write(name: str, folder: Path) -> Path:
    """Writes the tiny checkpoint of that name into a folder, which need not exist yet."""
    return build(TINY[name], folder)


def kind(folder: Path) -> str:
    """Under which key the checkpoint's family is in FAMILIES."""
    config = json.loads((folder / "config.json").read_text())
    (architecture,) = config["architectures"]
    found: str = architecture if architecture in FAMILIES else config["model_type"]
    return found
