"""Every spelling of an item has its meaning, and anything else is an error of that item alone."""

import base64
import io
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deployments.errors import BadUrl, InvalidItem
from deployments.items import (
    Base64Item,
    DataUriItem,
    PathItem,
    TextItem,
    UrlItem,
    parse_item,
    parse_items,
)

DATA = "data:image/png;base64,AAAA"
URL = "https://example.org/a.jpg"


@pytest.mark.parametrize(
    ("spelling", "meaning"),
    [
        ({"path": "cats/tom.jpg"}, PathItem("cats/tom.jpg")),
        ({"url": URL}, UrlItem(URL)),
        ({"url": DATA}, UrlItem(DATA)),  # which the fetcher refuses: http(s) alone
        ({"base64": "AAAA"}, Base64Item("AAAA")),
        ({"base64": DATA}, DataUriItem(DATA)),
        ({"image": URL}, UrlItem(URL)),
        ({"image": DATA}, DataUriItem(DATA)),
        ({"image": "AAAA"}, Base64Item("AAAA")),
        ({"text": ""}, TextItem("")),
        ({"text": URL}, TextItem(URL)),
        ({"type": "image_url", "image_url": {"url": URL}}, UrlItem(URL)),
        ({"type": "image_url", "image_url": {"url": DATA, "detail": "low"}}, DataUriItem(DATA)),
        ({"type": "image_url", "image_url": URL}, UrlItem(URL)),
        ({"type": "input_image", "image_url": URL}, UrlItem(URL)),
        ({"type": "input_image", "image_url": {"url": DATA}, "detail": "auto"}, DataUriItem(DATA)),
        ({"image_url": URL}, UrlItem(URL)),
        ({"image_url": {"url": DATA}}, DataUriItem(DATA)),
        ({"bytes": "AAAA"}, Base64Item("AAAA")),
        ({"bytes": URL}, UrlItem(URL)),
        ({"type": "text", "text": "a cat"}, TextItem("a cat")),
        ({"type": "input_text", "text": "a cat"}, TextItem("a cat")),
        ({"url": URL, "id": 7}, UrlItem(URL)),
        (URL, UrlItem(URL)),
        ("HTTPS://EXAMPLE.ORG/A.JPG", UrlItem("HTTPS://EXAMPLE.ORG/A.JPG")),
        (DATA, DataUriItem(DATA)),
        ("DATA:image/png;base64,AAAA", DataUriItem("DATA:image/png;base64,AAAA")),
        ("AAAA", TextItem("AAAA")),
        ("", TextItem("")),
    ],
)
def test_every_spelling_has_its_meaning(spelling: Any, meaning: Any) -> None:
    assert parse_item(spelling) == meaning


@pytest.mark.parametrize(
    "spelling",
    [
        None,
        7,
        True,
        [],
        [1, 2],
        {},
        {"id": 1},
        {"path": 7},
        {"url": None},
        {"text": ["a"]},
        {"path": "a", "url": URL},
        {"text": "a", "image": "b"},
        {"type": "image_url"},
        {"type": "image_url", "text": "a"},
        {"type": "input_text", "image_url": URL},
        {"image_url": ["a"]},
        {"image_url": {"url": URL}, "text": "a"},
        {"type": "image_url", "image_url": {"url": 7}},
        {"type": "image_url", "image_url": {"url": URL}, "path": "a"},
        {"type": "image_url", "image_url": {"url": URL}, "text": "a"},
        {"type": "text"},
        {"type": "text", "text": "a", "url": URL},
        {"type": "audio", "audio": "x"},
        {"type": 7, "text": "a"},
    ],
)
def test_anything_else_is_an_invalid_item(spelling: Any) -> None:
    with pytest.raises(InvalidItem):
        parse_item(spelling)


def test_an_image_url_that_is_no_url_is_a_bad_url() -> None:
    with pytest.raises(BadUrl):
        parse_item({"type": "image_url", "image_url": {"url": "cats/tom.jpg"}})


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF"])
@pytest.mark.parametrize("side", [1, 200])
def test_a_bare_string_that_is_base64_of_an_image_is_that_image(kind: str, side: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(buffer, kind)
    text = encoded(buffer.getvalue())
    url_safe = text.replace("+", "-").replace("/", "_").rstrip("=")
    in_lines = "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    for spelling in (text, url_safe, in_lines):
        assert parse_item(spelling) == Base64Item(spelling)
    assert parse_item(text, "text") == TextItem(text)


@pytest.mark.parametrize(
    "text",
    [
        "/9j/4AAQSkZJRgABAQAAAQABAAD",  # too short to be an image
        "/9j/ " + "a photo of a cat, " * 9,
        encoded(b"no image at all, but long enough to be one" * 4),
        "iVBORw0KGgo" + "A" * 200 + "!",
        "a" * 300,
    ],
)
def test_a_bare_string_that_only_looks_like_base64_is_a_text(text: str) -> None:
    assert parse_item(text) == TextItem(text)


def test_a_long_text_that_begins_like_an_image_is_told_in_a_moment() -> None:
    text = "iVBORw0KGgo" + "A" * 200 + " " * 20_000_000 + "!"
    began = time.process_time()
    assert isinstance(parse_item(text), TextItem)
    assert time.process_time() - began < 0.5  # about 0.02 s; a careless pattern takes hours


def test_modality_forces_how_bare_strings_are_read() -> None:
    assert parse_item("AAAA", "image") == Base64Item("AAAA")
    assert parse_item(URL, "image") == UrlItem(URL)
    assert parse_item(URL, "text") == TextItem(URL)
    assert parse_item({"path": "a"}, "text") == PathItem("a")


def test_a_path_may_be_a_pathlib_path() -> None:
    expected = PathItem("cats/tom.jpg")
    assert parse_item(Path("cats/tom.jpg")) == expected
    assert parse_item({"path": Path("cats/tom.jpg")}) == expected
    with pytest.raises(InvalidItem):
        parse_item({"url": Path("cats/tom.jpg")})


def test_a_bad_item_leaves_the_others_alone() -> None:
    good, bad, also_good = parse_items([{"path": "a"}, 7, {"path": "b"}])
    assert (good, also_good) == (PathItem("a"), PathItem("b"))
    assert isinstance(bad, InvalidItem)


@pytest.mark.parametrize("around", [" ", "\n", "\r\n", "\t"])
@pytest.mark.parametrize(
    ("spelling", "meaning"),
    [
        ("https://example.org/a.jpg", UrlItem("https://example.org/a.jpg")),
        ("data:image/png;base64,AAAA", DataUriItem("data:image/png;base64,AAAA")),
    ],
)
def test_white_space_around_an_image_does_not_make_it_a_text(
    around: str, spelling: str, meaning: Any
) -> None:
    text = f"{around}{spelling}{around}"
    assert parse_item(text) == parse_item({"image": text}) == meaning
    assert parse_item({"image_url": text}) == parse_item(text, "image") == meaning
    assert parse_item({"text": text}) == parse_item(text, "text") == TextItem(text)


@pytest.mark.parametrize(
    "text",
    [
        "Data: 12/05/2024\nOggetto: riunione",
        "data: the plural of datum, they say",
        "data:science",
        "https://example.org/a.jpg\nis where the cat is",
    ],
)
def test_a_text_may_begin_like_a_data_uri_or_a_url(text: str) -> None:
    assert parse_item(text) == TextItem(text)


@pytest.mark.parametrize(
    "uri",
    ["data:image/png,AAAA", "data:,", "data:;base64,AAAA", "DATA: image/jpeg; base64,AAAA"],
)
def test_whatever_looks_like_a_data_uri_is_read_as_one(uri: str) -> None:
    assert parse_item(uri) == DataUriItem(uri)


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\0\0\0\x0cJXL \r\n\x87\n",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\0\0\1\0\1\0",
        b"8BPS\0\1",
        b'<svg xmlns="http://www.w3.org/2000/svg">',
    ],
)
def test_a_bare_string_that_is_base64_of_a_format_that_is_not_read_is_no_text(head: bytes) -> None:
    text = encoded(head + bytes(40))
    assert parse_item(text) == Base64Item(text)


def test_null_is_as_good_as_no_key() -> None:
    others = dict.fromkeys(("type", "path", "url", "base64", "image", "image_url"))
    assert parse_item({**others, "text": "a cat"}) == TextItem("a cat")
    with pytest.raises(InvalidItem):
        parse_item({"text": None})
