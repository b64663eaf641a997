"""A PNG without the chunks that its pixels do not need.

Viewers pass over texts, animations and broken profiles, whatever is in them; Pillow refuses the
image for some. Knows nothing of pixels.
"""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What says how the pixels are to be read. PNG 3rd ed., 5.6.
_NEEDED = frozenset({b"tRNS", b"iCCP", b"eXIf"})
# Pillow decompresses no more than this; real profiles have a few MB at most.
_MAX_PROFILE_BYTES = 1024 * 1024
_HEAD = struct.Struct(">I4s")


def needed_chunks(data: bytes) -> bytes:
    """`data` without ancillary chunks, except for whole ones of transparency, profile and
    orientation. What is broken otherwise stays as it is, for the decoder to refuse.
    """
    kept = [SIGNATURE]
    begin = copied = len(SIGNATURE)
    while begin + _HEAD.size <= len(data):
        length, kind = _HEAD.unpack_from(data, begin)
        end = begin + _HEAD.size + length + 4
        if end > len(data):
            break
        is_needed = kind in _NEEDED and _is_whole(kind, data[begin + 8 : end])
        if kind[0] & 0x20 and not is_needed:  # lower case: ancillary
            kept.append(data[copied:begin])
            copied = end
        begin = end
        if kind == b"IEND":
            break
    if copied == len(SIGNATURE):
        return data
    kept.append(data[copied:])
    return b"".join(kept)


def _is_whole(kind: bytes, body_and_checksum: bytes) -> bool:
    body, checksum = body_and_checksum[:-4], body_and_checksum[-4:]
    if zlib.crc32(body, zlib.crc32(kind)).to_bytes(4) != checksum:
        return False
    return kind != b"iCCP" or _is_profile(body)


def _is_profile(body: bytes) -> bool:
    """Whether an iCCP chunk (name, zero, method, zlib stream) holds a profile of bounded size."""
    _, _, packed = body.partition(b"\0")
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return False
    return unpacker.eof
