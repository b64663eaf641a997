"""Small pictures of local files, as data URIs for pages that need no other file."""

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# As the service's own default: one decoded picture takes at most 200 MB.
_MAX_PIXELS = 50_000_000
_THREADS = 4
_AHEAD = 64


def thumbnails(
    sources: Sequence[str],
    side: int,
    *,
    most_bytes: int,
    advance: Callable[[int, int], None] = lambda done, failed: None,
) -> list[str | None]:
    """A WebP of at most `side` pixels square for each source, as a data URI; None for URLs, for
    what is no longer there or no picture, and for all that come once `most_bytes` are used up."""
    made: list[str | None] = []
    total = 0
    with _refusing_bombs(), ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(sources), _AHEAD):
            part = sources[start : start + _AHEAD]
            if total >= most_bytes:
                made += [None] * len(part)
                advance(len(part), 0)
                continue
            for thumbnail in threads.map(lambda source: _thumbnail(source, side), part):
                # It counts even if it does not fit any more, or the smallest would be preferred.
                total += len(thumbnail or "")
                made.append(thumbnail if total <= most_bytes else None)
                advance(1, 0)
    return made


def _thumbnail(source: str, side: int) -> str | None:
    from PIL import Image, ImageOps

    path = Path(source)
    try:
        if not path.is_file():  # URLs too, and pipes, which would make us wait
            return None
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            image.draft("RGB", (2 * side, 2 * side))  # JPEGs are decoded no larger than needed
            small = _rgb(ImageOps.exif_transpose(image))
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=70, method=2)
    except Exception:  # Pillow has raised nearly everything about broken files
        return None
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _rgb(image: Any) -> Any:
    """Over white where it is transparent, as the service sees it."""
    from PIL import Image

    if image.mode.startswith("I;16"):  # Pillow would make all but the darkest white
        image = image.point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


@contextmanager
def _refusing_bombs() -> Iterator[None]:
    """Pillow warns of a picture whose pixels would fill the memory. Here it raises. Not set in
    the threads, because a process has only one list of such filters."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
