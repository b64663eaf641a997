"""A tiny checkpoint with random weights for every family, laid out like the published ones.

Built from transformers' stock configuration classes, with the image processors of published
checkpoints. The weights are seeded, and larger than those that training begins with, so that
different images and texts get different vectors.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from deployments.models.families import FAMILIES
from tests.models.published import PUBLISHED
from tests.models.reference import quiet
from tests.models.tokenizers import (
    Vocabulary,
    bert_tokenizer,
    clip_tokenizer,
    siglip2_tokenizer,
    siglip_tokenizer,
    xlm_roberta_tokenizer,
)

Options = dict[str, Any]

LAYERS: Options = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VIT: Options = {**LAYERS, "image_size": 224, "patch_size": 32}
STAGES: Options = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
SWIN: Options = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
EFFICIENTNET: Options = {
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "in_channels": [32, 8, 8, 16, 16, 16, 24],
    "out_channels": [8, 8, 16, 16, 16, 24, 32],
    "num_block_repeats": [1] * 7,
    "expand_ratios": [1, 2, 2, 2, 2, 2, 2],
}


@dataclass(frozen=True)
class Tiny:
    """How to build a tiny checkpoint."""

    model: str
    """The model class of transformers. Its `config_class` takes the options."""
    processor: str
    """The published checkpoint whose image processor it has."""
    options: Options
    tokenizer: Callable[[Path], Vocabulary] | None = None
    """Writes the tokenizer's files, for a dual encoder."""


def dual(
    model: str,
    processor: str,
    tokenizer: Callable[[Path], Vocabulary],
    text: Options,
    vision: Options = VIT,
    **joint: Any,
) -> Tiny:
    options = {"vision_config": vision, "text_config": {**LAYERS, **text}, **joint}
    return Tiny(model, processor, options, tokenizer)


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


def build(tiny: Tiny, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    options = tiny.options
    if tiny.tokenizer is not None:
        size, bos, eos, pad = tiny.tokenizer(folder)
        ids = {"vocab_size": size, "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
        options = {**options, "text_config": {**ids, **options["text_config"]}}
    model_class = getattr(transformers, tiny.model)
    model = model_class(model_class.config_class(**options)).eval()
    enlarge(model)
    with quiet():
        model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PUBLISHED[tiny.processor]))
    return folder


def kind(folder: Path) -> str:
    """Under which key the checkpoint's family is in FAMILIES."""
    config = json.loads((folder / "config.json").read_text())
    (architecture,) = config["architectures"]
    found: str = architecture if architecture in FAMILIES else config["model_type"]
    return found


def enlarge(model: torch.nn.Module) -> None:
    """Draws all weights anew, so that every one of them affects the vectors.

    The weights that training begins with are so small that all images come out nearly equal.
    """
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in model.state_dict().items():
            kind = name.rpartition(".")[2]
            noise = torch.randn(values.shape, generator=random)
            if kind == "logit_scale":
                values.fill_(math.log(20))
            elif kind == "logit_bias":
                values.fill_(-2)
            elif kind == "temperature" or not values.is_floating_point():
                continue
            elif values.ndim >= 2:
                values.copy_(noise / math.sqrt(values[0].numel()))
            elif kind == "bias":
                values.copy_(0.1 * noise)
            elif not kind.startswith("running_"):
                values.copy_(1 + 0.2 * noise)
        settle(model, random)


def settle(model: Any, random: torch.Generator) -> None:
    """Gives batch normalisation statistics of images; without them, all vectors look alike."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if not norms:
        return
    coarse = torch.randn((8, 3, 7, 7), generator=random)
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    vision = getattr(model, "vision_model", model)
    vision(torch.nn.functional.interpolate(coarse, size=(224, 224), mode="bicubic"))
    model.eval()
