"""Resize and centre crop, as Hugging Face's Pillow-based processors do. Knows no file formats."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments.pixels.resample import as_image, resize, width_height_of
from deployments.wire import PixelSpec

# No larger intermediate image is ever built: 16 M pixels take 64 MB in Pillow.
MAX_INTERMEDIATE_PIXELS = 16_000_000

# Support of each of Pillow's filters, in pixels of the coarser grid (libImaging/Resample.c).
_FILTER_SUPPORT = {0: 1.0, 1: 3.0, 2: 1.0, 3: 2.0, 4: 0.5, 5: 1.0}


def fit(image: Image.Image | NDArray[np.uint8], spec: PixelSpec) -> NDArray[np.uint8]:
    """`image`, RGB of any size, from Pillow or as (H, W, 3), resized and cropped to `spec`.

    Returns uint8 (H, W, 3), C-contiguous, padded with `spec.fill` where the crop exceeds the image.
    Sizes and offsets are rounded as in `get_resize_output_image_size` and `center_crop` of
    transformers' image_transforms, or as in `Resize` and `CenterCrop` of torchvision and
    `ResizeKeepRatio` of timm and open_clip.
    """
    full = width_height_of(image)
    width, height = _resized_to(full, spec)
    crop_height, crop_width = spec.crop or (height, width)
    left, top = _offset(width, crop_width, spec), _offset(height, crop_height, spec)
    # What the crop keeps, in pixels of the resized image.
    kept = (
        max(left, 0),
        max(top, 0),
        min(left + crop_width, width),
        min(top + crop_height, height),
    )
    resample = Image.Resampling(spec.resample)
    if max(width * height, width * full[1]) <= MAX_INTERMEDIATE_PIXELS:
        resized = resize(image, (width, height), resample, exact=spec.exact)
        part = resized[kept[1] : kept[3], kept[0] : kept[2]]
    else:
        part = np.asarray(_resize_kept(as_image(image), (width, height), kept, resample))
    if part.shape[:2] == (crop_height, crop_width):
        return np.array(part, order="C")
    padded = np.full((crop_height, crop_width, 3), spec.fill, np.uint8)
    x, y = max(-left, 0), max(-top, 0)
    padded[y : y + part.shape[0], x : x + part.shape[1]] = part
    return padded


def _resized_to(width_height: tuple[int, int], spec: PixelSpec) -> tuple[int, int]:
    """(width, height) after the resize; the long side is rounded down, never below the short."""
    width, height = width_height
    if spec.resize is None:
        return width_height
    if spec.resize[0] == "exact":
        return spec.resize[2], spec.resize[1]
    if spec.resize[0] != "shortest_edge":
        ratios = height / spec.resize[1], width / spec.resize[2]
        ratio = min(ratios) if spec.resize[0] == "cover" else max(ratios)
        return max(round(width / ratio), 1), max(round(height / ratio), 1)
    short = spec.resize[1]
    # Float division, then truncation, as in transformers, so that the last pixel is the same.
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def _offset(edge: int, kept: int, spec: PixelSpec) -> int:
    """Where the crop begins, in pixels; negative if it begins outside the image."""
    if spec.centre == "transformers":
        return (edge - kept) // 2
    return round((edge - kept) / 2) if edge >= kept else -((kept - edge) // 2)


def _resize_kept(
    image: Image.Image,
    width_height: tuple[int, int],
    kept: tuple[int, int, int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """The `kept` part of `image` resized to `width_height`, without resizing all of it.

    For strips: an image of 1 by 50 million pixels would otherwise need hundreds of gigabytes.
    Not for all images, because Pillow keeps a `box` in single precision: over 150 random images
    of 5 to 1200 pixels a side, 3% of the values differ from resize and crop, by up to 24 of 255
    (bicubic, upscaled noise).
    """
    scale_x, scale_y = image.width / width_height[0], image.height / width_height[1]
    x0, x1 = kept[0] * scale_x, min(kept[2] * scale_x, image.width)
    y0, y1 = kept[1] * scale_y, min(kept[3] * scale_y, image.height)
    # Crop to the pixels that matter first, so that single precision suffices for the rest.
    margin_x = _FILTER_SUPPORT[resample] * max(scale_x, 1.0) + 1
    margin_y = _FILTER_SUPPORT[resample] * max(scale_y, 1.0) + 1
    left, top = max(math.floor(x0 - margin_x), 0), max(math.floor(y0 - margin_y), 0)
    right = min(math.ceil(x1 + margin_x), image.width)
    bottom = min(math.ceil(y1 + margin_y), image.height)
    if (left, top, right, bottom) != (0, 0, *image.size):
        image = image.crop((left, top, right, bottom))
    x0, x1, y0, y1 = x0 - left, x1 - left, y0 - top, y1 - top

    kept_width, kept_height = kept[2] - kept[0], kept[3] - kept[1]
    if kept_width * image.height > MAX_INTERMEDIATE_PIXELS and kept_width > image.width:
        # Pillow before 13 resizes horizontally first, and widening a tall strip before shortening
        # it exhausts the memory (https://github.com/python-pillow/Pillow/pull/9549).
        rows = (image.width, kept_height)
        image = image.resize(rows, resample, box=(0, y0, image.width, y1))
        y0, y1 = 0, kept_height
    return image.resize((kept_width, kept_height), resample, box=(x0, y0, x1, y1))
