"""PNGs built chunk by chunk: of every colour type and depth, valid and invalid."""

import struct
import zlib
from collections.abc import Iterator

from tests.hostile.pictures import Named


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", check)


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


def pngs() -> Iterator[Named]:
    """Every colour type, depth and interlacing, allowed or not, and PNGs corrupt in other ways."""
    depths = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    palette = chunk(b"PLTE", bytes(range(256)) * 3)
    for colour in range(8):
        for depth in (0, 1, 2, 3, 4, 8, 16, 32):
            for interlace in (0, 1, 2):
                side = 16
                bits = depth * channels.get(colour, 3)
                row = b"\1" + bytes((side * bits + 7) // 8)
                rows = chunk(b"IDAT", zlib.compress(row * side * (2 if interlace else 1)))
                allowed = depth in depths.get(colour, ()) and interlace < 2
                kind = "right" if allowed else "wrong"
                name = f"{kind}: colour {colour}, depth {depth}, interlace {interlace}"
                head = ihdr(side, side, depth, colour, interlace)
                yield name, png(head, palette, rows) if colour == 3 else png(head, rows)
    head, rows = ihdr(16, 16), chunk(b"IDAT", zlib.compress((b"\0" + bytes(48)) * 16))
    raw = zlib.compress((b"\0" + bytes(48)) * 16)
    broken = {
        "no IHDR": png(rows),
        "two IHDRs": png(head, head, rows),
        "IHDR last": SIGNATURE + rows + head,
        "no IDAT": png(head),
        "empty IDAT": png(head, chunk(b"IDAT", b"")),
        "IDAT that is not compressed": png(head, chunk(b"IDAT", b"nothing compressed")),
        "too few rows": png(head, chunk(b"IDAT", zlib.compress(b"\0" + bytes(48)))),
        "too many rows": png(head, chunk(b"IDAT", zlib.compress((b"\0" + bytes(48)) * 900))),
        "filter 9": png(head, chunk(b"IDAT", zlib.compress((b"\x09" + bytes(48)) * 16))),
        "IDATs with another chunk between them": png(
            head, chunk(b"IDAT", raw[:9]), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", raw[9:])
        ),
        "a wrong checksum of the head": SIGNATURE + ihdr(16, 16)[:-4] + b"\0\0\0\0" + rows,
        "a wrong checksum of the rows": png(head, chunk(b"IDAT", raw, 1)),
        "no width": png(ihdr(0, 16), rows),
        "no height": png(ihdr(16, 0), rows),
        "a negative width": png(ihdr(0xFFFFFFFF, 16), rows),
        "a chunk that is too long": SIGNATURE + head + struct.pack("!I", 2**31) + b"IDAT",
        "a chunk with a bad name": png(head, chunk(b"\0\1\2\3", b""), rows),
        "an unknown critical chunk": png(head, chunk(b"ABCD", b"x"), rows),
        "a palette of no colours": png(ihdr(16, 16, 8, 3), chunk(b"PLTE", b""), rows),
        "a palette of half a colour": png(ihdr(16, 16, 8, 3), chunk(b"PLTE", b"1234"), rows),
        "no palette": png(ihdr(16, 16, 8, 3), rows),
        "a profile of nothing": png(head, chunk(b"iCCP", b""), rows),
        "a profile of noise": png(head, chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 200)), rows),
        "EXIF of noise": png(head, chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"), rows),
        "transparency too long": png(head, chunk(b"tRNS", bytes(500)), rows),
        "animation of no frames": png(head, chunk(b"acTL", struct.pack("!II", 0, 0)), rows),
        "animation of four billion frames": png(
            head, chunk(b"acTL", struct.pack("!II", 2**32 - 1, 0)), rows
        ),
        "the signature alone": SIGNATURE,
        "after a line-feed conversion": b"\x89PNG\n\x1a\n" + head + rows,
    }
    yield from broken.items()
