"""What Pillow does not say about an AVIF: its colour space as code points, and its depth."""

import struct

from deployments.pixels import icc

# The boxes that describe an image come first (ISO 23008-12).
_MOST_HEAD_BYTES = 4096
_HIGH_BIT_DEPTH, _TWELVE_BIT = 0x40, 0x20  # in the third byte of a decoder's configuration


def profile(data: bytes) -> bytes | None:
    """As an ICC profile; None for HDR, for unknown code points and where there are none. Video
    curves count as sRGB's, as in browsers.
    """
    place = data.find(b"colrnclx", 0, _MOST_HEAD_BYTES)
    if place < 0 or place + 12 > len(data):
        return None
    primaries, transfer = struct.unpack_from(">HH", data, place + 8)
    curve = icc.SRGB_CURVE if transfer in icc.VIDEO_CURVES else transfer
    return icc.from_code_points(primaries, curve)


def bit_depth(data: bytes) -> int:
    """Bits of each channel (AV1-ISOBMFF 1.2, 2.3.3); 8 if the file does not say."""
    place = data.find(b"av1C", 0, _MOST_HEAD_BYTES)
    flags = data[place + 6 : place + 7] if place >= 0 else b""
    if not flags or not flags[0] & _HIGH_BIT_DEPTH:
        return 8
    return 12 if flags[0] & _TWELVE_BIT else 10
