"""What the preprocessor_config.json of well-known checkpoints says."""

from typing import Any

CLIP_MEAN, CLIP_STD = (
    [0.48145466, 0.4578275, 0.40821073],
    [0.26862954, 0.26130258, 0.27577711],
)
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HALF = [0.5, 0.5, 0.5]


def early(kind: str, size: int, mean: list[float], std: list[float], **more: Any) -> dict[str, Any]:
    """As they were written until 2022: no rescaling, plain sizes, a feature extractor."""
    common = {"do_normalize": True, "do_resize": True, "image_mean": mean, "image_std": std}
    return {**common, "feature_extractor_type": f"{kind}FeatureExtractor", "size": size, **more}


def late(
    kind: str, size: dict[str, int], mean: list[float], std: list[float], **more: Any
) -> dict[str, Any]:
    common = {"do_normalize": True, "do_rescale": True, "do_resize": True, "size": size}
    values = {"image_mean": mean, "image_std": std, "rescale_factor": 0.00392156862745098}
    return {**common, **values, "image_processor_type": f"{kind}ImageProcessor", **more}


def square(edge: int) -> dict[str, int]:
    return {"height": edge, "width": edge}


def short(edge: int) -> dict[str, int]:
    return {"shortest_edge": edge}


def cropped(edge: int) -> dict[str, Any]:
    return {"do_center_crop": True, "crop_size": square(edge), "do_convert_rgb": True}


PUBLISHED: dict[str, dict[str, Any]] = {
    "openai/clip-vit-base-patch32": early(
        "CLIP", 224, CLIP_MEAN, CLIP_STD, crop_size=224, do_center_crop=True, resample=3
    ),
    "openai/clip-vit-large-patch14-336": early(
        "CLIP", 336, CLIP_MEAN, CLIP_STD, crop_size=336, do_center_crop=True, resample=3
    ),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": {
        **early("CLIP", 0, CLIP_MEAN, CLIP_STD, resample=3),
        **{"size": short(224), "crop_size": square(224), "do_center_crop": True},
    },
    "facebook/metaclip-2-worldwide-huge-quickgelu": late(
        "CLIP", short(224), CLIP_MEAN, CLIP_STD, resample=3, **cropped(224)
    ),
    "google/siglip-base-patch16-224": late(
        "Siglip", square(224), HALF, HALF, resample=3, processor_class="SiglipProcessor"
    ),
    "google/siglip2-base-patch16-224": late(
        "Siglip", square(224), HALF, HALF, resample=2, do_convert_rgb=None
    ),
    "google/siglip2-base-patch16-naflex": {
        **{"image_processor_type": "Siglip2ImageProcessor", "processor_class": "Siglip2Processor"},
        **{"do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True},
        **{"image_mean": HALF, "image_std": HALF, "rescale_factor": 0.00392156862745098},
        **{"max_num_patches": 256, "patch_size": 16, "resample": 2},
    },
    "kakaobrain/align-base": late(
        "EfficientNet",
        square(346),
        HALF,
        HALF,
        **{"do_normalize": False, "include_top": False, "resample": 2},
        **{"rescale_factor": 0.00784313725490196, "rescale_offset": True},
        **{"crop_size": square(289), "do_center_crop": True},
    ),
    "BAAI/AltCLIP": late("CLIP", short(224), CLIP_MEAN, CLIP_STD, resample=3, **cropped(224)),
    "OFA-Sys/chinese-clip-vit-base-patch16": {
        **early("ChineseCLIP", 0, CLIP_MEAN, CLIP_STD, resample=3),
        **{"size": square(224), "do_center_crop": False, "do_convert_rgb": True},
    },
    "google/vit-base-patch16-224": late("ViT", square(224), HALF, HALF, resample=2),
    "facebook/deit-base-distilled-patch16-224": early(
        "DeiT", 256, IMAGENET_MEAN, IMAGENET_STD, crop_size=224, do_center_crop=True, resample=3
    ),
    "microsoft/beit-base-patch16-224-pt22k-ft22k": early(
        "Beit", 224, HALF, HALF, crop_size=224, do_center_crop=False, resample=2
    ),
    "facebook/dinov2-base": late(
        "Bit", short(256), IMAGENET_MEAN, IMAGENET_STD, resample=3, **cropped(224)
    ),
    "facebook/dinov2-with-registers-base": late(
        "Bit", short(256), IMAGENET_MEAN, IMAGENET_STD, resample=3, **cropped(224)
    ),
    "facebook/dinov3-vits16-pretrain-lvd1689m": late(
        "DINOv3Vit",
        square(224),
        IMAGENET_MEAN,
        IMAGENET_STD,
        **{"image_processor_type": "DINOv3ViTImageProcessorFast", "resample": 2},
        **{"crop_size": None, "data_format": "channels_first", "default_to_square": True},
        **{"device": None, "disable_grouping": None, "do_center_crop": None},
        **{"do_convert_rgb": None, "input_data_format": None, "return_tensors": None},
    ),
    "microsoft/swin-tiny-patch4-window7-224": early(
        "ViT", 224, IMAGENET_MEAN, IMAGENET_STD, resample=3
    ),
    "microsoft/swinv2-tiny-patch4-window8-256": early(
        "ViT", 256, IMAGENET_MEAN, IMAGENET_STD, resample=3
    ),
    "facebook/convnext-tiny-224": early(
        "ConvNext", 224, IMAGENET_MEAN, IMAGENET_STD, crop_pct=0.875, resample=3
    ),
    "facebook/convnext-base-384": early(
        "ConvNext", 384, IMAGENET_MEAN, IMAGENET_STD, crop_pct=None, resample=3
    ),
    "facebook/convnextv2-tiny-22k-384": late(
        "ConvNext", short(384), IMAGENET_MEAN, IMAGENET_STD, crop_pct=0.875, resample=3
    ),
    "microsoft/resnet-50": early(
        "ConvNext", 224, IMAGENET_MEAN, IMAGENET_STD, crop_pct=0.875, resample=3
    ),
    "facebook/regnet-y-040": early(
        "ConvNext", 224, IMAGENET_MEAN, IMAGENET_STD, crop_pct=0.875, resample=3
    ),
    "google/efficientnet-b0": late(
        "EfficientNet",
        square(224),
        IMAGENET_MEAN,
        [0.47853944, 0.4732864, 0.47434163],
        **{"crop_size": square(289), "do_center_crop": False, "include_top": True},
        **{"resample": 0, "rescale_offset": False},
    ),
    "google/mobilenet_v1_1.0_224": late(
        "MobileNetV1", short(256), HALF, HALF, resample=2, **cropped(224)
    ),
    "google/mobilenet_v2_1.0_224": late(
        "MobileNetV2", short(256), HALF, HALF, resample=2, **cropped(224)
    ),
    "apple/mobilevit-small": {
        **{"crop_size": 256, "do_center_crop": True, "do_flip_channels": True},
        **{"do_resize": True, "feature_extractor_type": "MobileViTFeatureExtractor"},
        **{"resample": 2, "size": 288},
    },
    "google/bit-50": late("Bit", short(448), HALF, HALF, resample=2, **cropped(448)),
    "facebook/vit-mae-base": early("ViT", 224, IMAGENET_MEAN, IMAGENET_STD),
    "facebook/hiera-tiny-224-hf": late(
        "Bit", short(256), IMAGENET_MEAN, IMAGENET_STD, resample=3, **cropped(224)
    ),
    "google/tipsv2-b14": {
        **{"do_convert_rgb": True, "do_normalize": False, "do_rescale": True, "do_resize": True},
        **{"image_processor_type": "Tipsv2ImageProcessor", "resample": 2, "size": square(448)},
        "rescale_factor": 0.00392156862745098,
    },
    "CIDAS/clipseg-rd64-refined": late("ViT", square(352), IMAGENET_MEAN, IMAGENET_STD, resample=2),
    "nvidia/groupvit-gcc-yfcc": early(
        "CLIP", 224, IMAGENET_MEAN, IMAGENET_STD, crop_size=224, do_center_crop=True, resample=3
    ),
    "apple/aimv2-large-patch14-224-lit": late(
        "CLIP", short(224), CLIP_MEAN, CLIP_STD, resample=3, **cropped(224)
    ),
    "facebook/flava-full": {
        **early("Flava", 224, CLIP_MEAN, CLIP_STD, resample=3),
        **{"crop_size": 224, "do_center_crop": True, "input_size_patches": 14},
        **{"codebook_crop_size": 112, "codebook_do_center_crop": True, "codebook_size": 112},
        **{"codebook_do_map_pixels": True, "codebook_do_normalize": True, "codebook_resample": 1},
        **{"codebook_do_resize": True, "codebook_image_mean": [0.0, 0.0, 0.0]},
        **{"codebook_image_std": [1.0, 1.0, 1.0], "total_mask_patches": 75},
        **{"mask_group_max_aspect_ratio": None, "mask_group_max_patches": None},
        **{"mask_group_min_aspect_ratio": 0.3, "mask_group_min_patches": 16},
    },
    "Salesforce/blip-itm-base-coco": late("Blip", square(384), CLIP_MEAN, CLIP_STD, resample=3),
    "facebook/data2vec-vision-base-ft1k": early(
        "Beit", 224, IMAGENET_MEAN, IMAGENET_STD, crop_size=224, do_center_crop=False, resample=2
    ),
    "facebook/vit-msn-small": early("ViT", 224, IMAGENET_MEAN, IMAGENET_STD, resample=2),
    "facebook/ijepa_vith14_1k": late("ViT", square(224), IMAGENET_MEAN, IMAGENET_STD, resample=2),
    "DeepGlint-AI/mlcd-vit-bigG-patch14-336": late(
        "CLIP", short(336), CLIP_MEAN, CLIP_STD, resample=3, **cropped(336)
    ),
    "facebook/pixio-vitb16": late(
        "Bit", short(256), IMAGENET_MEAN, IMAGENET_STD, resample=3, **cropped(256)
    ),
    # The model normalises by itself.
    "nvidia/C-RADIOv4-H": late("CLIP", short(224), CLIP_MEAN, CLIP_STD, resample=3, **cropped(224))
    | {"do_normalize": False},
    "microsoft/focalnet-tiny": late(
        "Bit", short(256), IMAGENET_MEAN, IMAGENET_STD, resample=3, **cropped(224)
    ),
    "facebook/levit-128S": early(
        "Levit", 224, IMAGENET_MEAN, IMAGENET_STD, do_center_crop=True, resample=3
    ),
    "Zetatech/pvt-tiny-224": late("Pvt", square(224), IMAGENET_MEAN, IMAGENET_STD, resample=2),
    "nvidia/mit-b0": early(
        "Segformer", 512, IMAGENET_MEAN, IMAGENET_STD, reduce_labels=False, resample=2
    ),
    "microsoft/cvt-13": early(
        "ConvNext", 224, IMAGENET_MEAN, IMAGENET_STD, crop_pct=0.875, resample=3
    ),
    "sail/poolformer_s12": early(
        "PoolFormer", 224, IMAGENET_MEAN, IMAGENET_STD, crop_pct=0.9, resample=3
    )
    | {"do_resize_and_center_crop": True},
    "MBZUAI/swiftformer-xs": late("ViT", square(224), IMAGENET_MEAN, IMAGENET_STD, resample=3),
}
