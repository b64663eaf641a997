"""Some 2,000 malformed images, the same in every run, each named after what is wrong with it."""

import random
from collections.abc import Iterator

from PIL import Image

from tests.hostile.bombs import bombs
from tests.hostile.pictures import Named, good, picture, saved
from tests.hostile.pngs import pngs


def all_images() -> Iterator[tuple[str, set[int], Iterator[Named]]]:
    """Each kind of malformation, the statuses that are right for it, and its images."""
    for name, some in {
        "cut off at every tenth": truncated(),
        "flipped bits": flipped(),
        "overwritten, moved and missing parts": mangled(),
        "one format's head, another's body": mixed(),
        "PNGs of every colour type and depth, right and wrong": pngs(),
        "bombs": bombs(),
        "polyglots and files that are no images": others(),
        "every other format that Pillow writes": foreign(),
    }.items():
        # The bombs take so much time together that some are refused with 429.
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
