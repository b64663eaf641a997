"""Checkpoints of published geometries with random weights, for machines without a model hub.

`python -m benchmarks.checkpoints clip-vit-base-patch32 FOLDER` writes one that raylens serves
like the real one. Only its speed and its shapes mean something.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from tests.models.tiny import Tiny, build
from tests.models.tokenizers import clip_tokenizer, siglip_tokenizer

# Where the configurations of the checkpoints of that name differ from transformers' defaults.
GEOMETRIES: dict[str, Tiny] = {
    "clip-vit-base-patch32": Tiny(
        "CLIPModel",
        "openai/clip-vit-base-patch32",
        {"projection_dim": 512, "vision_config": {}, "text_config": {"vocab_size": 49408}},
        clip_tokenizer,
    ),
    "clip-vit-large-patch14-336": Tiny(
        "CLIPModel",
        "openai/clip-vit-large-patch14-336",
        {
            "projection_dim": 768,
            "vision_config": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 336,
                "patch_size": 14,
            },
            "text_config": {
                "vocab_size": 49408,
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_attention_heads": 12,
            },
        },
        clip_tokenizer,
    ),
    "siglip-base-patch16-224": Tiny(
        "SiglipModel",
        "google/siglip-base-patch16-224",
        {"vision_config": {}, "text_config": {"vocab_size": 32000}},
        siglip_tokenizer,
    ),
    "dinov2-base": Tiny(
        "Dinov2Model", "facebook/dinov2-base", {"image_size": 518, "patch_size": 14}
    ),
    "convnext-tiny-224": Tiny("ConvNextForImageClassification", "facebook/convnext-tiny-224", {}),
}


def write(geometry: str, folder: Path) -> Path:
    """The checkpoint in `folder`."""
    torch.manual_seed(0)
    return build(GEOMETRIES[geometry], folder)


def main(
    geometry: Annotated[str, typer.Argument(help=", ".join(GEOMETRIES))], folder: Path
) -> None:
    typer.echo(write(geometry, folder))


if __name__ == "__main__":
    typer.run(main)
