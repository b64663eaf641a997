"""What transformers and Pillow make of a checkpoint by themselves. Nothing here is raylens's.

Images go through the checkpoint's own PIL-backed processor and texts through its own tokenizer,
with the options that the authors' examples give; pooling is the model's own where it has one.
"""

import json
import math
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
CLASS_TOKEN = {"vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit"}
CLASS_TOKEN |= {"vit_mae", "vit_msn", "tipsv2_vision_model"}

# Families whose authors embed with the mean of the patches.
PATCHES = {"ijepa", "aimv2_vision_model"}

# Classifiers whose vector is what this layer reads, as the model proper leaves out what is before.
HEADS = {
    **{"CvtForImageClassification": "classifier", "PoolFormerForImageClassification": "classifier"},
    **{"SwiftFormerForImageClassification": "head", "PvtForImageClassification": "classifier"},
    **{"PvtV2ForImageClassification": "classifier", "CLIPForImageClassification": "classifier"},
    **{"SegformerForImageClassification": "classifier"},
    "SiglipForImageClassification": "classifier",
    "Data2VecVisionForImageClassification": "classifier",
}

# What AutoModel would load without, or as another model.
CLASSES = {"CLIPVisionModelWithProjection", "BlipForImageTextRetrieval", "FlavaForPreTraining"}
CLASSES |= {"BlipVisionModel", "BlipForConditionalGeneration", *HEADS}

# Class tokens before the patches, as the models' papers and code have them.
PREFIX = {
    "clip": 1,
    "siglip": 0,
    "siglip_vision_model": 0,
    "vit": 1,
    "deit": 2,
    "beit": 1,
    "swin": 0,
    "convnext": 0,
}
PREFIX |= {"dinov2": 1, "dinov2_with_registers": 1, "dinov3_vit": 1, "dinov3_convnext": 1}
REGISTERS = "num_register_tokens"

# How the authors' processors and examples call the tokenizer.
TOKENIZING: dict[str, dict[str, Any]] = {
    "clip": {"padding": True, "max_length": 77},
    "metaclip_2": {"padding": True, "max_length": 77},
    "siglip": {"padding": "max_length", "max_length": 64},
    "siglip2": {"padding": "max_length", "max_length": 64},
    "align": {"padding": "max_length", "max_length": 64},
    "altclip": {"padding": True, "max_length": 512},
    "chinese_clip": {"padding": True, "max_length": 52},
    "clipseg": {"padding": True, "max_length": 77},
    "tipsv2": {"padding": "max_length", "max_length": 64},
    "groupvit": {"padding": True, "max_length": 77},
    "aimv2": {"padding": True, "max_length": 77},
    "flava": {"padding": "max_length", "max_length": 77},
    "blip": {"padding": "max_length", "max_length": 35, "return_token_type_ids": False},
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

    def __init__(self, folder: Path, *, patches: bool = False) -> None:
        """With `patches`, images are the last hidden state's patches, without other tokens."""
        self.patches = patches
        config = json.loads((folder / "config.json").read_text())
        self.kind: str = config["model_type"]
        (self.architecture,) = config["architectures"]
        name = self.architecture if self.architecture in CLASSES else "AutoModel"
        options = {"mask_ratio": 0.0} if self.kind == "vit_mae" else {}
        with quiet():
            self.model = getattr(transformers, name).from_pretrained(folder, **options).eval()
        self.reads_blanks = self.kind != "tipsv2"
        self.process = image_processor(folder)
        self.tokenizer: Any = None
        has_tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
        if self.kind in TOKENIZING and has_tokenizer:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            if type(self.tokenizer).__name__ == "GemmaTokenizer":  # as SigLIP 2's folders name it
                self.tokenizer = transformers.Siglip2Tokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(N, D) or, of patches, (N, P, D); not normalised."""
        return self._images(self._inputs(images)).numpy()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D), not normalised."""
        return np.asarray(self._texts(self._tokens(texts)))

    @torch.inference_mode()
    def probabilities(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Any:
        """(images, texts), from the model's own logits."""
        inputs = self._inputs(images)
        if self.architecture == "BlipForImageTextRetrieval":
            cosines = self.model(**inputs, use_itm_head=False, **self._tokens(texts))
            logits = cosines.itm_score * math.exp(self.model.config.logit_scale_init_value)
        elif self.kind == "flava":  # which takes pairs
            pairs = [self._tokens([text] * len(images)) for text in texts]
            outputs = [self.model(**inputs, return_loss=False, **tokens) for tokens in pairs]
            columns = [output.contrastive_logits_per_image[:, 0] for output in outputs]
            logits = torch.stack(columns, dim=1)
        else:
            logits = self.model(**inputs, **self._tokens(texts)).logits_per_image
        return (logits.sigmoid() if "siglip" in self.kind else logits.softmax(dim=1)).numpy()

    def _inputs(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        found = [self.process(image) for image in images]
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}

    def _texts(self, tokens: dict[str, Tensor]) -> Tensor:
        vectors: Tensor
        if self.kind == "flava":
            vectors = self.model.flava.get_text_features(**tokens).pooler_output[:, 0]
        elif self.architecture == "BlipForImageTextRetrieval":
            hidden = self.model.text_encoder(**tokens).last_hidden_state
            vectors = self.model.text_proj(hidden[:, 0])
        else:
            vectors = self.model.get_text_features(**tokens).pooler_output
        return vectors

    def _images(self, inputs: dict[str, Tensor]) -> Tensor:
        vectors: Tensor
        if self.patches:
            vision = getattr(self.model, "vision_model", self.model)
            vectors = vision(**inputs).last_hidden_state
            if vectors.ndim == 4:  # (N, D, height, width)
                return torch.stack([maps.reshape(len(maps), -1).T for maps in vectors])
            vectors = vectors[:, PREFIX[self.kind] + getattr(vision.config, REGISTERS, 0) :]
        elif self.kind == "flava":  # as its head of the contrastive loss reads them
            output = self.model.flava.get_image_features(**inputs)
            vectors = output.pooler_output[:, 0]
        elif self.architecture == "BlipForImageTextRetrieval":  # as for its `itm_score`
            hidden = self.model.vision_model(**inputs).last_hidden_state
            vectors = self.model.vision_proj(hidden[:, 0])
        elif self.architecture == "BlipForConditionalGeneration":  # it captions images
            vectors = self.model.vision_model(**inputs).pooler_output
        elif hasattr(self.model, "get_image_features"):
            vectors = self.model.get_image_features(**inputs).pooler_output
        elif self.architecture in HEADS:
            vectors = self._before_head(inputs)
        else:
            vectors = self._pool(self.model(**inputs))
        return vectors

    def _pool(self, output: Any) -> Tensor:
        vectors: Tensor
        if self.kind in CLASS_TOKEN:
            vectors = output.last_hidden_state[:, 0]
        elif self.kind in PATCHES:
            vectors = output.last_hidden_state.mean(dim=1)
        elif "summary" in output:
            vectors = output.summary
        elif "image_embeds" in output:
            vectors = output.image_embeds
        else:
            vectors = output.pooler_output.flatten(1)
        return vectors

    def _before_head(self, inputs: dict[str, Tensor]) -> Tensor:
        read: list[Tensor] = []
        head = getattr(self.model, HEADS[self.architecture])
        hook = head.register_forward_pre_hook(lambda _, given: read.extend(given))
        self.model(**inputs)
        hook.remove()
        (vectors,) = read
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
    name = name if name == "Tipsv2ImageProcessor" else f"{name}Pil"  # which needs torchvision
    processor = getattr(transformers, name).from_pretrained(folder)
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
