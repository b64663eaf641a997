"""Parses an item, whichever way a caller spells it. Fetches nothing."""

import base64
import re
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from deployments.errors import BadUrl, InvalidItem, RaylensError

Modality = Literal["image", "text"]

# The keys that an item has one of.
KEYS = ("path", "url", "base64", "image", "bytes", "image_url", "text")
# Which of them a content part of each `type` has.
PART_KEYS = {
    "image_url": "image_url",
    "input_image": "image_url",
    "text": "text",
    "input_text": "text",
}

_SIGNATURES = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        ("WEBP", rb"RIFF....WEBP"),
        ("GIF", rb"GIF8[79]a"),
        ("BMP", rb"BM.{4}\0\0\0\0"),  # with the four zero bytes: texts may begin with BM too
        ("AVIF", rb"....ftyp(avif|avis|mif1.{4,60}avif)"),
        ("TIFF", rb"II[*+]\0|MM\0[*+]"),
    )
)
# Formats that are not read: recognised in bare base64, to be refused as images instead of embedded
# as texts.
_OTHER_SIGNATURES = re.compile(
    rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)"  # HEIC
    rb"|\0\0\0\x0c(JXL |jP  )\r\n\x87\n"  # JPEG XL, JPEG 2000
    rb"|\0\0[\1\2]\0.\0"  # ICO, CUR
    rb"|8BPS\0[\1\2]"  # PSD
    rb"|<svg[ \t\r\n>]",
    re.DOTALL,
)
_MOST_SIGNATURE_CHARS = 128  # in base64
_LEAST_IMAGE_CHARS = 40  # of a GIF with one pixel
# Strict, because a text may begin with "Data: " too.
_DATA_URI = re.compile(
    r"data:(?:[,;]|\w+/[\w.+*-]+\s*[,;]|\s*\w+/[^,\n]{1,200};\s*base64\s*,)", re.IGNORECASE
)
_MOST_HEAD_CHARS = 512
_WHITE_SPACE = " \t\r\n\f"
_BASE64 = f"{string.ascii_letters}{string.digits}+/-_= \t\r\n\f".encode()


@dataclass(frozen=True, slots=True)
class PathItem:
    """A file under one of the service's image roots."""

    path: str


@dataclass(frozen=True, slots=True)
class UrlItem:
    """An image to fetch over http(s)."""

    url: str


@dataclass(frozen=True, slots=True)
class Base64Item:
    """An image's bytes as base64."""

    text: str


@dataclass(frozen=True, slots=True)
class DataUriItem:
    """An image's bytes as a whole `data:` URI."""

    uri: str


@dataclass(frozen=True, slots=True)
class BytesItem:
    """An image's bytes, from an upload or a raw body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class TextItem:
    """A text for the model's text tower."""

    text: str


ImageItem = PathItem | UrlItem | Base64Item | DataUriItem | BytesItem
Item = ImageItem | TextItem
Parsed = Item | RaylensError

# How an item came, in the metrics.
_SOURCES = {
    PathItem: "path",
    UrlItem: "url",
    Base64Item: "base64",
    DataUriItem: "data_uri",
    BytesItem: "bytes",
    TextItem: "text",
}


def source_of(item: Parsed) -> str:
    """How it came, in a word; `unreadable` for one that could not be parsed."""
    return "unreadable" if isinstance(item, RaylensError) else _SOURCES[type(item)]


def parse_item(value: Any, modality: Modality | None = None) -> Item:
    """Parses one item; `modality` decides how a bare string is read.

    Only callers of a handle can send a `pathlib` path or an image's bytes.

    Raises InvalidItem for anything that is not exactly one of the spellings, BadUrl for an
    `image_url` that is neither http(s) nor a data URI.
    """
    if isinstance(value, str):
        return _bare_string(value, modality)
    if isinstance(value, PurePath):
        return PathItem(str(value))
    if isinstance(value, bytes):
        return BytesItem(value)
    if _is_token_ids(value):
        raise InvalidItem(
            "Token ids are those of another model; send the text itself. LangChain does so with "
            "check_embedding_ctx_length=False."
        )
    if not isinstance(value, Mapping):
        raise InvalidItem('An item is a string or an object such as {"url": "https://…"}.')
    # Typed clients write null for what they leave out.
    present = [key for key in KEYS if value.get(key) is not None]
    if len(present) != 1:
        raise InvalidItem(f"An item has exactly one of the keys {', '.join(KEYS[:-1])} or text.")
    key = present[0]
    if value.get("type") is not None and key != PART_KEYS.get(_string(value["type"], "type")):
        raise InvalidItem(
            f"The types of items are {', '.join(PART_KEYS)}: "
            "images with image_url, texts with text."
        )
    if key == "path" and isinstance(value[key], PurePath):
        return PathItem(str(value[key]))
    if key == "image_url":
        return _image_url(value[key])
    text = _string(value[key], key)
    if key == "path":
        return PathItem(text)
    if key == "text":
        return TextItem(text)
    text = text.strip(_WHITE_SPACE)
    if key == "url":
        return UrlItem(text)
    if key == "base64":
        return DataUriItem(text) if _is_data_uri(text) else Base64Item(text)
    return _image(text)


def parse_items(values: Iterable[Any], read: Callable[[Any], Item] = parse_item) -> list[Parsed]:
    """Each value as the item that `read` makes of it, or as the error that it raised."""
    parsed: list[Parsed] = []
    for value in values:
        try:
            parsed.append(read(value))
        except RaylensError as error:
            parsed.append(error.bare())
    return parsed


def _bare_string(text: str, modality: Modality | None) -> Item:
    image = text.strip(_WHITE_SPACE)
    if modality == "image":
        return _image(image)
    if modality is None:
        if _DATA_URI.match(image[:_MOST_HEAD_CHARS]):
            return DataUriItem(image)
        if _is_url(image) and "\n" not in image:  # a text may begin with a URL
            return UrlItem(image)
        if _is_image_in_base64(image):
            return Base64Item(image)
    return TextItem(text)


def _image_url(value: Any) -> Item:
    """A URL as the value of `image_url`, or in an object with options that do not matter here."""
    url = value.get("url") if isinstance(value, Mapping) else value
    if not isinstance(url, str):
        raise InvalidItem('image_url must be a string, or an object such as {"url": "https://…"}.')
    item = _image(url.strip(_WHITE_SPACE))
    if isinstance(item, Base64Item):
        raise BadUrl("image_url must be an http(s) URL or a data URI.")
    return item


def _image(text: str) -> DataUriItem | UrlItem | Base64Item:
    """A data URI, a URL or else base64, by how it begins."""
    if _is_data_uri(text):
        return DataUriItem(text)
    return UrlItem(text) if _is_url(text) else Base64Item(text)


def signature_of(data: bytes) -> str | None:
    """The image format whose signature `data` begins with, however broken the rest is."""
    for name, signature in _SIGNATURES:
        if signature.match(data):
            return name
    return None


def _is_image_in_base64(text: str) -> bool:
    """Whether a text is base64 of bytes that begin with an image's signature."""
    head = "".join(text[: 2 * _MOST_SIGNATURE_CHARS].split())[:_MOST_SIGNATURE_CHARS].rstrip("=")
    if len(head) < _LEAST_IMAGE_CHARS or not _looks_like_base64(head) or "=" in head:
        return False
    data = base64.urlsafe_b64decode(head[: len(head) // 4 * 4].replace("+", "-").replace("/", "_"))
    is_image = signature_of(data) is not None or _OTHER_SIGNATURES.match(data) is not None
    return is_image and _looks_like_base64(text)


def _looks_like_base64(text: str) -> bool:
    # A regular expression would take ten times as long over 20 MB, on the event loop.
    return text.isascii() and not text.encode().translate(None, _BASE64)


def _is_token_ids(value: Any) -> bool:
    """Whether it is what clients of OpenAI send that have tokenised a text themselves."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, int) and not isinstance(first, bool)


def _string(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise InvalidItem(f"The value of {key} must be a string.")
    return value


def _is_url(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _is_data_uri(text: str) -> bool:
    return text[:5].lower() == "data:"
