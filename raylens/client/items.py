"""What users pass as items, as the service takes them: local files and pictures become bytes."""

import errno
import io
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, Union, cast

import numpy as np
from numpy.typing import NDArray

from raylens.client.errors import ApiError

if TYPE_CHECKING:
    from PIL import Image


class Upload(ABC):
    """An image that is read when it is sent, by a method that may do more with its bytes."""

    @abstractmethod
    def weight(self) -> int:
        """About how many bytes it has. May raise OSError."""

    @abstractmethod
    def read(self, max_bytes: int) -> bytes:
        """Its bytes, or the first of more than `max_bytes`. May raise OSError."""


Item: TypeAlias = Union[
    str, PurePath, bytes, Mapping[str, Any], "Image.Image", NDArray[np.uint8], Upload
]
"""A local file, URL, data URI, text, an image's bytes, a picture, or one of the API's objects."""

SentItem: TypeAlias = bytes | str | dict[str, Any]
"""An image's bytes, or what the API takes as it is."""

# The modes that PNG keeps without loss. Others, such as CMYK, would need a conversion that
# depends on their colour profile.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_MOST_PATH_CHARS = 4096


def as_items(items: "Iterable[Item] | Item") -> Iterable[Item]:
    """`items`, or a list of the only one."""
    if isinstance(items, str | bytes | PurePath | Mapping) or _is_picture(items):
        return [cast(Item, items)]
    if not isinstance(items, Iterable):
        raise TypeError(f"items must be iterable, not {type(items).__name__}")
    return items


def local_file(item: Item) -> Path | None:
    """The file that a path, or a string, names."""
    if isinstance(item, PurePath):
        return Path(item)
    if not isinstance(item, str) or len(item) > _MOST_PATH_CHARS or "\0" in item:
        return None
    path = Path(item)
    try:
        return path if path.is_file() else None
    except OSError:  # a part of it is longer than a name may be
        return None


def weight(item: Item) -> int:
    """About how many bytes an item takes in a request; 0 for what cannot be sent."""
    path = local_file(item)
    try:
        if isinstance(item, Upload):
            return item.weight()
        if path is not None:
            return path.stat().st_size
    except OSError:  # `sent` will say so
        return 0
    if isinstance(item, bytes | str):
        return len(item)
    if isinstance(item, np.ndarray):
        return item.nbytes
    if isinstance(item, Mapping):
        return sum(len(value) for value in item.values() if isinstance(value, str | bytes))
    return 3 * item.width * item.height if _is_picture(item) else 0  # type: ignore[union-attr]


def sent(item: Item, *, max_bytes: int) -> SentItem:
    """An item as it is sent. Raises OSError for an unreadable file, ApiError for an image of no or
    more than `max_bytes`, ValueError or TypeError for what cannot be sent."""
    path = local_file(item)
    if path is not None:
        _check_size(path.stat().st_size, max_bytes)  # before it fills the memory
        with open_regular(path) as file:
            return _checked(file.read(max_bytes + 1), max_bytes)
    if isinstance(item, Upload):
        _check_size(item.weight(), max_bytes)
        return _checked(item.read(max_bytes), max_bytes)
    if isinstance(item, bytes):
        return _checked(item, max_bytes)
    if isinstance(item, str):
        return item
    if isinstance(item, Mapping):
        return {
            key: str(value) if isinstance(value, PurePath) else value for key, value in item.items()
        }
    if _is_picture(item):
        return _checked(_png(item), max_bytes)
    raise TypeError(
        f"{type(item).__name__} is not an item: give a path, a URL, a text, bytes, a PIL image, an "
        "array or a dict"
    )


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, and nothing that might never end: a FIFO or a device."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return path.open("rb")


def image(item: Item) -> Item:
    """An item that must be an image: a string that names nothing here names a file there."""
    if not isinstance(item, str) or local_file(item) is not None:
        return item
    is_remote = item.strip()[:8].lower().startswith(("http://", "https://", "data:"))
    return {"image": item} if is_remote else {"path": item}


def _checked(data: bytes, max_bytes: int) -> bytes:
    if not data:
        raise ApiError("The image is empty: it has 0 bytes.", code="corrupt_image", status=422)
    _check_size(len(data), max_bytes)
    return data


def _check_size(size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise ApiError(
            f"The image has {size_bytes} bytes; the service takes at most {max_bytes}.",
            code="image_too_large",
            status=413,
        )


def _is_picture(item: Any) -> bool:
    if isinstance(item, np.ndarray):
        return item.ndim <= 3  # (N, H, W, 3) is N pictures
    # Only a program that has imported Pillow can have such an image.
    return type(item).__module__.startswith("PIL.") and hasattr(item, "getexif")


def _png(picture: Any) -> bytes:
    """A picture without loss, with its colour profile and the orientation that it still needs."""
    from PIL import Image

    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"an array must be uint8 of shape (H, W, 3), not {picture.dtype} of {picture.shape}"
            )
        picture = Image.fromarray(picture)
    if picture.mode not in _PNG_MODES:
        raise ValueError(
            f"a PIL image of mode {picture.mode} cannot be sent without a conversion: convert it "
            'to "RGB", or give its file'
        )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1, exif=picture.getexif())
    return buffer.getvalue()
