"""A PNG without the chunks that its pixels do not need, and with its colour space as a profile.

Viewers pass over texts, animations and broken profiles, whatever is in them; Pillow refuses the
image for some, and reads no colour space but a profile. Knows nothing of pixels.
"""

import struct
import zlib

import numpy as np

from deployments.pixels import icc

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# How the samples are to be read, and their colour spaces (PNG 3rd ed., 11.3).
_NEEDED = frozenset({b"tRNS", b"eXIf"})
_COLOURS = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"})
# Pillow decompresses no more than this; real profiles have a few MB at most.
_MAX_PROFILE_BYTES = 1024 * 1024
_HEAD = struct.Struct(">I4s")
_IHDR = b"\0\0\0\x0dIHDR"
_END_OF_IHDR = 33
_COLOUR_TYPE = 25  # its place
# A tRNS chunk's least and most bytes, by colour type: grey, RGB and palette.
_KEY_BYTES = {0: (2, 2), 2: (6, 6), 3: (1, 256)}
_IS_GREY = frozenset({0, 4})
# sRGB's gamma, which files give beside an sRGB chunk or instead of one.
_SRGB_GAMMA = 45455


def needed_chunks(data: bytes) -> bytes:
    """`data` without ancillary chunks, except for whole ones of transparency and orientation, and
    with one profile at most. What is broken otherwise stays as it is, for the decoder to refuse.
    """
    if data[8:16] != _IHDR or len(data) < _END_OF_IHDR:
        return data
    colour_type = data[_COLOUR_TYPE]
    kept: list[bytes] = []
    colours: dict[bytes, bytes] = {}
    has_pixels = False
    begin = copied = _END_OF_IHDR
    while begin + _HEAD.size <= len(data):
        length, kind = _HEAD.unpack_from(data, begin)
        end = begin + _HEAD.size + length + 4
        is_ancillary = bool(kind[0] & 0x20)  # lower case
        if end > len(data) and not (is_ancillary and has_pixels):
            break
        body = _whole(kind, data[begin + 8 : end]) if kind in _NEEDED | _COLOURS else b""
        if kind in _COLOURS and body and not has_pixels:
            colours.setdefault(kind, body)
        is_needed = kind in _NEEDED and _is_usable(kind, body, colour_type)
        if is_ancillary and not is_needed:
            kept.append(data[copied:begin])
            copied = end
        has_pixels = has_pixels or kind == b"IDAT"
        begin = end
        if kind == b"IEND":
            break
    if copied == _END_OF_IHDR:
        return data
    profile = _profile(colours, is_grey=colour_type in _IS_GREY)
    head = data[:_END_OF_IHDR] + (_chunk(b"iCCP", profile) if profile else b"")
    return b"".join([head, *kept, data[copied:]])


def _whole(kind: bytes, body_and_checksum: bytes) -> bytes:
    """A chunk's body; empty if it does not match its checksum."""
    body, checksum = body_and_checksum[:-4], body_and_checksum[-4:]
    return body if zlib.crc32(body, zlib.crc32(kind)).to_bytes(4) == checksum else b""


def _is_usable(kind: bytes, body: bytes, colour_type: int) -> bool:
    if kind != b"tRNS":
        return bool(body)
    least, most = _KEY_BYTES.get(colour_type, (1, 0))  # other colour types have none
    return least <= len(body) <= most


def _profile(colours: dict[bytes, bytes], *, is_grey: bool) -> bytes | None:
    """The body of an iCCP chunk for what the file says of its colours, in the order in which it
    counts (PNG 3rd ed., 4.3); None for sRGB. Primaries alone say nothing, as in browsers."""
    code_points = colours.get(b"cICP", b"")
    if code_points[2:] == b"\0\1":  # RGB of full range, as it must be
        if code_points[:2] == icc.SRGB_CODE_POINTS:
            return None
        found = icc.from_code_points(code_points[0], code_points[1])
        if found and not is_grey:
            return _packed(found)
    if _is_profile(colours.get(b"iCCP", b"")):
        return colours[b"iCCP"]
    gamma = int.from_bytes(colours.get(b"gAMA", b"")[:4])
    if b"sRGB" in colours or not gamma:
        return None
    primaries = icc.SRGB
    if len(chromaticities := colours.get(b"cHRM", b"")) == 32:
        primaries = tuple(number / 100_000 for number in struct.unpack(">8I", chromaticities))
    if gamma == _SRGB_GAMMA and np.allclose(primaries, icc.SRGB, atol=0.001):
        return None
    made = icc.from_gamma(100_000 / gamma, primaries, grey=is_grey)
    return _packed(made) if made else None


def _packed(profile: bytes) -> bytes:
    return b"made of gAMA or cICP\0\0" + zlib.compress(profile)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return _HEAD.pack(len(body), kind) + body + zlib.crc32(kind + body).to_bytes(4)


def _is_profile(body: bytes) -> bool:
    """Whether an iCCP chunk (name, zero, method, zlib stream) holds a profile of bounded size."""
    _, _, packed = body.partition(b"\0")
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return False
    return packed[:1] == b"\0" and unpacker.eof
