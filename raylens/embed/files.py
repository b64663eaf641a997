"""Reads an image for its upload and, in the same go, what its row tells about it."""

import hashlib
import io
import os
from pathlib import Path

from raylens.client.items import Upload, open_regular
from raylens.embed.rows import Row


class ImageFile(Upload):
    """A file on this machine. `row` is filled in when it is read."""

    def __init__(self, path: Path, row: Row) -> None:
        self._path = path
        self.row = row

    def weight(self) -> int:
        return self._path.stat().st_size

    def read(self, max_bytes: int) -> bytes:
        with open_regular(self._path) as file:
            # Taken first: a file that changes while it is read looks changed the next time.
            status = os.fstat(file.fileno())
            data = file.read(max_bytes + 1)
        self.row.size_bytes = status.st_size
        self.row.mtime_ns = status.st_mtime_ns
        self.row.sha256 = hashlib.sha256(data).hexdigest()
        self.row.width, self.row.height = width_height(data)
        return data


def width_height(data: bytes) -> tuple[int, int] | tuple[None, None]:
    """As the header says; nothing is decoded."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except Exception:  # whatever a malformed header makes Pillow raise; the service will say more
        return None, None
