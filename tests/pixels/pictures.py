"""Pictures to decode, files of them, and what decoding makes of a file."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deployments.pixels.decode import decode
from deployments.wire import ImageSpec, Pixels, PixelSpec

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3, (0,) * 3
AS_STORED = PixelSpec(None, 3, None)
AS_IS = PixelSpec(("exact", 8, 8), 0, None)
CLIP = PixelSpec(("shortest_edge", 224), 3, (224, 224))
EVERY_FORMAT = ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF"]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(
    data: bytes,
    spec: ImageSpec = AS_IS,
    max_pixels: int = 1_000_000,
    allow_tiff: bool = True,
) -> Pixels:
    return decode(data, spec, max_pixels=max_pixels, allow_tiff=allow_tiff).pixels


def colour(data: bytes) -> tuple[int, ...]:
    """The one colour of an image, to within what lossy formats do to it."""
    found = pixels(data).reshape(-1, 3)
    assert np.ptp(found, axis=0).max() <= 2
    return tuple(found[0].tolist())


def close_to(expected: tuple[int, ...], tolerance: int = 2) -> object:
    """Equals every colour whose channels are all within `tolerance` of the expected one's."""
    return pytest.approx(expected, abs=tolerance)


def quadrants(mode: str = "RGB", size: int = 8) -> Image.Image:
    """Upright: red and green above blue and white."""
    image = Image.new("RGB", (size, size), RED)
    half = size // 2
    image.paste(GREEN, (half, 0, size, half))
    image.paste(BLUE, (0, half, half, size))
    image.paste(WHITE, (half, half, size, size))
    return image.convert(mode)


def chunk(kind: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    """A chunk of a PNG."""
    if checksum is None:
        checksum = zlib.crc32(kind + body)
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", checksum)


def png(
    width: int,
    height: int,
    depth: int,
    colour_type: int,
    rows: Sequence[bytes],
    chunks: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG as Pillow cannot write it: any depth, and samples as they are."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    middle = b"".join(chunk(kind, body) for kind, body in chunks)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + middle
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )
