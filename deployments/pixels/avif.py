"""The colour space of an AVIF that gives it by code points: Pillow tells its ICC profile only."""

import struct

from deployments.pixels import icc

# The boxes that describe an image come first (ISO 23008-12).
_MOST_HEAD_BYTES = 4096
_SRGB, _VIDEO_CURVES = 13, frozenset({1, 6, 14, 15})


def profile(data: bytes) -> bytes | None:
    """As an ICC profile; None for sRGB, for what has to be mapped, and where nothing is said.

    Viewers show the video curves as sRGB's.
    """
    place = data.find(b"colrnclx", 0, _MOST_HEAD_BYTES)
    if place < 0 or place + 12 > len(data):
        return None
    primaries, transfer = struct.unpack_from(">HH", data, place + 8)
    if transfer in _VIDEO_CURVES:
        transfer = _SRGB
    if bytes((primaries & 255, transfer & 255)) == icc.SRGB_CODE_POINTS:
        return None
    return icc.from_code_points(primaries, transfer)
