"""Tiny checkpoints in OpenCLIP's layout: its own configurations, shrunk, with random weights,
written as open_clip writes what it pushes to the hub; and open_clip itself as the reference."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from deployments import torchvision_operators
from tests.models.tiny import LAYERS, enlarge
from tests.models.tokenizers import (
    Vocabulary,
    bert_tokenizer,
    siglip2_tokenizer,
    siglip_tokenizer,
    xlm_roberta_tokenizer,
)

torchvision_operators.declare()

import open_clip  # noqa: E402
from open_clip.model import set_model_preprocess_cfg  # noqa: E402
from open_clip.push_to_hf_hub import save_for_hf  # noqa: E402

from tests.models import open_clip_trunks  # noqa: E402, F401  (timm knows them from now on)

Options = dict[str, Any]

OWN = {"width": 48, "heads": 2, "layers": 2}
VIT = {"width": 48, "head_width": 24, "layers": 2}
_OPENAI = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
_HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"}


@dataclass(frozen=True)
class Tiny:
    """How to shrink one of open_clip's configurations."""

    name: str
    vision: Options = field(default_factory=lambda: VIT)
    text: Options = field(default_factory=lambda: OWN)
    preprocess: Options = field(default_factory=dict)
    others: Options = field(default_factory=dict)
    tokenizer: Callable[[Path], Vocabulary] | None = None
    """Writes the files of a tokenizer of transformers."""
    tower: Options | None = None
    """The config.json of a text tower of transformers."""


def trunk(name: str, **others: Any) -> Options:
    return {"timm_model_name": name, **others}


def tower(model_type: str, **options: Any) -> Options:
    return {"model_type": model_type, **LAYERS, "max_position_embeddings": 514, **options}


HALF_WIDE = {"d_model": 32, "d_ff": 64, "d_kv": 16, "num_layers": 2, "num_heads": 2}
M2M = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "max_position_embeddings": 128},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2},
    **{"encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
}

TINY: dict[str, Tiny] = {
    "ViT-B-32": Tiny("ViT-B-32"),
    "ViT-B-16-quickgelu, DFN": Tiny(
        "ViT-B-16-quickgelu",
        preprocess={"resize_mode": "squash", "interpolation": "bilinear"},
    ),
    "RN50": Tiny("RN50", vision={"width": 16, "layers": (1, 1, 1, 1)}),
    "ViT-B-16-SigLIP": Tiny(
        "ViT-B-16-SigLIP",
        trunk("small_siglip"),
        preprocess=_HALF,
        tokenizer=siglip_tokenizer,
    ),
    "ViT-B-16-SigLIP2": Tiny(
        "ViT-B-16-SigLIP2",
        trunk("small_siglip"),
        preprocess=_HALF,
        tokenizer=siglip2_tokenizer,
    ),
    "PE-Core-T-16-384": Tiny("PE-Core-T-16-384", trunk("small_pe_core"), preprocess=_HALF),
    "MobileCLIP-S1": Tiny(
        "MobileCLIP-S1",
        trunk("small_fastvit"),
        preprocess={"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear"},
    ),
    "MobileCLIP2-L-14": Tiny(
        "MobileCLIP2-L-14", trunk("small_vit"), preprocess={"interpolation": "bilinear"}
    ),
    "EVA02-B-16": Tiny("EVA02-B-16", trunk("small_eva02")),
    "convnext_base_w": Tiny("convnext_base_w", trunk("small_convnext")),
    "convnext_large_d": Tiny(
        "convnext_large_d", trunk("small_convnext"), preprocess={"resize_mode": "longest"}
    ),
    "ViTamin-S": Tiny("ViTamin-S", trunk("small_vitamin")),
    "ViT-H-14-CLIPA": Tiny(
        "ViT-H-14-CLIPA",
        preprocess={"resize_mode": "squash", "interpolation": "bilinear"},
        tokenizer=bert_tokenizer,
    ),
    "ViT-H-14-worldwide": Tiny("ViT-H-14-worldwide", tokenizer=xlm_roberta_tokenizer),
    "coca_ViT-B-32": Tiny(
        "coca_ViT-B-32",
        vision={**VIT, "attn_pooler_heads": 2},
        others={"multimodal_cfg": {"context_length": 76, "vocab_size": 49408, **OWN}},
    ),
    "coca_roberta-ViT-B-32": Tiny(
        "coca_roberta-ViT-B-32",
        text={},
        others={"multimodal_cfg": {"context_length": 76, **OWN}},
        tokenizer=xlm_roberta_tokenizer,
        tower=tower("roberta"),
    ),
    "xlm-roberta-base-ViT-B-32": Tiny(
        "xlm-roberta-base-ViT-B-32",
        text={},
        tokenizer=xlm_roberta_tokenizer,
        tower=tower("xlm-roberta"),
    ),
    "mt5-base-ViT-B-32": Tiny(
        "mt5-base-ViT-B-32",
        text={},
        tokenizer=xlm_roberta_tokenizer,
        tower={"model_type": "mt5", **HALF_WIDE},
    ),
    "nllb-clip-base-siglip": Tiny(
        "nllb-clip-base-siglip",
        trunk("small_siglip", image_size=224),
        text={},
        preprocess=_HALF,
        tokenizer=xlm_roberta_tokenizer,
        tower={"model_type": "m2m_100", **M2M},
    ),
    "BiomedCLIP": Tiny(
        "roberta-ViT-B-32",  # the nearest that open_clip has
        trunk("small_vit", timm_pool="", timm_proj="linear"),
        text={"context_length": 256, "hf_pooler_type": "cls_last_hidden_state_pooler"},
        tokenizer=bert_tokenizer,
        tower=tower("bert"),
    ),
}


def config_of(tiny: Tiny, vocabulary: Vocabulary | None) -> Options:
    """Its model_cfg."""
    config = open_clip.get_model_config(tiny.name)
    assert config is not None
    config |= {"embed_dim": 48, **tiny.others}
    config["vision_cfg"] |= tiny.vision
    config["text_cfg"] |= tiny.text
    if vocabulary is not None and tiny.tower is None:
        config["text_cfg"]["vocab_size"] = vocabulary.size
    found: Options = config
    return found


def write(name: str, folder: Path) -> Path:
    """Writes the tiny checkpoint of that name into a folder, which need not exist yet."""
    tiny = TINY[name]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = tiny.tokenizer(folder) if tiny.tokenizer is not None else None
    config = config_of(tiny, vocabulary)
    built = json.loads(json.dumps(config))
    built.pop("custom_text", None)
    if tiny.tower is not None:
        assert vocabulary is not None
        ids: Options = {"vocab_size": vocabulary.size, "pad_token_id": vocabulary.pad}
        ids |= {"eos_token_id": vocabulary.eos, "bos_token_id": vocabulary.bos}
        described = transformers.AutoConfig.for_model(**tiny.tower, **ids)
        described.save_pretrained(folder)
        built["text_cfg"] |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    is_custom = config.get("custom_text") or tiny.tower is not None
    model_class = open_clip.CustomTextCLIP if is_custom else open_clip.CLIP
    if "multimodal_cfg" in built:
        model_class = open_clip.CoCa
    torch.manual_seed(0)
    model = model_class(**built).eval()
    enlarge(model)
    preprocess = {**_OPENAI, "interpolation": "bicubic", **tiny.preprocess}
    set_model_preprocess_cfg(model, preprocess)
    save_for_hf(model, _Written(), config, str(folder), safe_serialization=True)
    return folder


class _Written:
    """A tokenizer whose files are there already."""

    def save_pretrained(self, folder: Path) -> None:
        pass


class OpenClipReference:
    """The model in a checkpoint's folder, as open_clip's documentation uses it."""

    reads_blanks = True

    def __init__(self, folder: Path) -> None:
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name, "copy")
            shutil.copytree(folder, copy)
            path = copy / "open_clip_config.json"
            config = json.loads(path.read_text())
            if "hf_model_name" in config["model_cfg"]["text_cfg"]:
                config["model_cfg"]["text_cfg"]["hf_model_name"] = str(copy)  # there is no hub
                path.write_text(json.dumps(config))
            found = open_clip.create_model_from_pretrained(f"local-dir:{copy}")
            self.tokenizer = open_clip.get_tokenizer(f"local-dir:{copy}")
        self.model: Any = found[0].eval()
        self.preprocess: Any = found[1]

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(N, D), not normalised."""
        values = torch.stack([self.preprocess(image) for image in images])
        return np.asarray(self.model.encode_image(values, normalize=False))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D), not normalised."""
        tokens = self.tokenizer(list(texts))
        return np.asarray(self.model.encode_text(tokens, normalize=False))

    def probabilities(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Any:
        """(images, texts), as open_clip's README computes them."""
        found = (torch.from_numpy(v) for v in (self.images(images), self.texts(texts)))
        image, text = (torch.nn.functional.normalize(v, dim=-1) for v in found)
        logits = self.model.logit_scale.exp().detach() * image @ text.T
        if self.model.logit_bias is None:
            return logits.softmax(dim=-1).numpy()
        return (logits + self.model.logit_bias.detach()).sigmoid().numpy()
