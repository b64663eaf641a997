"""Checkpoints of published geometries with random weights, for machines without a model hub.

`python -m benchmarks.checkpoints clip-vit-base-patch32 FOLDER` writes one that raylens serves
like the real one. Only its speed and its shapes mean something.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import CLIPConfig, CLIPModel
from transformers.utils import logging

from tests.models.tokenizers import clip_tokenizer

# vision_config and text_config of the checkpoints of that name on the hub, where they differ
# from transformers' defaults (which are those of clip-vit-base-patch32).
GEOMETRIES: dict[str, dict[str, Any]] = {
    "clip-vit-base-patch32": {"projection_dim": 512},
    "clip-vit-large-patch14-336": {
        "projection_dim": 768,
        "vision_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
        "text_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "projection_dim": 768,
        },
    },
}


def write(geometry: str, folder: Path, **overrides: Any) -> Path:
    """The checkpoint in `folder`; `overrides` change its configuration."""
    torch.manual_seed(0)
    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    ids = clip_tokenizer(folder)
    config = CLIPConfig(**{**GEOMETRIES[geometry], **overrides})
    # The texts' vectors are read at the token that ends them.
    config.text_config.bos_token_id, config.text_config.eos_token_id = ids.bos, ids.eos
    CLIPModel(config).eval().save_pretrained(folder)
    edge = config.vision_config.image_size
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": edge},
        "crop_size": {"height": edge, "width": edge},
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2))
    return folder


def main(
    geometry: Annotated[str, typer.Argument(help=", ".join(GEOMETRIES))], folder: Path
) -> None:
    typer.echo(write(geometry, folder))


if __name__ == "__main__":
    typer.run(main)
