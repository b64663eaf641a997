"""A tiny ColPali with random weights, and what transformers makes of it by itself."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from tests.models.reference import quiet
from tests.models.tiny import LAYERS, Options, enlarge
from tests.models.tokenizers import siglip2_tokenizer

# 448 / 112, squared.
IMAGE_TOKENS = 16
# What ColPaliProcessor adds to a tokenizer that has none of them: places and segments.
ADDED = 1 + 1024 + 128

PROCESSOR = {
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": 448, "width": 448},
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_seq_length": IMAGE_TOKENS,
}


def write(folder: Path) -> Path:
    """Laid out like vidore/colpali-v1.3-hf."""
    folder.mkdir(parents=True, exist_ok=True)
    size, bos, eos, pad = siglip2_tokenizer(folder)  # Gemma's, as PaliGemma has
    text: Options = {
        **LAYERS,
        "model_type": "gemma",
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": size + ADDED,
        "pad_token_id": pad,
        "bos_token_id": bos,
        "eos_token_id": eos,
    }
    vision: Options = {
        **LAYERS,
        "model_type": "siglip_vision_model",
        "image_size": 448,
        "patch_size": 112,
        "vision_use_head": False,
    }
    config = transformers.ColPaliConfig(
        vlm_config={
            "model_type": "paligemma",
            "image_token_index": size,
            "projection_dim": LAYERS["hidden_size"],
            "text_config": text,
            "vision_config": {**vision, "projection_dim": LAYERS["hidden_size"]},
        },
        embedding_dim=24,
    )
    model = transformers.ColPaliForRetrieval(config).eval()
    enlarge(model)
    with quiet():
        model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    prompts = {"visual_prompt_prefix": "A photo of the city.", "query_prefix": "The cat: "}
    (folder / "processor_config.json").write_text(json.dumps(prompts))
    return folder


class ColPaliReference:
    """The model, fed by its own processor."""

    reads_blanks = True

    def __init__(self, folder: Path) -> None:
        with quiet():
            self.model = transformers.ColPaliForRetrieval.from_pretrained(folder).eval()
        images: Any = transformers.SiglipImageProcessorPil.from_pretrained(folder)
        images.image_seq_length = IMAGE_TOKENS
        prompts = json.loads((folder / "processor_config.json").read_text())
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.processor: Any = transformers.ColPaliProcessor(images, tokenizer, **prompts)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(N, P, D) of length 1."""
        made = [self.model(**self.processor(images=[image])).embeddings for image in images]
        return np.asarray(torch.cat(made))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Those of all tokens of all texts, one text after the other."""
        return np.concatenate([self.text(text).numpy() for text in texts])

    @torch.inference_mode()
    def text(self, text: str) -> torch.Tensor:
        """(L, D) of length 1."""
        (found,) = self.model(**self.processor(text=[text])).embeddings
        return found  # type: ignore[no-any-return]

    def probabilities(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Any:
        raise NotImplementedError("late interaction has none")

    def scores(self, queries: list[torch.Tensor], documents: list[torch.Tensor]) -> Any:
        """(queries, documents)"""
        return self.processor.score_retrieval(queries, documents).numpy()
