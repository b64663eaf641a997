"""What pixels a model of timm takes, from what timm resolves of its `pretrained_cfg`."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models.spec import LEAST_CROP, Preprocessing, is_number
from deployments.wire import PixelSpec, Resize

# Pillow's numbers.
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def read_preprocessing(path: Path, config: Mapping[str, Any]) -> Preprocessing:
    """timm's `create_transform(**config, is_training=False)`.

    `config` is what `timm.data.resolve_model_data_config` makes of the file at `path`. Like the
    examples on the hub, that ignores `test_input_size` and `test_crop_pct`. Raises CheckpointError.
    """
    return _DataConfig(path, config).preprocessing()


class _DataConfig:
    """What timm resolved, read key by key."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path, self.config = path, config

    def preprocessing(self) -> Preprocessing:
        mean, std = self._channels("mean"), self._channels("std")
        if not all(std):
            raise self._error("std", "should not hold a zero")
        red, green, blue = ((m, 1 / (255 * s), -m / s) for m, s in zip(mean, std, strict=True))
        return Preprocessing(
            self._pixels(mean),
            scale=(red[1], green[1], blue[1]),
            shift=(red[2], green[2], blue[2]),
        )

    def _pixels(self, mean: tuple[float, ...]) -> PixelSpec:
        _, *edges = self.config["input_size"]
        crop = (edges[0], edges[1])
        pct = self.config["crop_pct"]
        if not (is_number(pct) and pct >= LEAST_CROP):
            raise self._error("crop_pct", f"should be a number, {LEAST_CROP} or more")
        interpolation = self.config["interpolation"]
        if not isinstance(interpolation, str) or interpolation not in _FILTERS:
            raise self._error("interpolation", f"should be one of {', '.join(_FILTERS)}")
        height, width = (math.floor(edge / pct) for edge in crop)
        fill = (0, 0, 0)
        resize: Resize
        match self.config["crop_mode"]:
            case "center" if height == width:
                resize = "shortest_edge", height
            case "center":
                resize = "cover", height, width
            case "squash":
                resize = "exact", height, width
            case "border":
                resize = "contain", height, width
                red, green, blue = (round(255 * value) for value in mean)
                fill = red, green, blue
                if not all(value in range(256) for value in fill):
                    raise self._error("mean", "should be a colour, from 0 to 1, to fill borders")
            case _:
                raise self._error("crop_mode", "should be one of center, border, squash")
        return PixelSpec(resize, _FILTERS[interpolation], crop, centre="torchvision", fill=fill)

    def _channels(self, key: str) -> tuple[float, ...]:
        values = self.config[key]
        if not (isinstance(values, list | tuple) and all(map(is_number, values))):
            raise self._error(key, "should be numbers")
        if len(values) not in (1, 3):
            raise self._error(key, "should be three numbers, for red, green and blue")
        return tuple(float(value) for value in values) * (3 // len(values))

    def _error(self, key: str, problem: str) -> CheckpointError:
        found = json.dumps(self.config[key])
        return CheckpointError(f"{self.path}: {key} is {found}; it {problem}")
