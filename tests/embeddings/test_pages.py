"""Pages hold hostile names as text, and thumbnails of what can be seen."""

import base64
import io
import json
import os
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raylens.embeddings.galleries import Group, Picture, chosen, draw_map, gallery
from raylens.embeddings.pages import link, page
from raylens.embeddings.projection import best_method, project
from raylens.embeddings.reading import read
from raylens.embeddings.thumbnails import thumbnails
from tests.embeddings.stored import store

HOSTILE = [
    "/p/</script><script>alert(1)</script>.jpg",
    "/p/<!--<script>.jpg",
    "/p/quote\"'&amp;.jpg",
    "/p/{{data}}{{script}}.jpg",
    "/p/\u2028new\nline\x1b[31m.jpg",
    "javascript:alert(1)",
    "/p/\udcff.jpg",
]


class Elements(HTMLParser):
    """What a browser makes of a page: its elements, and the text of each script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def picture(path: Path, colour: Any = "red", **options: Any) -> str:
    Image.new("RGB", (80, 40), colour).save(path, **options)
    return str(path)


def opened(thumbnail: str | None) -> Image.Image:
    assert thumbnail is not None
    kind, data = thumbnail.split(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def png(width: int, height: int) -> bytes:
    """The head of a PNG that claims to be so large."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk


@pytest.mark.parametrize("name", ["gallery", "map"])
def test_hostile_names_stay_text(name: Any) -> None:
    plain = Elements(page(name, "title", {"names": []}))
    hostile = page(name, HOSTILE[0], {"names": HOSTILE})
    assert hostile.isascii()
    found = Elements(hostile)
    assert found.tags == plain.tags
    assert found.data["names"] == HOSTILE
    assert found.data["title"] == HOSTILE[0]
    assert found.scripts[1] == plain.scripts[1]


@pytest.mark.parametrize("name", ["gallery", "map"])
def test_pages_ask_for_nothing(name: Any) -> None:
    found = Elements(page(name, "title", {}))
    assert not {"link", "iframe", "object", "base"} & set(found.tags)
    assert not [value for key, value in found.attributes if key in ("src", "href", "action")]
    policy = next(value for _, value in found.attributes if value and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "img-src data:;" in policy
    assert "http" not in found.scripts[1].replace("^https?:", "")


def test_only_files_and_web_addresses_are_linked(tmp_path: Path) -> None:
    assert link("https://example.org/a.jpg") == "https://example.org/a.jpg"
    assert link("/p/a b?#.jpg") == "file:///p/a%20b%3F%23.jpg"
    assert link("javascript:alert(1)") is None
    assert link("data:text/html,x") is None


def test_a_gallery_has_a_placeholder_for_what_is_not_there(tmp_path: Path) -> None:
    there = picture(tmp_path / "a.png")
    gone = str(tmp_path / "b.png")
    group = Group("group", [Picture(there, "0.9"), Picture(gone, "0.8")])
    (shown,) = Elements(gallery("title", "note", [group])).data["groups"]
    first, second = shown["items"]
    assert opened(first["thumbnail"]).size == (80, 40)
    assert (first["name"], first["label"], first["source"]) == ("a.png", "0.9", there)
    assert second["thumbnail"] is None


def test_thumbnails_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    small = opened(thumbnails([picture(tmp_path / "a.jpg", exif=exif)], 40, most_bytes=10**6)[0])
    assert small.size == (20, 40)


def test_transparency_is_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(path)
    small = opened(thumbnails([str(path)], 40, most_bytes=10**6)[0])
    assert min(channel[0] for channel in small.convert("RGB").getextrema()) > 250  # type: ignore[index]


@pytest.mark.parametrize("mode", ["I;16", "CMYK", "P", "1", "LA", "F"])
def test_pictures_of_any_mode_have_thumbnails(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    Image.new(mode, (9, 9)).save(path)
    assert opened(thumbnails([str(path)], 40, most_bytes=10**6)[0]).size == (9, 9)


@pytest.mark.timeout(30)
def test_nothing_stops_the_thumbnails(tmp_path: Path) -> None:
    bad = {
        "empty.png": b"",
        "cut.png": Path(picture(tmp_path / "a.png")).read_bytes()[:60],
        "large.png": png(9000, 9000),
        "bomb.png": png(12_000, 12_000),
        "larger_bomb.png": png(2**31 - 1, 2**31 - 1),
        "text.jpg": b"hello",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    Image.new("1", (8000, 8000)).save(tmp_path / "whole.png")  # 64 million pixels in 10 KB
    os.mkfifo(tmp_path / "pipe.png")
    sources = [str(tmp_path / name) for name in (*bad, "whole.png", "pipe.png", "")]
    sources += ["https://example.org/a.png", "a\0b", "x" * 5000]
    made = thumbnails([*sources, str(tmp_path / "a.png")], 40, most_bytes=10**6)
    assert made[:-1] == [None] * len(sources)
    assert made[-1] is not None


def test_thumbnails_keep_to_their_bytes(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    (one,) = thumbnails([source], 40, most_bytes=10**6)
    assert one is not None
    made = thumbnails([source] * 200, 40, most_bytes=3 * len(one) + 1)
    assert made == [one] * 3 + [None] * 197


def test_a_map_keeps_to_its_bytes_and_says_what_it_holds(tmp_path: Path) -> None:
    pictures = [picture(tmp_path / f"{number}.png") for number in range(50)]
    path = store(tmp_path / "x.parquet", np.random.default_rng(0).normal(size=(50, 6)), pictures)
    embeddings = read(path)
    rows = chosen(embeddings, 40)
    places = project(embeddings.vectors[rows], "pca")
    whole = draw_map(embeddings, rows, places, title="t", note="n", most_bytes=10**7)
    assert whole.thumbnails == 40
    most = len(whole.html) - 2000
    drawn = draw_map(embeddings, rows, places, title="t", note="n", most_bytes=most)
    assert len(drawn.html) <= most
    assert drawn.points == 40
    assert 0 < drawn.thumbnails < 40
    data = Elements(drawn.html).data
    assert [data["folder"] + name for name in data["names"]] == [pictures[row] for row in rows]
    assert sum(thumbnail is not None for thumbnail in data["thumbnails"]) == drawn.thumbnails
    assert len(data["x"]) == len(data["y"]) == 40
    assert 0 <= min(data["x"] + data["y"]) <= max(data["x"] + data["y"]) == data["full"]


@pytest.mark.parametrize("shape", [(1, 4), (2, 4), (3, 1), (40, 8)])
def test_pca_places_any_number_of_vectors(shape: tuple[int, int]) -> None:
    points = project(np.random.default_rng(0).normal(size=shape).astype(np.float32), "pca")
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()
    assert points.min() >= 0
    assert points.max() <= 1


def test_few_rows_are_placed_by_pca() -> None:
    assert best_method(10) == "pca"
