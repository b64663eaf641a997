"""Images that cost far more to decode than their size suggests."""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.hostile.pictures import Named, good, picture, saved
from tests.hostile.pngs import chunk, ihdr, png


def scans(number: int, side: int) -> bytes:
    """A progressive JPEG whose last scan is repeated `number` times."""
    data = saved(Image.new("L", (side, side), 100), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * number + data[-2:]


def bombs() -> Iterator[Named]:
    for width, height in ((65535, 65535), (30000, 30000), (2**31 - 1, 1), (1, 2**31 - 1)):
        for colour, depth in ((0, 1), (2, 8), (3, 8), (6, 16)):
            rows = chunk(b"IDAT", zlib.compress(bytes(100_000), 9))
            palette = chunk(b"PLTE", bytes(768))
            data = png(ihdr(width, height, depth, colour), palette, rows)
            yield f"PNG of {width} x {height}, colour {colour}, depth {depth}", data
        if max(width, height) < 65536:
            for name, image in (("jpeg", good()["jpeg"]), ("grey", good()["jpeg grey"])):
                start = image.index(b"\xff\xc0") + 5
                size = struct.pack("!HH", height, width)
                yield f"{name} of {width} x {height}", image[:start] + size + image[start + 4 :]
            gif = good()["gif"]
            yield (
                f"GIF of {width} x {height}",
                (gif[:6] + struct.pack("<HH", width, height) + gif[10:]),
            )
        bmp = good()["bmp"]
        size = struct.pack("<ii", width, height)
        yield f"BMP of {width} x {height}", bmp[:18] + size + bmp[26:]
    zeros = zlib.compress(bytes(100_000_000), 9)
    head = ihdr(16, 16)
    rows = chunk(b"IDAT", zlib.compress((b"\0" + bytes(48)) * 16))
    yield "100 MB of rows in 100 KB", png(head, chunk(b"IDAT", zeros))
    yield "100 MB of text in 100 KB", png(head, chunk(b"zTXt", b"a\0\0" + zeros), rows)
    yield "100 MB of international text", png(head, chunk(b"iTXt", b"a\0\1\0\0\0" + zeros), rows)
    yield "100 MB of colour profile", png(head, chunk(b"iCCP", b"a\0\0" + zeros), rows)
    yield "300,000 chunks", png(head, chunk(b"prVt", b"") * 300_000, rows)
    yield "49 megapixels of one colour", saved(Image.new("L", (7000, 7000)), "PNG")
    yield (
        "49 megapixels, lossless WEBP",
        saved(Image.new("RGB", (7000, 7000)), "WEBP", lossless=True),
    )
    yield "a strip of 1 x 50,000", saved(Image.new("RGB", (1, 50_000)), "PNG")
    yield "2,000 scans of 16 megapixels", scans(2000, 4000)
    yield "30,000 scans of one megapixel", scans(30_000, 1000)
    frames = [picture("P", i, 8) for i in range(2)]
    yield "20,000 frames", saved(frames[0], "GIF", save_all=True, append_images=frames[1:] * 20_000)
    yield "100,000 segments", (b"\xff\xd8" + b"\xff\xe5\0\4ab" * 100_000 + good()["jpeg"][2:])
    yield "run-length BMP", rle_bmp(5000)
    deep = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + bytes(12)
    yield (
        "EXIF whose directory links to itself",
        saved(picture(), "JPEG", exif=b"Exif\0\0" + deep + b"\x08\0\0\0"),
    )
    avif = good()["avif"]
    place = avif.index(b"ispe") + 8
    yield (
        "AVIF of 65,535 x 65,535",
        avif[:place] + struct.pack("!II", 65535, 65535) + avif[place + 8 :],
    )
    yield "AVIF of no size", avif[:place] + bytes(8) + avif[place + 8 :]
    webp = good()["webp lossless"]
    place = webp.index(b"VP8L") + 9
    yield "WEBP of 16,384 x 16,384", webp[:place] + b"\xff\xff\xff\x0f" + webp[place + 4 :]


def rle_bmp(side: int) -> bytes:
    """Pillow decodes these in Python, a byte at a time."""
    rows = (b"\1\x05" * side + b"\0\0") * 400 + b"\0\1"
    palette = bytes(1024)
    offset = 54 + len(palette)
    head = b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset)
    return (
        head
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(rows), 0, 0, 0, 0)
        + palette
        + rows
    )
