"""Malformed images, the same ones at every run: some 2,000, named after what is wrong with them."""

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

Named = tuple[str, bytes]

SIDE = 48


def picture(mode: str = "RGB", seed: int = 0, side: int = SIDE) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def good() -> dict[str, bytes]:
    """One of each kind that the service reads."""
    frames = [picture(seed=i) for i in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": saved(picture(), "JPEG"),
        "jpeg progressive": saved(picture(), "JPEG", progressive=True, exif=exif),
        "jpeg grey": saved(picture("L"), "JPEG"),
        "jpeg cmyk": saved(picture("CMYK"), "JPEG"),
        "png": saved(picture(), "PNG"),
        "png palette": saved(picture("P"), "PNG", transparency=3),
        "png alpha": saved(picture("RGBA"), "PNG"),
        "png 16 bit": saved(picture("L").convert("I;16"), "PNG"),
        "webp": saved(picture(), "WEBP"),
        "webp lossless": saved(picture("RGBA"), "WEBP", lossless=True),
        "gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "bmp": saved(picture(), "BMP"),
        "bmp palette": saved(picture("P"), "BMP"),
        "avif": saved(picture(), "AVIF"),
    }


def all_images() -> Iterator[tuple[str, set[int], Iterator[Named]]]:
    """Each kind of malformation, the statuses that are right for it, and its images."""
    for name, some in {
        "cut off at every tenth": truncated(),
        "flipped bits": flipped(),
        "overwritten, moved and missing parts": mangled(),
        "one format's head, another's body": mixed(),
        "PNGs of every colour type and depth, right and wrong": pngs(),
        "bombs": bombs(),
        "polyglots and what is no image": others(),
        "every other format that Pillow writes": foreign(),
    }.items():
        # All of the bombs at once are more than there is time for.
        yield name, {200, 413, 415, 422, *([429] if name == "bombs" else [])}, some


def truncated() -> Iterator[Named]:
    for name, data in good().items():
        for tenth in range(10):
            yield f"{name}, {tenth} tenths", data[: len(data) * tenth // 10]
        for end in (1, 2, 3, 4, 8, 12, 16, 24, 32):
            yield f"{name}, {end} bytes", data[:end]
            yield f"{name}, all but {end} bytes", data[:-end]


def flipped() -> Iterator[Named]:
    for name, data in good().items():
        for seed in range(40):
            chance = random.Random(f"{name} {seed}")
            changed = bytearray(data)
            # Half of them in the head alone, where sizes and tables are.
            reach = min(len(data), 200) if seed % 2 else len(data)
            for _ in range(chance.choice((1, 2, 8, 40))):
                changed[chance.randrange(reach)] ^= 1 << chance.randrange(8)
            yield f"{name}, bits {seed}", bytes(changed)


def mangled() -> Iterator[Named]:
    for name, data in good().items():
        for seed in range(24):
            chance = random.Random(f"mangled {name} {seed}")
            start = chance.randrange(4, len(data))
            end = min(len(data), start + chance.choice((1, 4, 16, 256)))
            part = data[start:end]
            new = (
                b"\xff" * len(part),
                b"\0" * len(part),
                chance.randbytes(len(part)),
                b"",
                part * 50,
                data[4 : 4 + len(part)],
            )[seed % 6]
            yield f"{name}, part {seed}", data[:start] + new + data[end:]


def mixed() -> Iterator[Named]:
    images = good()
    for one, head in images.items():
        for other, body in images.items():
            if one != other:
                yield f"{one} with {other}", head[:40] + body[40:]


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", check)


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


def pngs() -> Iterator[Named]:
    """Every colour type, depth and interlacing, allowed or not, and what else corrupts them."""
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
        "IDAT of something else": png(head, chunk(b"IDAT", b"nothing compressed")),
        "too few rows": png(head, chunk(b"IDAT", zlib.compress(b"\0" + bytes(48)))),
        "too many rows": png(head, chunk(b"IDAT", zlib.compress((b"\0" + bytes(48)) * 900))),
        "filter 9": png(head, chunk(b"IDAT", zlib.compress((b"\x09" + bytes(48)) * 16))),
        "IDATs apart": png(
            head, chunk(b"IDAT", raw[:9]), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", raw[9:])
        ),
        "a wrong checksum of the head": SIGNATURE + ihdr(16, 16)[:-4] + b"\0\0\0\0" + rows,
        "a wrong checksum of the rows": png(head, chunk(b"IDAT", raw, 1)),
        "no width": png(ihdr(0, 16), rows),
        "no height": png(ihdr(16, 0), rows),
        "a negative width": png(ihdr(0xFFFFFFFF, 16), rows),
        "a chunk that is too long": SIGNATURE + head + struct.pack("!I", 2**31) + b"IDAT",
        "a chunk of a bad name": png(head, chunk(b"\0\1\2\3", b""), rows),
        "an unknown critical chunk": png(head, chunk(b"ABCD", b"x"), rows),
        "a palette of no colours": png(ihdr(16, 16, 8, 3), chunk(b"PLTE", b""), rows),
        "a palette of half a colour": png(ihdr(16, 16, 8, 3), chunk(b"PLTE", b"1234"), rows),
        "no palette": png(ihdr(16, 16, 8, 3), rows),
        "a profile of nothing": png(head, chunk(b"iCCP", b""), rows),
        "a profile of noise": png(head, chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 200)), rows),
        "EXIF of noise": png(head, chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"), rows),
        "transparency too long": png(head, chunk(b"tRNS", bytes(500)), rows),
        "animation of no frames": png(head, chunk(b"acTL", struct.pack("!II", 0, 0)), rows),
        "animation of four thousand million frames": png(
            head, chunk(b"acTL", struct.pack("!II", 2**32 - 1, 0)), rows
        ),
        "the signature alone": SIGNATURE,
        "after a line-feed conversion": b"\x89PNG\n\x1a\n" + head + rows,
    }
    yield from broken.items()


def scans(number: int, side: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
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
        "EXIF that is its own successor",
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


def others() -> Iterator[Named]:
    images = good()
    zipped = b"PK\3\4" + bytes(26) + b"PK\5\6" + bytes(18)
    script = b"<html><script>alert(1)</script>"
    for name, data in images.items():
        yield f"{name}, then a ZIP", data + zipped
        yield f"{name}, then a page", data + script
        yield f"{name}, after a page", script + data
        yield f"{name}, after a PDF's head", b"%PDF-1.7\n" + data
        yield f"{name}, a megabyte behind", data + bytes(1_000_000)
        yield f"{name}, twice", data + data
    entities = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'>"
    yield from {
        "one byte": b"\0",
        "text": b"hello",
        "a megabyte of zeros": bytes(1_000_000),
        "a page": script,
        "SVG": svg + b"<image href='file:///etc/passwd'/></svg>",
        "SVG with entities": b"<?xml version='1.0'?>" + entities + svg + b"&b;</svg>",
        "ImageMagick's own language": b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1'",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "a ZIP": zipped,
        "a pickle": b"\x80\4c__builtin__\neval\n(V1\ntR.",
        "a program": b"\x7fELF\2\1\1" + bytes(60),
        "a playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "a movie's head": b"\0\0\0 ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(100),
        "HEIC's head": b"\0\0\0 ftypheic\0\0\0\0mif1heic" + bytes(100),
        "JPEG XL": b"\xff\x0a" + bytes(100),
        "a WMF's head": b"\xd7\xcd\xc6\x9a" + bytes(100),
        "a FITS head": b"SIMPLE  =                    T" + b" " * 2850,
        "a PSD's head": b"8BPS\0\1" + bytes(100),
    }.items()


def foreign() -> Iterator[Named]:
    """Formats that Pillow would open, were it not told which ones to."""
    Image.init()
    ours = {"JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "MPO"}
    for kind in sorted(set(Image.SAVE) - ours):
        for mode in ("RGB", "L", "1", "P", "RGBA"):
            try:
                data = saved(picture(mode), kind)
            except Exception:
                continue
            yield f"{kind}, {mode}", data
            yield f"{kind}, {mode}, cut off", data[: len(data) // 2]
