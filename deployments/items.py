"""Parses an item, whichever way a caller spells it. Fetches nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from deployments.errors import BadUrl, InvalidItem, RaylensError

Modality = Literal["image", "text"]

KEYS = ("path", "url", "base64", "image", "text", "type")


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


def parse_item(value: Any, modality: Modality | None = None) -> Item:
    """Parses one item; `modality` decides how a bare string is read.

    A `pathlib` path, which only callers of a handle can send, becomes a PathItem.

    Raises InvalidItem for anything that is not exactly one of the spellings, BadUrl for an
    `image_url` that is neither http(s) nor a data URI.
    """
    if isinstance(value, str):
        return _bare_string(value, modality)
    if isinstance(value, PurePath):
        return PathItem(str(value))
    if not isinstance(value, Mapping):
        raise InvalidItem('An item is a string or an object such as {"url": "https://…"}.')
    present = [key for key in KEYS if key in value]
    if "type" in present:
        return _content_part(value, [key for key in present if key not in ("type", "text")])
    if len(present) != 1:
        raise InvalidItem(
            "An item has exactly one of the keys path, url, base64, image, text or type."
        )
    key = present[0]
    if key == "path" and isinstance(value[key], PurePath):
        return PathItem(str(value[key]))
    text = _string(value[key], key)
    if key == "path":
        return PathItem(text)
    if key == "url":
        return UrlItem(text)
    if key == "text":
        return TextItem(text)
    if key == "image" and _is_url(text):
        return UrlItem(text)
    return DataUriItem(text) if _is_data_uri(text) else Base64Item(text)


def parse_items(values: Iterable[Any], modality: Modality | None = None) -> list[Parsed]:
    """Each value as an item, or as the error that parsing it raised."""
    parsed: list[Parsed] = []
    for value in values:
        try:
            parsed.append(parse_item(value, modality))
        except RaylensError as error:
            parsed.append(error.bare())
    return parsed


def _bare_string(text: str, modality: Modality | None) -> Item:
    if modality != "text":
        if _is_data_uri(text):
            return DataUriItem(text)
        if _is_url(text):
            return UrlItem(text)
        if modality == "image":
            return Base64Item(text)
    return TextItem(text)


def _content_part(value: Mapping[Any, Any], others: list[str]) -> Item:
    kind = value["type"]
    if others:
        raise InvalidItem(f"An item with a type may not have the key {others[0]} as well.")
    if kind == "text" and "image_url" not in value:
        return TextItem(_string(value.get("text"), "text"))
    if kind == "image_url" and "text" not in value:
        image_url = value.get("image_url")
        if not isinstance(image_url, Mapping):
            raise InvalidItem('image_url must be an object such as {"url": "https://…"}.')
        url = _string(image_url.get("url"), "image_url.url")
        if _is_data_uri(url):
            return DataUriItem(url)
        if _is_url(url):
            return UrlItem(url)
        raise BadUrl("image_url.url must be an http(s) URL or a data URI.")
    raise InvalidItem('An item\'s type is "image_url" or "text", with the key of that name only.')


def _string(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise InvalidItem(f"The value of {key} must be a string.")
    return value


def _is_url(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _is_data_uri(text: str) -> bool:
    return text[:5].lower() == "data:"
