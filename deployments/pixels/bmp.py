"""Gives a BMP a palette of 256 colours: Pillow misreads shorter ones of greys, and refuses longer
ones. Knows nothing of pixels.
"""

import struct

_PIXELS_AT, _INFO, _DEPTH, _COLOURS = 10, 14, 28, 46  # offsets of the header's fields
_END_OF_INFO = 54
_FULL, _ENTRY_BYTES = 256, 4


def with_full_palette(data: bytes) -> bytes:
    """`data` itself if there is nothing to do, or if it is broken."""
    if len(data) < _END_OF_INFO:
        return data
    offset, info_bytes = struct.unpack_from("<II", data, _PIXELS_AT)
    (depth,) = struct.unpack_from("<H", data, _DEPTH)
    (colours,) = struct.unpack_from("<I", data, _COLOURS)
    begin = _INFO + info_bytes
    if depth not in (4, 8) or (depth == 8 and colours in (0, _FULL)):
        return data
    if not (40 <= info_bytes <= 124 and begin <= offset <= len(data)):
        return data
    palette = data[begin:offset][: _ENTRY_BYTES * min(colours or 1 << depth, _FULL)]
    head = bytearray(data[:begin])
    struct.pack_into("<I", head, _PIXELS_AT, begin + _ENTRY_BYTES * _FULL)
    struct.pack_into("<I", head, _COLOURS, _FULL)
    return bytes(head) + palette.ljust(_ENTRY_BYTES * _FULL, b"\0") + data[offset:]
