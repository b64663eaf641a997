"""Image bytes to pixels: opens the allowed formats, within limits, and maps errors to ours.

Leaves colours to `colour` and resizing to `geometry`, `patches` and `processor`.
"""

import re
from functools import partial
from io import BytesIO
from typing import Any, get_args

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401  (these register themselves; without them Image.open would import
    # all of Pillow's 40-odd plugins at the first request)
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,
    WebPImagePlugin,  # noqa: F401
)

from deployments.errors import CorruptImage, ImageTooLarge, RaylensError, UnsupportedImage
from deployments.items import signature_of
from deployments.pixels import avif, bmp, jpeg, png
from deployments.pixels.colour import key_as_decoded, to_srgb, turn_upright
from deployments.pixels.geometry import fit
from deployments.pixels.patches import cut
from deployments.pixels.processor import process
from deployments.wire import Decoded, ImageFacts, ImageFormat, ImageSpec, PixelSpec, ProcessorSpec

FORMATS = tuple(kind for kind in get_args(ImageFormat) if kind != "TIFF")

# Pillow's own limit warns, or raises at twice its value. Ours is a setting, and `_open` applies
# it to every image before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None

# The default is one per processor, but each processor has an image of its own to decode.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_TIFF_WIDTH_HEIGHT = (TiffImagePlugin.IMAGEWIDTH, TiffImagePlugin.IMAGELENGTH)
_WEBP_ANIMATION = 0x02  # in the flags of a WebP's header

# Pillow computes boxes in single precision, where whole numbers are exact up to here.
_MAX_SIDE_PIXELS = 1 << 24

# Where a channel has not 8 bits, Pillow's raw modes say so: "L;4", "RGB;16B".
_RAW_BITS = re.compile(r";(\d+)")


def decode(
    data: bytes,
    spec: ImageSpec,
    *,
    max_pixels: int,
    allow_tiff: bool = False,
    background: str = "#ffffff",
    fast: bool = False,
) -> Decoded:
    """The first frame as a person sees it, as `spec` says: of its shape, C-contiguous and writable;
    and the facts of the file.

    For a `PixelSpec`, uint8 in sRGB, resized and cropped; for a `PatchSpec`, resized and cut into
    patches; for a `ProcessorSpec`, the processor's float32 output. EXIF orientation is applied,
    transparency is composited over `background` (#rrggbb), and 16-bit, CMYK, palette and
    ICC-profiled images are converted. With `fast`, large JPEGs are decoded at a half, a quarter or
    an eighth of their size if that is enough for a `PixelSpec`; this is not exact.
    Thread-safe; the GIL is released while Pillow decodes and resizes.

    Raises UnsupportedImage for an unknown or disallowed format and for what a processor rejects,
    CorruptImage for broken, truncated or empty files, ImageTooLarge if width x height exceeds
    `max_pixels`, a strip is too long for a processor, or memory runs out.
    """
    if data.startswith(png.SIGNATURE):
        data = png.needed_chunks(data)
    elif data.startswith(b"BM"):
        data = bmp.with_full_palette(data)
    attempt = partial(
        _decode,
        spec=spec,
        max_pixels=max_pixels,
        allow_tiff=allow_tiff,
        background=background,
        fast=fast,
    )
    try:
        return attempt(data)
    except CorruptImage:
        mended = jpeg.mended(data)
        if mended is None:
            raise
        return attempt(mended)


def _decode(
    data: bytes,
    *,
    spec: ImageSpec,
    max_pixels: int,
    allow_tiff: bool,
    background: str,
    fast: bool,
) -> Decoded:
    try:
        image = _open(data, max_pixels=max_pixels, allow_tiff=allow_tiff)
        facts = _facts(image, data)
        if isinstance(spec, ProcessorSpec):
            processed = process(_load(image, background), spec, max_pixels=max_pixels)
            return Decoded(processed, facts)
        width_height = image.size
        if fast and isinstance(spec, PixelSpec) and spec.resize is not None:
            edge = max(spec.resize[1:])  # for both sides, because EXIF may turn the image
            image.draft(None, (edge, edge))  # affects JPEGs only
        plain = None if spec.exact or image.size != width_height else jpeg.decode_plain(data, image)
        upright = _load(image, background) if plain is None else plain
        fitted = fit(upright, spec) if isinstance(spec, PixelSpec) else cut(upright, spec)
        return Decoded(fitted, facts)
    except RaylensError:
        raise
    except MemoryError:
        raise ImageTooLarge(
            "The image is too large to be decoded here. Send a smaller one."
        ) from None


def _open(data: bytes, *, max_pixels: int, allow_tiff: bool) -> Image.Image:
    """The image with its header read and nothing decoded."""
    formats = (*FORMATS, "TIFF") if allow_tiff else FORMATS
    try:
        image = Image.open(BytesIO(data), formats=formats)
    except MemoryError:
        raise
    except Exception as error:
        if not data:
            raise CorruptImage("The image is empty: there are no bytes.") from None
        found = signature_of(data)
        if found == "JPEG" and jpeg.is_of_a_kind_not_read(data):
            raise _kind_not_read(found) from None
        if found in formats:
            raise _corrupt(error) from None
        raise UnsupportedImage(
            f"That is not an image in a format that this service reads: {', '.join(formats)}."
        ) from None
    width, height = image.size
    if width < 1 or height < 1:
        raise _corrupt(ValueError("no width or no height"))
    if width * height > max_pixels or max(width, height) > _MAX_SIDE_PIXELS:
        raise ImageTooLarge(
            f"The image has {width} x {height} pixels; at most {max_pixels} in all are accepted. "
            "Send a smaller one."
        )
    if image.info.get("icc_profile") is None:
        if image.format in ("JPEG", "MPO"):
            image.info["icc_profile"] = jpeg.profile(image)
        elif image.format == "AVIF":
            image.info["icc_profile"] = avif.profile(data)
    if image.format == "WEBP" and data[12:16] == b"VP8X" and data[20] & _WEBP_ANIMATION:
        # Its frames may leave parts of the canvas empty, which Pillow would show as black.
        image.rawmode = image._mode = "RGBA"  # type: ignore[attr-defined]
    return image


def _facts(image: Image.Image, data: bytes) -> ImageFacts:
    """Of an image that is open, but neither reduced nor decoded."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow gives it the size that EXIF asks
        width, height = (image.tag_v2[tag] for tag in _TIFF_WIDTH_HEIGHT)
    kind: Any = "JPEG" if image.format == "MPO" else image.format
    return ImageFacts(width, height, kind, _bit_depth(image, data))


def _bit_depth(image: Image.Image, data: bytes) -> int:
    if image.format == "AVIF":
        return avif.bit_depth(data)
    if image.format in ("JPEG", "MPO", "GIF", "WEBP") or image.mode in ("P", "PA"):
        return 8
    if image.mode == "1":
        return 1
    _, rawmode = _layout(image)
    bits = _RAW_BITS.search(rawmode)
    if bits is None:
        return 8
    # A BMP's 16 bits are those of a pixel: five for each colour, or six for green.
    return 5 if image.format == "BMP" else int(bits[1])


def _load(image: Image.Image, background: str) -> Image.Image:
    """The first frame decoded: RGB, upright."""
    try:
        extents, rawmode = _layout(image)
        if image.format == "PNG" and "transparency" in image.info:
            image.info["transparency"] = key_as_decoded(image.info["transparency"], rawmode)
        if image.format == "GIF" and image.mode == "L":
            image.palette = None  # Pillow would prefer a global one to the frame's own greys
        image.load()
        rgb = to_srgb(image, rawmode, background)
        if image.format == "GIF" and extents != (0, 0, *image.size):
            # Nothing is drawn outside the first frame, but Pillow fills that with palette entry 0.
            canvas = Image.new("RGB", rgb.size, background)
            canvas.paste(rgb.crop(extents), extents)
            rgb = canvas
        return turn_upright(rgb, image)
    except (RaylensError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders may raise anything for a broken file
        raise _corrupt(error) from None


def _layout(image: Image.Image) -> tuple[tuple[int, int, int, int], str]:
    """Where the samples in the file lie in the image, and their raw mode; "" if Pillow says
    none."""
    tiles: Any = getattr(image, "tile", None)
    if not tiles:
        return (0, 0, *image.size), ""
    tile = tiles[0]
    rawmode = tile.args if isinstance(tile.args, str) else tile.args[0]
    return tile.extents, str(rawmode)


def _kind_not_read(name: str | None) -> UnsupportedImage:
    return UnsupportedImage(
        f"The image is a {name} of a kind that this service does not read. Save it with 8 bits "
        "per sample, without unusual compression."
    )


def _corrupt(error: Exception) -> RaylensError:
    if str(error).startswith("Unsupported BMP"):  # as Pillow says of depths and compressions
        return _kind_not_read("BMP")
    return CorruptImage(
        "The image is broken or cut short. Send the whole file.",
        cause=f"{type(error).__name__}: {error}",
    )
