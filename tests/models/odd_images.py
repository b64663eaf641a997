"""Images as callers send them: of odd sizes and shapes, in every mode and format that is read."""

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image


def picture(width: int, height: int, *, seed: int, channels: int = 3) -> NDArray[np.uint8]:
    """uint8 (height, width, channels): blurred colours, finer ones on top, and some noise."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, channels), np.float32)
    for cells, strength in ((3, 90), (9, 50), (40, 25)):
        coarse = random.normal(0, strength, (cells, cells, channels)).astype(np.float32)
        for channel in range(channels):
            layer = Image.fromarray(coarse[..., channel]).resize((width, height), 3)
            total[..., channel] += np.asarray(layer)
    total += random.normal(0, 8, total.shape)
    return (total + random.uniform(60, 190, channels)).clip(0, 255).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def odd_images() -> dict[str, bytes]:
    """28 files, each under a few words that describe it."""
    seeds = iter(range(100))

    def make(width: int, height: int, mode: str = "RGB") -> Image.Image:
        channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
        values = picture(width, height, seed=next(seeds), channels=channels)
        return Image.frombytes(mode, (width, height), values.tobytes())

    def turned(orientation: int) -> bytes:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        return encode(make(300, 200), "JPEG", exif=exif)

    deep = picture(190, 260, seed=next(seeds), channels=1)[..., 0].astype(np.uint16) * 257
    dots = make(150, 100, "L").convert("1")
    palette = make(257, 129).quantize(64)
    clear = make(120, 160).quantize(32)
    return {
        "8 x 8": encode(make(8, 8), "PNG"),
        "9 x 7": encode(make(9, 7), "PNG"),
        "31 x 33": encode(make(31, 33), "PNG"),
        "224 x 224": encode(make(224, 224), "PNG"),
        "225 x 223": encode(make(225, 223), "PNG"),
        "640 x 480": encode(make(640, 480), "JPEG", quality=90),
        "427 x 640": encode(make(427, 640), "JPEG", quality=75, subsampling=2),
        "2000 x 1500": encode(make(2000, 1500), "JPEG", quality=85),
        "1499 x 2000": encode(make(1499, 2000), "WEBP", quality=80),
        "1:40": encode(make(16, 640), "PNG"),
        "40:1": encode(make(640, 16), "PNG"),
        "40:1, large": encode(make(2000, 50), "JPEG"),
        "1:40, large": encode(make(50, 2000), "JPEG"),
        "grey": encode(make(300, 200, "L"), "PNG"),
        "grey JPEG": encode(make(333, 222, "L"), "JPEG"),
        "grey with alpha": encode(make(129, 200, "LA"), "PNG"),
        "grey of 16 bits": encode(Image.fromarray(deep), "PNG"),
        "black and white": encode(dots, "PNG"),
        "RGBA": encode(make(257, 129, "RGBA"), "PNG"),
        "RGBA WebP": encode(make(140, 180, "RGBA"), "WEBP", lossless=True),
        "CMYK": encode(make(200, 300, "CMYK"), "JPEG"),
        "turned by 90 degrees": turned(6),
        "turned by 180 degrees": turned(3),
        "mirrored and turned": turned(5),
        "palette": encode(palette, "PNG"),
        "palette with a clear colour": encode(clear, "PNG", transparency=0),
        "GIF": encode(palette, "GIF"),
        "BMP": encode(make(101, 67), "BMP"),
    }
