"""JPEGs without Pillow: a fast path for the common photo, an upright one in sRGB, straight into an
array; and what a file that Pillow refuses is.

libjpeg-turbo without Pillow gives the same pixels, but avoids Pillow's layout (four bytes each) and
two copies out of it. Everything else is left to Pillow.
"""

import re
from collections.abc import Iterator

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from deployments.pixels.colour import is_srgb, orientation

_BEGIN, _END = b"\xff\xd8\xff", b"\xff\xd9"
_PROFILE = b"ICC_PROFILE\0"
_PROFILE_HEAD_BYTES = 14  # with the piece's number and the number of pieces
# The segments for applications (APP0 to APP15) and comments.
_NOT_FOR_PIXELS = frozenset({*range(0xE0, 0xF0), 0xFE})
# Those of them that are kept: marker, name and least bytes.
_NEEDED = (
    (0xE0, b"JFIF\0", 12),
    (0xE1, b"Exif\0\0", 14),
    (0xE2, _PROFILE, _PROFILE_HEAD_BYTES + 1),
    (0xEE, b"Adobe", 12),
)

# How baseline, extended and progressive JPEGs, Huffman or arithmetic, begin a frame (T.81, B.1).
_FRAMES_READ = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_NO_FRAMES = frozenset({0xC4, 0xC8, 0xCC})  # tables, in the same range
_SCAN = 0xDA
# Not a stuffed byte or a restart, which are part of a scan.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def mended(data: bytes) -> bytes | None:
    """`data`, a JPEG that the decoder refused, without the segments that its pixels do not need and
    with an end marker; None if there is nothing to mend."""
    if not data.startswith(_BEGIN):
        return None
    needed = _needed_segments(data)
    if _END not in data[-64:]:
        needed = _ended(needed) or needed
    return needed if needed != data and needed.startswith(_BEGIN) else None


def _needed_segments(data: bytes) -> bytes:
    """`data` without the application's segments and comments, except for whole ones that say how
    colours are coded and which way is up."""
    kept = []
    copied = 0
    for marker, begin in _segments(data):
        end = begin + int.from_bytes(data[begin : begin + 2])
        body = data[begin + 2 : end]
        is_needed = any(
            marker == of and body.startswith(name) and len(body) >= least
            for of, name, least in _NEEDED
        )
        if marker in _NOT_FOR_PIXELS and not is_needed:
            kept.append(data[copied : begin - 2])
            copied = end
        if marker == _SCAN:
            break
    return b"".join([*kept, data[copied:]])


def _ended(data: bytes) -> bytes | None:
    """`data` with an end marker, if all of its scans are there; else None."""
    # Cameras and forms pad with these, but a scan may end in one too.
    stripped = data.rstrip(b"\0\r\n")
    if stripped.endswith(b"\xff"):
        stripped += b"\0"
    return next((d + _END for d in dict.fromkeys((data, stripped)) if _is_whole(d + _END)), None)


def _is_whole(data: bytes) -> bool:
    try:
        if not _has_every_coefficient(data):
            return False
        colours = simplejpeg.decode_jpeg_header(data)[2]
        colours = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        # An eighth of the size in memory; strict, so that a scan cut short is an error.
        simplejpeg.decode_jpeg(data, colours, min_height=1, min_width=1, strict=True)
    except (ValueError, IndexError, MemoryError):
        return False
    return True


def profile(image: Image.Image) -> bytes | None:
    """The first complete ICC profile in the segments of a JPEG (ICC.1:2022, B.4). Pillow finds none
    if there are several, or if it comes after the frame's header."""
    pieces: dict[int, dict[int, bytes]] = {}
    for name, body in getattr(image, "applist", ()):
        if name == "APP2" and body.startswith(_PROFILE) and len(body) > _PROFILE_HEAD_BYTES:
            number, total = body[len(_PROFILE) : _PROFILE_HEAD_BYTES]
            of_that_size = pieces.setdefault(total, {})
            of_that_size.setdefault(number, body[_PROFILE_HEAD_BYTES:])
            if of_that_size.keys() >= set(range(1, total + 1)):
                return b"".join(of_that_size[n] for n in range(1, total + 1))
    return None


def is_of_a_kind_not_read(data: bytes) -> bool:
    """Whether a JPEG has samples of more than 8 bits, or is lossless or hierarchical."""
    for marker, begin in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            return marker not in _FRAMES_READ or data[begin + 2 : begin + 3] != b"\x08"
    return False


def _has_every_coefficient(data: bytes) -> bool:
    """Whether the scans begin to give all 64 coefficients of all components, to their last bit: a
    progressive JPEG cut between two scans would be blurred. T.81, B.2.3."""
    missing: set[tuple[int, int]] = set()
    for marker, begin in _segments(data):
        if marker in _FRAMES_READ and not missing:
            number = data[begin + 7]
            missing = {(data[begin + 8 + 3 * c], k) for c in range(number) for k in range(64)}
        elif marker == _SCAN:
            number = data[begin + 2]
            first, last, bits = data[begin + 3 + 2 * number : begin + 6 + 2 * number]
            if bits & 15 == 0:
                components = [data[begin + 3 + 2 * c] for c in range(number)]
                missing -= {(c, k) for c in components for k in range(first, last + 1)}
    return not missing


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker of a JPEG that has a length, and where its length stands."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill bytes
            place += 1
            continue
        yield marker, place + 2
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
        if marker == _SCAN:
            after = _MARKER.search(data, place)
            if after is None:
                return
            place = after.start()


def decode_plain(data: bytes, image: Image.Image) -> NDArray[np.uint8] | None:
    """The pixels of `data`, which Pillow has opened as `image`: RGB, uint8 (H, W, 3).

    None if the image needs more than decoding, or if anything is odd about the file: Pillow then
    handles it.
    """
    if image.format not in ("JPEG", "MPO") or image.mode != "RGB":
        return None
    if orientation(image) != 1 or not is_srgb(image.info.get("icc_profile")):
        return None
    try:
        # The size that Pillow reads has been checked, but this one is allocated.
        if simplejpeg.decode_jpeg_header(data)[:2] != image.size[::-1]:
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return None
    return pixels
