"""The image processors of transformers that work with Pillow: found, built and tried out.

Knows nothing of what their settings mean. `deployments.pixels` runs them on clients' images.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deployments.checkpoints.checkpoint import CheckpointError, first_line, read_json
from deployments.wire import ProcessorSpec

# (width, height) of two blank images that show whether all images come out in the same size.
_PROBES = ((37, 91), (200, 64))


def class_name(path: Path, keys: dict[str, Any]) -> str:
    """The class that the settings `keys` of the file `path` are for, such as `CLIPImageProcessor`,
    without suffixes for its age or backend.

    Old files do not name it; then it follows from the `model_type` in the config.json beside them.
    Raises CheckpointError if that does not help either.
    """
    name = keys.get("image_processor_type") or keys.get("feature_extractor_type")
    if name is None:
        name = _class_of_model(read_json(path.parent / "config.json").get("model_type"))
    if not isinstance(name, str):
        raise CheckpointError(
            f"{path}: image_processor_type is missing or no name; it should be the image "
            "processor's class"
        )
    name = name.replace("FeatureExtractor", "ImageProcessor")
    return name.removesuffix("Fast").removesuffix("Pil")


def _class_of_model(model_type: object) -> str | None:
    from transformers.models.auto import image_processing_auto as auto

    mapping: dict[object, dict[str, str]] = vars(auto)["IMAGE_PROCESSOR_MAPPING_NAMES"]
    names = mapping.get(model_type, {})
    return names.get("torchvision") or names.get("pil")


def build(path: Path, name: str, keys: dict[str, Any]) -> Any:
    """The PIL-backed processor of class `name` with the settings `keys` of the file `path`.

    Raises CheckpointError if there is none, or it refuses the settings.
    """
    import transformers

    processor_class = getattr(transformers, f"{name}Pil", None)
    if processor_class is None:
        raise CheckpointError(
            f"{path}: image processor {name}: transformers {transformers.__version__} has none "
            "that works with Pillow, and raylens needs one; choose another checkpoint"
        )
    try:
        return processor_class.from_dict(keys)
    except Exception as error:  # constructors may raise anything for wrong values
        raise _refused(path, name, error) from error


def own_spec(path: Path, name: str, keys: dict[str, Any]) -> ProcessorSpec:
    """What `deployments.pixels` needs to run the processor itself.

    Raises CheckpointError unless its only output is three channels, of the same size for every
    image.
    """
    processor = build(path, name, keys)
    found = {_try_out(path, name, processor, width_height) for width_height in _PROBES}
    if len(found) > 1:
        raise CheckpointError(
            f"{path}: {name} with this size leaves images of different sizes, and raylens needs "
            "one; give size a height and a width, or set do_center_crop and crop_size"
        )
    return ProcessorSpec(type(processor).__name__, json.dumps(keys, sort_keys=True), found.pop())


def _try_out(
    path: Path, name: str, processor: Any, width_height: tuple[int, int]
) -> tuple[int, int]:
    """(height, width) of the processor's output for a black image."""
    try:
        with np.errstate(all="ignore"):
            output = dict(processor(Image.new("RGB", width_height), return_tensors="np"))
    except Exception as error:  # processors may raise anything for wrong settings
        raise _refused(path, name, error) from error
    shapes = {key: np.shape(value) for key, value in output.items()}
    if [*shapes] != ["pixel_values"] or shapes["pixel_values"][:-2] != (1, 3):
        raise CheckpointError(
            f"{path}: {name} makes {shapes} of an image, and raylens needs pixel_values of shape "
            "(1, 3, height, width) alone; choose another checkpoint"
        )
    if not np.isfinite(output["pixel_values"]).all():
        raise CheckpointError(
            f"{path}: {name} makes values of an image that are not finite; correct its image_std"
        )
    height, width = shapes["pixel_values"][2:]
    return height, width


def _refused(path: Path, name: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: {name} of transformers does not work with these settings "
        f"({type(error).__name__}: {first_line(error)}); correct them or choose another checkpoint"
    )
