"""Decoded images as a person sees them, in 8-bit sRGB: depth, palette, transparency, ICC profile
and orientation.

Leaves opening images to `decode` and resizing to `geometry`.
"""

from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin

from deployments.errors import UnsupportedImage

# EXIF 2.32, tag 0x0112: how to turn the stored image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Significant bits of the raw modes that Pillow opens as I;16 or I, where not 16.
_BITS = {"I;12": 12, "I;16S": 15, "I;16BS": 15, "I;32N": 32, "I;32S": 31, "I;32BS": 31}

# The Pillow mode of each colour space that an ICC profile may have (ICC.1:2022, table 19).
_PROFILE_MODES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}
# Camera and display profiles have a few KB, press profiles up to a few MB. Small ones are cached.
_MAX_PROFILE_BYTES = 8 * 1024 * 1024
_MAX_CACHED_PROFILE_BYTES = 64 * 1024

_SRGB = ImageCms.createProfile("sRGB")
# A lattice of 16 values per channel, to see whether a profile changes anything.
_LATTICE = np.stack(np.meshgrid(*[np.arange(0, 256, 17, dtype=np.uint8)] * 3), -1).reshape(
    64, 64, 3
)


def key_as_decoded(transparency: Any, rawmode: str) -> Any:
    """A PNG's transparent colour (tRNS) in the values of the decoded image.

    The file gives it at its own bit depth (PNG 3rd ed., 11.3.1.1), and Pillow passes it on as it is
    although it widens 2-bit and 4-bit samples and narrows 16-bit colours to 8.
    """
    match rawmode:
        case "L;2":
            return transparency * 85
        case "L;4":
            return transparency * 17
        case "RGB;16B":
            return tuple(sample >> 8 for sample in transparency)
    return transparency


def to_srgb(image: Image.Image, rawmode: str, background: str) -> Image.Image:
    """A loaded image of any mode as RGB in sRGB, over `background` where it is transparent.

    `rawmode` is the layout that its samples had in the file. Raises UnsupportedImage for
    floating-point samples, whose range is unknown.
    """
    if image.mode == "F":
        raise UnsupportedImage("Floating-point images are not accepted. Save it with 8 bits.")
    profile = image.info.get("icc_profile")
    colours, alpha = _split_alpha(image, rawmode)
    rgb = _convert(colours, profile)
    extrema = (255, 255) if alpha is None else alpha.getextrema()
    # Many programs leave a BMP's alpha unset, and viewers ignore it.
    if extrema == (255, 255) or (image.format == "BMP" and extrema == (0, 0)):
        return rgb
    opaque = Image.new("RGB", rgb.size, background)
    opaque.paste(rgb, mask=alpha)
    return opaque


def turn_upright(image: Image.Image, source: Image.Image) -> Image.Image:
    """`image` turned as the EXIF orientation of `source` asks."""
    transpose = _UPRIGHT.get(orientation(source))
    return image if transpose is None else image.transpose(transpose)


def orientation(image: Image.Image) -> int:
    """1 (upright) to 8, as in EXIF; 1 where EXIF is missing or broken.

    Not by Pillow's `getexif`, which then looks in XMP: editors leave that behind when they have
    turned the pixels, and viewers go by EXIF alone.
    """
    tags: Any = Image.Exif()
    with suppress(Exception):  # Pillow's EXIF parser raises a dozen kinds of them
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            tags = image.tag_v2
        elif "exif" in image.info:
            tags.load(image.info["exif"])
        found: int = tags.get(ExifTags.Base.Orientation, 1)
        return found if found in _UPRIGHT else 1
    return 1


def is_srgb(profile: bytes | None) -> bool:
    """Whether RGB with this ICC profile is sRGB already, or the profile is not for RGB."""
    found = _found_transform(profile)
    return found is None or found[0] != "RGB"


def _split_alpha(image: Image.Image, rawmode: str) -> tuple[Image.Image, Image.Image | None]:
    """The image without transparency (1, L, P, RGB, CMYK, YCbCr, HSV or LAB) and its alpha (L)."""
    transparency = image.info.get("transparency")
    if image.mode.startswith("I") or (image.mode == "L" and isinstance(transparency, int)):
        samples = np.asarray(image)
        grey = image if image.mode == "L" else Image.fromarray(_to_8_bits(samples, rawmode))
        if transparency is None:
            return grey, None
        return grey, Image.fromarray(np.where(samples == transparency, 0, 255).astype(np.uint8))
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode.replace("a", "A"))
    if image.mode not in ("LA", "RGBA") and image.has_transparency_data:
        image = image.convert("RGBA")
    if image.mode == "LA":
        return image.getchannel("L"), image.getchannel("A")
    if image.mode == "RGBA":
        # Pillow opens 16-bit grey with alpha as RGBA, but its profile is for grey.
        colours = image.getchannel("R") if rawmode == "LA;16B" else image.convert("RGB")
        return colours, image.getchannel("A")
    return image, None


def _to_8_bits(samples: "np.ndarray[Any, Any]", rawmode: str) -> "np.ndarray[Any, Any]":
    """Grey samples (H, W) of any integer type as uint8: the high byte, as Pillow does for RGB."""
    bits = _BITS.get(rawmode, 16)
    samples = samples.view(np.uint32) if bits == 32 else samples.clip(0)
    if bits > 16 and samples.max() < 1 << 16:
        bits = 16  # 32-bit files nearly always hold 16-bit samples
    return (samples >> (bits - 8)).astype(np.uint8)


def _convert(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode == "LAB":
        return _apply(_lab_to_srgb(), image)
    found = _found_transform(profile)
    if found is not None:
        mode, transform = found
        if mode == image.mode:
            return _apply(transform, image)
        if mode == "RGB" and image.mode != "CMYK":
            return _apply(transform, image.convert("RGB"))
        if mode == "L" and image.mode == "1":
            return _apply(transform, image.convert("L"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _apply(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None only in place  # noqa: S101
    return converted


def _found_transform(profile: bytes | None) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    if not profile or len(profile) > _MAX_PROFILE_BYTES:
        return None
    cached = len(profile) <= _MAX_CACHED_PROFILE_BYTES
    return _cached_transform(profile) if cached else _transform(profile)


def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """The mode that a profile describes, and the transform from it to sRGB.

    None if the profile is broken, of another colour space, or sRGB under whatever name: one that
    moves no colour of the lattice by more than 2 of 255.
    Threads may share transforms: Little CMS keeps their state per call.
    """
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = _PROFILE_MODES.get(opened.profile.xcolor_space)
        if mode is None:
            return None
        transform = ImageCms.buildTransform(opened, _SRGB, mode, "RGB")
        if mode == "RGB":
            moved = np.asarray(_apply(transform, Image.fromarray(_LATTICE))).astype(np.int16)
            if np.abs(moved - _LATTICE).max() <= 2:
                return None
    except Exception:  # a broken profile is no reason to refuse the image
        return None
    return mode, transform


_cached_transform = lru_cache(maxsize=32)(_transform)


@lru_cache(maxsize=1)
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB")
