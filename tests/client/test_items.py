"""Every form of an item reaches the service as what it means."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raylens import ApiError, Client


@pytest.fixture
def photo(tmp_path: Path, jpeg: Callable[..., bytes]) -> Path:
    path = tmp_path / "tom.jpg"
    path.write_bytes(jpeg(1))
    return path


def test_every_form_of_an_image_gives_the_same_vector(client: Client, photo: Path) -> None:
    data = photo.read_bytes()
    text = base64.b64encode(data).decode()
    (photo.parent / "served" / "there.jpg").write_bytes(data)
    items: list[Any] = [
        photo,
        str(photo),
        data,
        f"data:image/jpeg;base64,{text}",
        {"base64": text},
        {"path": "there.jpg"},
        {"path": Path("there.jpg")},
        Image.open(photo),
        np.asarray(Image.open(photo)),
    ]
    vectors = client.embed(items)
    assert vectors.shape == (9, 12)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, np.tile(vectors[0], (9, 1)), atol=1e-6)
    for item in [*items, "there.jpg"]:
        np.testing.assert_allclose(client.embed_image(item), vectors[0], atol=1e-6)


def test_a_string_that_names_no_file_is_a_text(client: Client, tmp_path: Path) -> None:
    as_text = client.embed_text("a cat")
    vectors = client.embed(["a cat", {"text": "a cat"}, "a\0cat", "cat" * 5000, str(tmp_path)])
    np.testing.assert_array_equal(vectors[0], as_text)
    np.testing.assert_array_equal(vectors[1], as_text)
    assert not np.allclose(vectors[4], as_text)  # a folder's name is a text as well


def test_a_string_is_never_a_file_for_embed_text(client: Client, photo: Path) -> None:
    assert not np.allclose(client.embed_text(str(photo)), client.embed_image(photo))


def test_a_picture_keeps_its_orientation_and_its_profile(client: Client, photo: Path) -> None:
    picture = Image.open(photo)
    exif = picture.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, exif=exif)
    turned = client.embed_image(buffer.getvalue())
    assert not np.allclose(turned, client.embed_image(photo), atol=1e-2)
    opened = Image.open(io.BytesIO(buffer.getvalue()))
    np.testing.assert_allclose(client.embed_image(opened), turned, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_pictures_of_every_mode_that_png_has_are_sent(client: Client, mode: str) -> None:
    picture = Image.new("RGB", (16, 16), "#123456").convert("L" if mode == "I;16" else mode)
    picture = picture.convert("I").convert("I;16") if mode == "I;16" else picture
    assert client.embed_image(picture).shape == (12,)


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (Image.new("CMYK", (8, 8)), "mode CMYK"),
        (np.zeros((8, 8, 3), np.float32), r"float32 of \(8, 8, 3\)"),
        (np.zeros((8, 8), np.uint8), r"uint8 of \(8, 8\)"),
    ],
)
def test_a_picture_that_would_be_changed_is_refused(
    client: Client, item: Any, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        client.embed_image(item)


def test_what_is_no_item_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="int is not an item"):
        client.embed([1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="must be iterable, not int"):
        client.embed(1)  # type: ignore[call-overload]
    good, bad = client.embed([b"", None], errors="return")  # type: ignore[call-overload]
    assert isinstance(good, ApiError)
    assert good.code == "corrupt_image"
    assert isinstance(bad, TypeError)


def test_an_array_of_pictures_is_as_many_items(client: Client) -> None:
    pictures = np.zeros((3, 16, 16, 3), np.uint8)
    pictures[1] = 255
    vectors = client.embed(pictures)
    assert vectors.shape == (3, 12)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1])
