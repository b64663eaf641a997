"""Valid images, one of each kind that the service reads; malformed ones are made from them."""

import io

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
