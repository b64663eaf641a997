"""What transformers and Pillow make of a checkpoint by themselves. Nothing here is raylens's.

Images go through the checkpoint's own PIL-backed processor and texts through its own tokenizer,
with the options that the authors' examples give; pooling is the model's own where it has one.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

# Families whose authors embed with the class token; the other models pool by themselves.
CLASS_TOKEN = {"vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "vit_mae"}

# How the authors' processors and examples call the tokenizer.
TOKENIZING: dict[str, dict[str, Any]] = {
    "clip": {"padding": True, "max_length": 77},
    "metaclip_2": {"padding": True, "max_length": 77},
    "siglip": {"padding": "max_length", "max_length": 64},
    "siglip2": {"padding": "max_length", "max_length": 64},
    "align": {"padding": "max_length", "max_length": 64},
    "altclip": {"padding": True, "max_length": 512},
    "chinese_clip": {"padding": True, "max_length": 52},
}


def upright_rgb(data: bytes) -> Image.Image:
    """An image file as a person sees it, by Pillow alone."""
    image: Image.Image = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, and no reports of unused heads."""
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
    logging.set_verbosity(before)
    logging.enable_progress_bar()


class TransformersReference:
    """The model in a checkpoint's folder, as transformers' documentation uses it."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.kind: str = config["model_type"]
        name = "AutoModel"
        if config["architectures"] == ["CLIPVisionModelWithProjection"]:
            name = "CLIPVisionModelWithProjection"
        options = {"mask_ratio": 0.0} if self.kind == "vit_mae" else {}
        with quiet():
            self.model = getattr(transformers, name).from_pretrained(folder, **options).eval()
        self.process = image_processor(folder)
        self.tokenizer: Any = None
        if self.kind in TOKENIZING:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            if type(self.tokenizer).__name__ == "GemmaTokenizer":  # as SigLIP 2's folders name it
                self.tokenizer = transformers.Siglip2Tokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(N, D), not normalised."""
        return self._images(self._inputs(images)).numpy()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D), not normalised."""
        vectors = self.model.get_text_features(**self._tokens(texts)).pooler_output
        return np.asarray(vectors)

    @torch.inference_mode()
    def probabilities(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Any:
        """(images, texts), from the model's own logits."""
        inputs = self._inputs(images)
        logits = self.model(**inputs, **self._tokens(texts)).logits_per_image
        return (logits.sigmoid() if "siglip" in self.kind else logits.softmax(dim=1)).numpy()

    def _inputs(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        found = [self.process(image) for image in images]
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}

    def _images(self, inputs: dict[str, Tensor]) -> Tensor:
        vectors: Tensor
        if hasattr(self.model, "get_image_features"):
            vectors = self.model.get_image_features(**inputs).pooler_output
            return vectors
        output = self.model(**inputs)
        if self.kind in CLASS_TOKEN:
            vectors = output.last_hidden_state[:, 0]
        elif "image_embeds" in output:
            vectors = output.image_embeds
        else:
            vectors = output.pooler_output.flatten(1)
        return vectors

    def _tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        options = TOKENIZING[self.kind]
        tokens = self.tokenizer(list(texts), truncation=True, return_tensors="pt", **options)
        if self.kind == "siglip":
            return {"input_ids": tokens["input_ids"]}
        return dict(tokens)


def image_processor(folder: Path) -> Any:
    """A function from an image to the model's inputs: pixel_values (1, 3, H, W), or NaFlex's."""
    keys = json.loads((folder / "preprocessor_config.json").read_text())
    name = keys.get("image_processor_type") or keys["feature_extractor_type"]
    name = name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    if name == "DINOv3ViTImageProcessor":
        return lambda image: {"pixel_values": dinov3(image, keys)}
    processor = getattr(transformers, f"{name}Pil").from_pretrained(folder)
    return lambda image: dict(processor(image, return_tensors="pt"))


def dinov3(image: Image.Image, keys: dict[str, Any]) -> Tensor:
    """DINOv3's processor needs torchvision, which resizes tensors with this function of torch."""
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] * keys["rescale_factor"]
    values = torch.nn.functional.interpolate(
        values,
        size=(keys["size"]["height"], keys["size"]["width"]),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    mean, std = (torch.tensor(keys[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
    return (values - mean) / std
