"""JPEGs for the load: as many as one likes, each different, made anew from fixed seeds."""

import io

import numpy as np
from PIL import Image

QUALITY = 85


def jpeg(seed: int, width: int = 640, height: int = 480) -> bytes:
    """A colourful picture with a photo's share of detail, and so about a photo's size in bytes."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noisy = image + random.normal(0, 6, (height, width, 1)).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def variant(data: bytes, number: int) -> bytes:
    """The same picture in a file with another comment, so that no cache takes them for one."""
    text = f"variant {number}".encode()
    # A COM segment right behind the start of the image (ITU-T T.81, B.2.4.5).
    return data[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + data[2:]
