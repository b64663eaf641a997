"""The checkpoints that people use most, and what raylens's own code says of each.

Written down is what tells them apart: which files a repository holds, and those keys and weights
that decide. `verdict` gives that to the code which reads checkpoints. Nothing is downloaded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.checkpoints.layout import layout_of
from deployments.models.families import choose_family
from deployments.models.supported import LAYOUTS

Json = Mapping[str, Any] | list[dict[str, str]]

CLIP_WEIGHTS = ("text_model.x", "vision_model.x", "visual_projection.x")
SIGLIP_WEIGHTS = ("text_model.x", "vision_model.x")


@dataclass(frozen=True, slots=True)
class Published:
    """A repository on the hub, cut to what decides."""

    id: str
    files: Mapping[str, Json]
    """The content of its JSON files, by their path."""
    weights: tuple[str, ...] = ()
    """Of the family's parts, where their presence decides."""
    text_of: str = ""
    """The checkpoint whose texts it reads instead."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a checkpoint."""

    layout: str = ""
    extra: str = ""
    refusal: str = field(default="", kw_only=True)
    """Empty if it is served."""


def verdict(published: Published) -> Verdict:
    """As the service would decide, as far as the files that are written down lead."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in published.files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(json.dumps(content))
        weights = {name: np.zeros(1, np.float32) for name in (*published.weights, "x")}
        layout = None
        try:
            layout = layout_of(folder)
            if layout == "sentence_transformers":
                first = json.loads((folder / "modules.json").read_text())[0]
                folder = folder / first["path"]
            save_file(weights, folder / "model.safetensors")
            if layout in ("transformers", "sentence_transformers"):
                choose_family(Checkpoint(published.id, None, folder), "auto")
        except CheckpointError as error:
            return Verdict(LAYOUTS[layout].name if layout else "", refusal=_why(published, error))
    return Verdict(LAYOUTS[layout].name, LAYOUTS[layout].extra)


def _why(published: Published, error: CheckpointError) -> str:
    config = published.files.get("config.json")
    if isinstance(config, Mapping) and "auto_map" in config:
        return "it needs code of its own, which raylens never runs"
    if not published.files:
        return "its weights are a pickle for code of its own, and nothing says what they are"
    reason = str(error).partition(";")[0]
    return reason.replace(f"model {published.id!r}", "it").rpartition("/")[2]  # no folder's name


def transformers(id: str, kind: str, architecture: str = "", *weights: str) -> Published:
    config = {"model_type": kind, "architectures": [architecture] if architecture else []}
    return Published(id, {"config.json": config}, weights)


def clip(id: str) -> Published:
    return transformers(id, "clip", "CLIPModel", *CLIP_WEIGHTS)


def siglip(id: str, kind: str = "siglip") -> Published:
    return transformers(id, kind, f"{kind.capitalize()}Model", *SIGLIP_WEIGHTS)


def own_code(id: str, kind: str, architecture: str) -> Published:
    config = {"model_type": kind, "architectures": [architecture], "auto_map": {"AutoModel": "…"}}
    return Published(id, {"config.json": config})


def timm(id: str) -> Published:
    architecture = id.removeprefix("timm/").partition(".")[0]
    return Published(id, {"config.json": {"architecture": architecture}})


def open_clip(id: str, **config: object) -> Published:
    """Where `config` is that of a config.json beside OpenCLIP's own."""
    files: dict[str, Json] = {"open_clip_config.json": {"model_cfg": {}, "preprocess_cfg": {}}}
    return Published(id, {**files, **({"config.json": config} if config else {})})


def sentence_transformers(
    id: str, module: str, path: str, kind: str, *weights: str, text_of: str = ""
) -> Published:
    modules = [{"path": path, "type": f"sentence_transformers.models.{module}"}]
    config = {"model_type": kind}
    files: dict[str, Json] = {"modules.json": modules, str(Path(path, "config.json")): config}
    return Published(id, files, weights, text_of)


MOST_USED: dict[str, list[Published]] = {
    "Images and texts in one space": [
        clip("openai/clip-vit-base-patch32"),
        clip("openai/clip-vit-base-patch16"),
        clip("openai/clip-vit-large-patch14"),
        clip("openai/clip-vit-large-patch14-336"),
        siglip("google/siglip-base-patch16-224"),
        siglip("google/siglip-so400m-patch14-384"),
        siglip("google/siglip2-base-patch16-224"),
        siglip("google/siglip2-so400m-patch14-384"),
        siglip("google/siglip2-base-patch16-naflex", "siglip2"),
        siglip("google/siglip2-so400m-patch16-naflex", "siglip2"),
        clip("patrickjohncyh/fashion-clip"),
        transformers("OFA-Sys/chinese-clip-vit-base-patch16", "chinese_clip", "ChineseCLIPModel"),
        transformers("Salesforce/blip-itm-base-coco", "blip", "BlipForImageTextRetrieval"),
        transformers("apple/aimv2-large-patch14-224-lit", "aimv2", "Aimv2Model"),
        own_code("jinaai/jina-clip-v2", "jina_clip", "JinaCLIPModel"),
        transformers("vidore/colpali-v1.3-hf", "colpali", "ColPaliForRetrieval"),
        transformers(
            "ModernVBERT/colmodernvbert-merged", "colmodernvbert", "ColModernVBertForRetrieval"
        ),
        Published("facebook/PE-Core-L14-336", {}),  # a .pt file for code of its own
    ],
    "The same in OpenCLIP's format": [
        # These three hold transformers' files too, which are read first.
        clip("laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        clip("laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        clip("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"),
        open_clip("timm/ViT-SO400M-14-SigLIP-384"),
        open_clip("timm/ViT-B-16-SigLIP2"),
        open_clip("timm/PE-Core-L-14-336"),
        open_clip("apple/MobileCLIP-S2-OpenCLIP"),
        open_clip("apple/DFN5B-CLIP-ViT-H-14-378"),
        open_clip("microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"),
        open_clip(
            "Marqo/marqo-fashionSigLIP", model_type="siglip", open_clip_model_name="…", auto_map={}
        ),
    ],
    "sentence-transformers": [
        sentence_transformers(
            "sentence-transformers/clip-ViT-B-32", "CLIPModel", "0_CLIPModel", "clip", *CLIP_WEIGHTS
        ),
        sentence_transformers(
            "sentence-transformers/clip-ViT-L-14", "CLIPModel", "0_CLIPModel", "clip", *CLIP_WEIGHTS
        ),
        sentence_transformers(
            "sentence-transformers/clip-ViT-B-32-multilingual-v1",
            *("Transformer", "", "distilbert"),
            text_of="sentence-transformers/clip-ViT-B-32",
        ),
    ],
    "Images alone": [
        transformers("google/vit-base-patch16-224", "vit", "ViTForImageClassification"),
        transformers("google/vit-base-patch16-224-in21k", "vit", "ViTModel"),
        transformers("Falconsai/nsfw_image_detection", "vit", "ViTForImageClassification"),
        transformers("facebook/dinov2-small", "dinov2", "Dinov2Model"),
        transformers("facebook/dinov2-base", "dinov2", "Dinov2Model"),
        transformers("facebook/dinov2-large", "dinov2", "Dinov2Model"),
        transformers("facebook/dinov3-vits16-pretrain-lvd1689m", "dinov3_vit", "DINOv3ViTModel"),
        transformers("facebook/dinov3-vitb16-pretrain-lvd1689m", "dinov3_vit", "DINOv3ViTModel"),
        transformers("facebook/dinov3-vitl16-pretrain-lvd1689m", "dinov3_vit", "DINOv3ViTModel"),
        transformers("microsoft/resnet-50", "resnet", "ResNetForImageClassification"),
        transformers(
            "microsoft/swin-tiny-patch4-window7-224", "swin", "SwinForImageClassification"
        ),
        own_code("nomic-ai/nomic-embed-vision-v1.5", "nomic_bert", "NomicVisionModel"),
    ],
    "timm": [
        timm("timm/mobilenetv3_small_100.lamb_in1k"),
        timm("timm/resnet50.a1_in1k"),
        timm("timm/resnet18.a1_in1k"),
        timm("timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"),
        timm("timm/vit_base_patch16_clip_224.openai"),
        timm("timm/vit_small_patch14_dinov2.lvd142m"),
        timm("timm/vit_base_patch16_dinov3.lvd1689m"),
        timm("timm/convnextv2_base.fcmae_ft_in22k_in1k"),
    ],
}
