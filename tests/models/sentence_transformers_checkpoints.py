"""Tiny checkpoints in sentence-transformers' layout.

Written file by file as versions 2 (`0_CLIPModel`) and 6.2 (the root) write them, because the
library need not be there: it is no dependency of the service.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from tests.models.families import write
from tests.models.reference import quiet
from tests.models.tiny import LAYERS, enlarge
from tests.models.tokenizers import Vocabulary, bert_tokenizer, xlm_roberta_tokenizer

Keys = dict[str, Any]

OLD = "sentence_transformers.models."
NEW = "sentence_transformers.base.modules."
NEWER = "sentence_transformers.sentence_transformer.modules."
CLASSES = {
    **{"Transformer": f"{NEW}transformer.Transformer", "Dense": f"{NEW}dense.Dense"},
    **{"Normalize": f"{NEW}normalize.Normalize", "Pooling": f"{NEWER}pooling.Pooling"},
    **{"LayerNorm": f"{NEWER}layer_norm.LayerNorm", "Dropout": f"{NEWER}dropout.Dropout"},
    "CLIPModel": f"{NEWER}clip_model.CLIPModel",
}
WHOLE = {
    "__version__": {"pytorch": "2.13.0", "sentence_transformers": "6.2.0", "transformers": "5.23"},
    "default_prompt_name": None,
    "model_type": "SentenceTransformer",
    "prompts": {"document": "", "query": ""},
    "similarity_fn_name": "cosine",
}
BOTH: Keys = {
    "transformer_task": "feature-extraction",
    "modality_config": {
        "text": {"method": "get_text_features", "method_output_name": "pooler_output"},
        "image": {"method": "get_image_features", "method_output_name": "pooler_output"},
    },
    "module_output_name": "sentence_embedding",
}
PATCHES: Keys = {
    "transformer_task": "feature-extraction",
    "modality_config": {"image": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
TANH = "torch.nn.modules.activation.Tanh"
IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass(frozen=True)
class Head:
    """A module behind the model."""

    kind: str
    keys: Keys | None = None
    """Its config.json; None for no file."""


def dense(width: int, to: int, activation: str = IDENTITY, **keys: Any) -> Head:
    return Head(
        "Dense",
        {
            "in_features": width,
            "out_features": to,
            "bias": True,
            "activation_function": activation,
            "module_input_name": "sentence_embedding",
            "module_output_name": "sentence_embedding",
            **keys,
        },
    )


def pooling(*modes: str, width: int = 32) -> Head:
    mode = modes[0] if len(modes) == 1 else list(modes)
    return Head(
        "Pooling", {"embedding_dimension": width, "pooling_mode": mode, "include_prompt": True}
    )


OLD_MEAN = Head(
    "Pooling",
    {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    },
)
NORMALIZE = Head("Normalize", {"module_input_name": "sentence_embedding"})


def write_st(
    folder: Path,
    heads: Sequence[Head] = (),
    *,
    family: str | Callable[[Path], object] = "CLIP",
    reading: Keys | None = BOTH,
    first: str = "Transformer",
    first_in: str = "",
    old: bool = False,
    whole: Keys | None = WHOLE,
) -> Path:
    """Writes a checkpoint of these modules. `family` is one of `families.TINY`, or writes the files
    of a model itself; `old`: with the names of classes up to version 5.3."""
    place = folder / first_in
    place.mkdir(parents=True, exist_ok=True)
    _ = write(family, place) if isinstance(family, str) else family(place)
    if reading is not None:
        (place / "sentence_bert_config.json").write_text(json.dumps(reading))
    modules = [(first, first_in)]
    for number, head in enumerate(heads, start=1):
        modules.append((head.kind, f"{number}_{head.kind}"))
        if head.keys is not None:
            (folder / modules[-1][1]).mkdir()
            (folder / modules[-1][1] / "config.json").write_text(json.dumps(head.keys))
            write_weights(folder / modules[-1][1], head)
    entries = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"{OLD}{kind}" if old else CLASSES[kind],
        }
        for number, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries, indent=2))
    if whole is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(whole))
    return folder


def write_weights(folder: Path, head: Head) -> None:
    keys = head.keys or {}
    random = torch.Generator().manual_seed(1)
    weights = {}
    if head.kind == "Dense":
        width, to = keys["in_features"], keys["out_features"]
        weights["linear.weight"] = torch.randn(to, width, generator=random) / math.sqrt(width)
        if keys["bias"]:
            weights["linear.bias"] = 0.1 * torch.randn(to, generator=random)
        if keys.get("use_residual") and width != to:
            weights["residual.weight"] = torch.randn(to, width, generator=random)
    elif head.kind == "LayerNorm":
        weights["norm.weight"] = 1 + 0.2 * torch.randn(keys["dimension"], generator=random)
        weights["norm.bias"] = 0.1 * torch.randn(keys["dimension"], generator=random)
    if weights:
        save_file(weights, folder / "model.safetensors")


def text_model(
    model: str = "DistilBertModel",
    tokenizer: Callable[[Path], Vocabulary] = bert_tokenizer,
    **options: Any,
) -> Callable[[Path], None]:
    """Writes a tiny text model of that class."""

    def write_it(folder: Path) -> None:
        size, _, _, pad = tokenizer(folder)
        model_class = getattr(transformers, model)
        names = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}
        own = names if model == "DistilBertModel" else LAYERS
        made = model_class(
            model_class.config_class(vocab_size=size, pad_token_id=pad, **own, **options)
        ).eval()
        enlarge(made)
        with quiet():
            made.save_pretrained(folder)

    return write_it


def write_multilingual(
    folder: Path, to: int = 24, family: Callable[[Path], object] | None = None
) -> Path:
    """Like sentence-transformers/clip-ViT-B-32-multilingual-v1."""
    return write_st(
        folder,
        [OLD_MEAN, dense(32, to, bias=False)],
        family=family or text_model(),
        reading={"max_seq_length": 128, "do_lower_case": False},
        old=True,
        whole={"__version__": {"sentence_transformers": "2.0.0"}},
    )


def write_clip_v2(folder: Path) -> Path:
    """Like sentence-transformers/clip-ViT-B-32."""
    return write_st(
        folder,
        first="CLIPModel",
        first_in="0_CLIPModel",
        reading=None,
        old=True,
        whole={"__version__": {"sentence_transformers": "2.0.0"}},
    )


def _with_text(folder: Path, family: Callable[[Path], object] | None = None) -> None:
    write_clip_v2(folder)
    write_multilingual(folder / "text", family=family)


XLM_ROBERTA = text_model("XLMRobertaModel", xlm_roberta_tokenizer, max_position_embeddings=514)
MPNET = text_model("MPNetModel", xlm_roberta_tokenizer, max_position_embeddings=514)

WRITERS: dict[str, Callable[[Path], object]] = {
    "CLIP, 0_CLIPModel": write_clip_v2,
    "CLIP": write_st,
    "CLIP of version 5.0": lambda f: write_st(f, first="CLIPModel", reading=None, old=True),
    "CLIP, Dense": lambda f: write_st(f, [dense(24, 20)]),
    "CLIP, Dense, Normalize": lambda f: write_st(f, [dense(24, 20, TANH), NORMALIZE]),
    "CLIP, Dense twice, LayerNorm": lambda f: write_st(
        f,
        [
            dense(24, 24, "torch.nn.modules.activation.GELU", use_residual=True),
            Head("Dropout", {"dropout": 0.5}),
            dense(24, 16, bias=False, use_residual=True),
            Head("LayerNorm", {"dimension": 16}),
        ],
    ),
    "CLIP, truncated": lambda f: write_st(f, [NORMALIZE], whole={**WHOLE, "truncate_dim": 10}),
    "Chinese-CLIP, images": lambda f: write_st(
        f,
        [dense(24, 20)],
        family="Chinese-CLIP",
        reading={**BOTH, "modality_config": {"image": BOTH["modality_config"]["image"]}},
    ),
    "SigLIP": lambda f: write_st(
        f,
        [dense(32, 20), NORMALIZE],
        family="SigLIP",
        reading={
            **BOTH,
            "processing_kwargs": {"text": {"padding": "max_length", "max_length": 64}},
        },
    ),
    "DINOv2, mean": lambda f: write_st(f, [pooling("mean")], family="DINOv2", reading=PATCHES),
    "ViT, class token, Dense": lambda f: write_st(
        f, [pooling("cls"), dense(32, 12, TANH)], family="ViT", reading=PATCHES
    ),
    "CLIP, vision alone, three poolings": lambda f: write_st(
        f,
        [pooling("max", "mean_sqrt_len_tokens", "lasttoken"), NORMALIZE],
        family="CLIP, vision alone",
        reading=PATCHES,
    ),
    "ResNet, Dense on patches": lambda f: write_st(
        f,
        [
            dense(
                32,
                24,
                module_input_name="token_embeddings",
                module_output_name="token_embeddings",
            ),
            pooling("weightedmean", width=24),
        ],
        family="ResNet",
        reading=PATCHES,
    ),
    "Swin, mean": lambda f: write_st(f, [pooling("mean")], family="Swin", reading=PATCHES),
    "CLIP, multilingual DistilBERT": _with_text,
    "CLIP, multilingual XLM-R": lambda f: _with_text(f, XLM_ROBERTA),
    "CLIP, multilingual MPNet": lambda f: _with_text(f, MPNET),
}


def write_named(name: str, folder: Path) -> None:
    WRITERS[name](folder)


def options(folder: Path) -> dict[str, str]:
    """Settings that the checkpoint needs besides its id."""
    text = folder / "text"
    return {"text_id": str(text)} if text.is_dir() else {}
