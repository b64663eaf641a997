"""What pixels a checkpoint wants, from the settings of its image processor.

transformers' own class reads the keys, so defaults, null and old spellings mean what they do there.
If the processor is known to do nothing but a resize and a crop or a cut into patches in uint8, a
multiply-add and perhaps a change to BGR, that is the result; otherwise, it is the processor itself.
`deployments.pixels` runs either.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.integrity import preprocessor_settings
from deployments.models.processors import build, class_name, own_spec
from deployments.wire import ImageSpec, PatchSpec, PixelSpec


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Everything between a decoded RGB image and the model's input.

    A value p of channel c (red, green, blue) becomes `p * scale[c] + shift[c]`; with
    `flip_channels` the channels are then reversed.
    """

    pixels: ImageSpec
    scale: tuple[float, float, float]
    shift: tuple[float, float, float]
    flip_channels: bool = False


# The classes whose whole effect is known, as of transformers 5.23, and the keys only they read.
_KNOWN: dict[str, frozenset[str]] = {
    "BeitImageProcessor": frozenset(),
    "BitImageProcessor": frozenset(),
    "BlipImageProcessor": frozenset(),
    "CLIPImageProcessor": frozenset(),
    "ChineseCLIPImageProcessor": frozenset(),
    "ConvNextImageProcessor": frozenset({"crop_pct"}),
    "DINOv3ViTImageProcessor": frozenset(),
    "DeiTImageProcessor": frozenset(),
    "EfficientNetImageProcessor": frozenset({"include_top", "rescale_offset"}),
    # Beside the pixels, it makes others and a mask, both for pre-training.
    "FlavaImageProcessor": frozenset(
        {
            *("return_image_mask", "input_size_patches", "total_mask_patches"),
            *("mask_group_min_patches", "mask_group_max_patches"),
            *("mask_group_min_aspect_ratio", "mask_group_max_aspect_ratio"),
            *("return_codebook_pixels", "codebook_do_resize", "codebook_size"),
            *("codebook_resample", "codebook_do_center_crop", "codebook_crop_size"),
            *("codebook_do_rescale", "codebook_rescale_factor", "codebook_do_map_pixels"),
            *("codebook_do_normalize", "codebook_image_mean", "codebook_image_std"),
        }
    ),
    "MobileNetV1ImageProcessor": frozenset(),
    "MobileNetV2ImageProcessor": frozenset(),
    # `do_flip_channels` is in Apple's files, and transformers does not read it.
    "MobileViTImageProcessor": frozenset({"do_flip_channel_order", "do_flip_channels"}),
    "PvtImageProcessor": frozenset(),
    "SegformerImageProcessor": frozenset(),
    "Siglip2ImageProcessor": frozenset({"max_num_patches", "patch_size"}),
    "SiglipImageProcessor": frozenset(),
    "Tipsv2ImageProcessor": frozenset(),
    "ViTImageProcessor": frozenset(),
}
_READ = {
    *("image_processor_type", "feature_extractor_type", "default_to_square"),
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_pad"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
}
# Keys that do not affect the pixels: raylens always converts to RGB and lays out its own tensors,
# labels are for segmentation, and `pad_size` matters only with `do_pad`.
_HARMLESS = {
    *("auto_map", "processor_class", "do_convert_rgb", "data_format", "input_data_format"),
    *("device", "return_tensors", "disable_grouping", "image_seq_length", "pad_size"),
    *("do_reduce_labels", "reduce_labels"),
    *("_processor_class", "_valid_cpu_keys", "_valid_kwargs_names"),
}
# These have only a torchvision class. It is ViT's with these defaults, except that DINOv3's
# rescales before it resizes, in floats; rounding to 8 bits instead moves a value by at most a grey
# level.
_TORCHVISION_ALONE: dict[str, dict[str, Any]] = {
    "DINOv3ViTImageProcessor": {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "Tipsv2ImageProcessor": {"size": {"height": 448, "width": 448}, "do_normalize": False},
}
_NAFLEX = "Siglip2ImageProcessor"
# The least share of an edge that a crop is. Images are made as many times larger first.
LEAST_CROP = 0.1


def read_preprocessing(folder: Path, max_num_patches: int | None = None) -> Preprocessing:
    """The preprocessing of the checkpoint in `folder`; in NaFlex's, `max_num_patches` replaces what
    the file says.

    Raises CheckpointError, naming the file and the key or the class, for wrong settings, and for an
    unknown processor whose output is not three channels of the same size for every image.
    """
    path, keys = preprocessor_settings(folder)
    name = class_name(path, keys)
    if name == _NAFLEX and max_num_patches is not None:
        keys = {**keys, "max_num_patches": max_num_patches}
    known = _Known(path, name, keys).preprocessing() if name in _KNOWN else None
    if known is not None:
        return known
    if name in _TORCHVISION_ALONE:
        raise CheckpointError(
            f"{path}: {name} is supported only with a size of height and width, no crop, no "
            f"padding and no further keys; it has {', '.join(sorted(keys))}"
        )
    return Preprocessing(own_spec(path, name, keys), scale=(1.0,) * 3, shift=(0.0,) * 3)


class _Known:
    """The settings of a known class as its processor has them: the file's, or its defaults."""

    def __init__(self, path: Path, name: str, keys: dict[str, Any]) -> None:
        self.path, self.name, self.keys = path, name, keys
        defaults = _TORCHVISION_ALONE.get(name)
        if defaults is not None:
            name, keys = "ViTImageProcessor", {**defaults, **keys}
        self.processor = build(path, name, keys)

    def preprocessing(self) -> Preprocessing | None:
        """None if the processor may do anything else."""
        scale, shift = self._scale_and_shift()
        pixels = self._pixels()
        given = {key for key, value in self.keys.items() if value is not None}
        unknown = given - _READ - _HARMLESS - _KNOWN[self.name]
        if pixels is None or unknown or self._flag("do_pad"):
            return None
        return Preprocessing(
            pixels, _channels(scale), _channels(shift), self._flag("do_flip_channel_order")
        )

    def _scale_and_shift(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scale, shift = np.ones(3), np.zeros(3)
        if self._flag("do_rescale"):
            scale *= self._number("rescale_factor")
            shift -= self._flag("rescale_offset")
        # MobileViT's class never normalises, whatever the file says.
        if self._flag("do_normalize") and self.name != "MobileViTImageProcessor":
            mean, std = self._three("image_mean"), self._deviation()
            scale, shift = scale / std, (shift - mean) / std
        if self._flag("include_top"):  # EfficientNet divides once more, without the mean
            scale, shift = scale / self._deviation(), shift / self._deviation()
        return scale, shift

    def _pixels(self) -> PixelSpec | PatchSpec | None:
        resample = self.processor.resample
        if not isinstance(resample, int) or isinstance(resample, bool) or resample not in range(6):
            raise self._error("resample", "should be a Pillow filter number, 0 to 5")
        if self.name == _NAFLEX:
            return self._patches(int(resample))
        resize: tuple[Literal["shortest_edge"], int] | tuple[Literal["exact"], int, int] | None
        resize = crop = None
        if self._flag("do_resize"):
            match self._edges("size"):
                case {"shortest_edge": edge, **others} if not others:
                    resize = "shortest_edge", edge
                case {"height": height, "width": width, **others} if not others:
                    resize = "exact", height, width
                case _:
                    return None
        if self._flag("do_center_crop"):
            match self._edges("crop_size"):
                case {"height": height, "width": width, **others} if not others:
                    crop = height, width
                case _:
                    return None
        if self.name == "ConvNextImageProcessor" and resize is not None:
            edge = resize[1]
            if resize[0] == "exact" or crop is not None:
                return None
            if edge >= 384:
                resize = "exact", edge, edge
            elif self._number("crop_pct") < LEAST_CROP:
                raise self._error("crop_pct", f"should be {LEAST_CROP} or more")
            elif self._number("crop_pct") <= 1:
                resize = "shortest_edge", int(edge / self._number("crop_pct"))
                crop = edge, edge
            else:
                return None
        if crop is None and (resize is None or resize[0] == "shortest_edge"):
            return None  # images would differ in size
        if crop is not None and self.name in _TORCHVISION_ALONE:
            return None  # torchvision rounds differently when it pads
        return PixelSpec(resize, int(resample), crop)

    def _patches(self, resample: int) -> PatchSpec:
        if not self._flag("do_resize"):
            raise self._error("do_resize", "should be true, or images would have too many patches")
        patch, most = self.processor.patch_size, self.processor.max_num_patches
        if type(patch) is not int or patch < 2:
            raise self._error("patch_size", "should be in whole pixels, 2 or more")
        if type(most) is not int or not 0 < most < 1 << 16:
            raise self._error("max_num_patches", "should be a whole number, 1 to 65535")
        return PatchSpec(patch, most, resample)

    def _edges(self, key: str) -> dict[str, int]:
        edges = dict(getattr(self.processor, key) or {})
        if not all(type(edge) is int and edge > 0 for edge in edges.values()):
            raise self._error(key, "should be in whole pixels, 1 or more")
        return edges

    def _flag(self, key: str) -> bool:
        value = getattr(self.processor, key, None)
        if not isinstance(value, bool | None):
            raise self._error(key, "should be true or false")
        return bool(value)

    def _number(self, key: str) -> float:
        value = getattr(self.processor, key)
        if not is_number(value):
            raise self._error(key, "should be a number")
        return float(value)

    def _three(self, key: str) -> NDArray[np.float64]:
        value = getattr(self.processor, key)
        values = [value] * 3 if is_number(value) else value
        if not (isinstance(values, list | tuple) and [is_number(v) for v in values] == [True] * 3):
            raise self._error(key, "should be three numbers, for red, green and blue")
        return np.array(values, np.float64)

    def _deviation(self) -> NDArray[np.float64]:
        std = self._three("image_std")
        if not std.all():
            raise self._error("image_std", "should not hold a zero")
        return std

    def _error(self, key: str, problem: str) -> CheckpointError:
        found = f"is {json.dumps(self.keys[key])}; it" if key in self.keys else "is missing; it"
        return CheckpointError(f"{self.path}: {key} {found} {problem}")


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _channels(values: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue
