"""What pixels a checkpoint in OpenCLIP's layout wants: open_clip's `image_transform`, as data."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.layout import OPEN_CLIP_CONFIG
from deployments.checkpoints.open_clip import OpenClipConfig
from deployments.models.spec import Preprocessing
from deployments.wire import PixelSpec, Resize


def read_preprocessing(
    library: Any, folder: Path, config: OpenClipConfig, visual: Any
) -> Preprocessing:
    """`preprocess_cfg`, with open_clip's defaults for what it leaves out, and at the size of the
    image tower `visual`. Raises CheckpointError."""
    try:
        defaults = asdict(library.transform.PreprocessCfg())
        keys = library.transform.merge_preprocess_dict(defaults, config.preprocess)
        if getattr(visual, "image_size", None) is not None:
            keys["size"] = visual.image_size
        library.transform.image_transform_v2(library.transform.PreprocessCfg(**keys), False)
        mean, std = (_three(keys[name]) for name in ("mean", "std"))
        return Preprocessing(
            _pixels(keys),
            scale=_channels(1 / 255 / value for value in std),
            shift=_channels(-m / s for m, s in zip(mean, std, strict=True)),
        )
    except Exception as error:  # open_clip's assertions among them
        raise CheckpointError(
            f"{folder / OPEN_CLIP_CONFIG}: open_clip cannot read its preprocess_cfg "
            f"({type(error).__name__}: {error}); correct it"
        ) from error


def _pixels(keys: dict[str, Any]) -> PixelSpec:
    size = keys["size"]
    height, width = size if isinstance(size, list | tuple) else (size, size)
    bilinear = keys["interpolation"] == "bilinear"
    resample = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
    crop: tuple[int, int] | None = (height, width)
    resize: Resize
    fill = 0
    match keys["resize_mode"] or "shortest":
        case "longest":
            resize, fill = ("contain", height, width), keys["fill_color"]
            if type(fill) is not int or fill not in range(256):
                raise ValueError(f"fill_color is {fill!r}, which is no grey level, 0 to 255")
        case "squash":
            resize, crop = ("exact", height, width), None
        case _ if height == width:
            resize = ("shortest_edge", height)
        case _:
            # open_clip does not hand its interpolation on here.
            resize, resample = ("cover", height, width), Image.Resampling.BICUBIC
    return PixelSpec(resize, int(resample), crop, centre="torchvision", fill=(fill, fill, fill))


def _three(value: Any) -> list[float]:
    return [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)] * 3


def _channels(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
