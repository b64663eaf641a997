"""The colour space of an AVIF that gives it by code points: Pillow tells its ICC profile only."""

import struct

from deployments.pixels import icc

# The boxes that describe an image come first (ISO 23008-12).
_MOST_HEAD_BYTES = 4096


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
