"""What pixels a checkpoint wants, read from its preprocessor_config.json.

Only what raylens computes exactly as the PIL-backed Hugging Face processor does is accepted;
anything else is an error, never a guess. Resizing itself is left to `deployments.images`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from deployments.card import PixelSpec
from deployments.models.checkpoint import CheckpointError, read_json

FILE = "preprocessor_config.json"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Everything between a decoded RGB image and the model's input.

    A pixel p (uint8) of channel c becomes `(p * rescale_factor - mean[c]) / std[c]`.
    """

    pixels: PixelSpec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale_factor: float


class _Defaults(NamedTuple):
    """What a processor class does about a key that its file leaves out."""

    square: bool  # whether `"size": 224` means 224 x 224 or a shortest edge of 224
    resample: int
    center_crop: bool


# The processor classes that do nothing but resize, crop, rescale and normalise, with their class
# attributes in transformers 5.23. Others read the same keys differently: ConvNext enlarges
# before it crops, EfficientNet divides by the deviation twice.
_PLAIN = {
    "Bit": _Defaults(square=False, resample=3, center_crop=True),
    "Blip": _Defaults(square=True, resample=3, center_crop=False),
    "CLIP": _Defaults(square=False, resample=3, center_crop=True),
    "ChineseCLIP": _Defaults(square=False, resample=3, center_crop=True),
    "DeiT": _Defaults(square=True, resample=3, center_crop=True),
    "Siglip": _Defaults(square=False, resample=3, center_crop=False),
    "ViT": _Defaults(square=True, resample=2, center_crop=False),
}
_SUFFIXES = ("ImageProcessorPil", "ImageProcessorFast", "ImageProcessor", "FeatureExtractor")

_READ = {
    *("image_processor_type", "feature_extractor_type", "default_to_square"),
    *("do_resize", "size", "resample", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
}
# Keys without a say in the pixels: raylens always converts to RGB and lays out its own tensors.
_HARMLESS = {
    *("auto_map", "processor_class", "do_convert_rgb", "data_format", "input_data_format"),
    *("device", "return_tensors", "disable_grouping", "image_seq_length"),
    *("_processor_class", "_valid_processor_keys", "_valid_kwargs_names"),
}
# Accepted while switched off. `pad_size` is read by `do_pad` alone.
_OFF = {"do_pad", "use_square_size"}


def read_preprocessing(folder: Path) -> Preprocessing:
    """The preprocessing of the checkpoint in `folder`.

    Raises CheckpointError, which names the file and the key, if the file is missing or asks for
    something that raylens cannot do exactly.
    """
    return _Reader(folder / FILE).preprocessing()


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        keys = read_json(path)
        # transformers takes null for a key that is not there.
        self.keys = {key: value for key, value in keys.items() if value is not None}
        self.defaults = self._processor_class()

    def preprocessing(self) -> Preprocessing:
        for key in self.keys.keys() - _READ - _HARMLESS - {"pad_size"}:
            if not (key in _OFF and self.keys[key] is False):
                raise self._error(key, "is not supported")
        rescale = self._flag("do_rescale", True)
        normalize = self._flag("do_normalize", True)
        std = self._channels("image_std") if normalize else (1.0, 1.0, 1.0)
        if 0.0 in std:
            raise self._error("image_std", "should not hold a zero")
        return Preprocessing(
            pixels=self._pixels(),
            mean=self._channels("image_mean") if normalize else (0.0, 0.0, 0.0),
            std=std,
            rescale_factor=self._number("rescale_factor", 1 / 255) if rescale else 1.0,
        )

    def _processor_class(self) -> _Defaults:
        key = "image_processor_type"
        if key not in self.keys:
            key = "feature_extractor_type"
        name = str(self.keys.get(key, ""))
        for suffix in _SUFFIXES:
            if name.endswith(suffix) and name.removesuffix(suffix) in _PLAIN:
                return _PLAIN[name.removesuffix(suffix)]
        raise self._error(
            key, f"should be the image processor of one of {', '.join(sorted(_PLAIN))}"
        )

    def _pixels(self) -> PixelSpec:
        resample = self.keys.get("resample", self.defaults.resample)
        if type(resample) is not int or not 0 <= resample <= 5:
            raise self._error("resample", "should be a Pillow filter number, 0 to 5")
        resize = self._resize() if self._flag("do_resize", True) else None
        crop = None
        if self._flag("do_center_crop", self.defaults.center_crop):
            crop = self._crop()
        if crop is None and (resize is None or resize[0] == "shortest_edge"):
            raise self._error("size", "leaves images of different sizes, and there is no crop")
        if crop is not None and resize is not None and max(crop) > min(resize[1:]):
            raise self._error("crop_size", "is larger than size, and padding is not supported")
        return PixelSpec(resize=resize, resample=resample, crop=crop)

    def _resize(self) -> tuple[Literal["shortest_edge"], int] | tuple[Literal["exact"], int, int]:
        size = self.keys.get("size")
        if isinstance(size, Mapping) and size.keys() == {"shortest_edge"}:
            return "shortest_edge", self._edge("size", size["shortest_edge"])
        if isinstance(size, Mapping):
            return "exact", *self._height_width("size", size)
        edge = self._edge("size", size)
        if self._flag("default_to_square", self.defaults.square):
            return "exact", edge, edge
        return "shortest_edge", edge

    def _crop(self) -> tuple[int, int]:
        size = self.keys.get("crop_size")
        if isinstance(size, Mapping):
            return self._height_width("crop_size", size)
        edge = self._edge("crop_size", size)
        return edge, edge

    def _height_width(self, key: str, size: Mapping[str, Any]) -> tuple[int, int]:
        if size.keys() != {"height", "width"}:
            raise self._error(key, "should be a number, a shortest_edge, or a height and a width")
        return self._edge(key, size["height"]), self._edge(key, size["width"])

    def _edge(self, key: str, value: object) -> int:
        if type(value) is not int or value < 1:
            raise self._error(key, "should be in whole pixels, 1 or more")
        return value

    def _flag(self, key: str, default: bool) -> bool:
        value = self.keys.get(key, default)
        if not isinstance(value, bool):
            raise self._error(key, "should be true or false")
        return value

    def _number(self, key: str, default: float) -> float:
        value = self.keys.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(key, "should be a number")
        return float(value)

    def _channels(self, key: str) -> tuple[float, float, float]:
        values = self.keys.get(key)
        if not (
            isinstance(values, list)
            and len(values) == 3
            and all(type(value) in (int, float) for value in values)
        ):
            raise self._error(key, "should be three numbers, for red, green and blue")
        return float(values[0]), float(values[1]), float(values[2])

    def _error(self, key: str, problem: str) -> CheckpointError:
        found = f"is {json.dumps(self.keys[key])}; it" if key in self.keys else "is missing; it"
        return CheckpointError(f"{self.path}: {key} {found} {problem}")
