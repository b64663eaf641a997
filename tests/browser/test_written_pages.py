"""The pages that `raylens search`, `dedupe` and `map` write, opened from the disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylens.embeddings.galleries import Group, Picture, chosen, draw_map, gallery
from raylens.embeddings.projection import project
from raylens.embeddings.reading import read
from tests.browser.conftest import PHONE, PHOTOS, WIDE, Open
from tests.embeddings.stored import store

SOURCES = [str(photo) for photo in PHOTOS]
HOSTILE = "/p/</script><img src=x onerror=alert(1)>.jpg"


@pytest.fixture
def gallery_url(tmp_path: Path) -> str:
    pictures = [Picture(source, f"0.{9 - number}") for number, source in enumerate(SOURCES)]
    group = Group("Hits", [*pictures, Picture(HOSTILE, "0.1")])
    path = tmp_path / "hits.html"
    path.write_text(gallery("Like cat.jpg", "8 of 8", [group]))
    return path.as_uri()


@pytest.fixture
def map_url(tmp_path: Path) -> str:
    vectors = np.random.default_rng(0).normal(size=(len(SOURCES), 6))
    embeddings = read(store(tmp_path / "x.parquet", vectors, SOURCES))
    rows = chosen(embeddings, 100)
    points = project(embeddings.vectors[rows], "pca")
    drawn = draw_map(embeddings, rows, points, title="Photos", note="8 images", most_bytes=10**7)
    path = tmp_path / "map.html"
    path.write_text(drawn.html)
    return path.as_uri()


def place(page: Any, name: str) -> tuple[float, float]:
    """Where the point of this name is on the map, in pixels of the screen."""
    x, y = page.evaluate(
        "name => { const i = names.findIndex((n) => n.endsWith(name));"
        " const box = canvas.getBoundingClientRect();"
        " return [screenX(i) + box.left, screenY(i) + box.top]; }",
        name,
    )
    return x, y


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_a_gallery_opens_offline_with_its_thumbnails(
    visit: Open, gallery_url: str, size: tuple[int, int]
) -> None:
    page = visit(gallery_url, size, offline=True)
    assert page.inner_text("h1") == "Like cat.jpg"
    assert page.locator("li img").count() == len(SOURCES)
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert page.locator("li .name").last.inner_text() == HOSTILE[1:]
    assert page.locator("li .picture").last.inner_text() == "no thumbnail"
    link = page.locator("li a").first.get_attribute("href")
    assert link == PHOTOS[0].as_uri()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_the_map_shows_the_thumbnail_of_the_point_below_the_mouse(
    visit: Open, map_url: str
) -> None:
    page = visit(map_url, offline=True)
    assert not page.is_visible("#card")
    for photo in PHOTOS[:3]:
        page.mouse.move(*place(page, photo.name))
        assert page.inner_text("#name") == photo.name
        assert page.is_visible("#card img")
        assert page.evaluate("document.querySelector('#card img').naturalWidth") > 0
    page.mouse.move(2, 2)
    assert not page.is_visible("#card")


def test_the_map_is_moved_by_the_mouse_and_zoomed_by_the_wheel(visit: Open, map_url: str) -> None:
    page = visit(map_url, offline=True)
    x, y = place(page, "cat.jpg")
    page.mouse.move(640, 430)
    page.mouse.down()
    page.mouse.move(700, 400, steps=3)
    page.mouse.up()
    assert place(page, "cat.jpg") == pytest.approx((x + 60, y - 30))
    near, other = place(page, "cat.jpg"), place(page, "rocket.jpg")
    page.mouse.move(*near)
    page.mouse.wheel(0, -600)
    page.wait_for_function("before => scale > before", arg=0)
    page.wait_for_timeout(200)
    assert place(page, "cat.jpg") == pytest.approx(near, abs=2)  # the mouse is at whole pixels
    moved = place(page, "rocket.jpg")
    assert np.hypot(moved[0] - near[0], moved[1] - near[1]) > 1.5 * np.hypot(
        other[0] - near[0], other[1] - near[1]
    )
    page.click("#all")
    assert place(page, "cat.jpg") == pytest.approx((x, y))


def test_the_map_is_used_by_keyboard(visit: Open, map_url: str) -> None:
    page = visit(map_url, offline=True)
    before = place(page, "cat.jpg")
    page.focus("canvas")
    page.keyboard.press("ArrowLeft")
    assert place(page, "cat.jpg") == pytest.approx((before[0] + 60, before[1]))
    page.keyboard.press("0")
    assert place(page, "cat.jpg") == pytest.approx(before)
    page.keyboard.press("+")
    page.keyboard.press(" ")
    assert page.is_visible("#card")
    assert page.inner_text("#said") in {photo.name for photo in PHOTOS}
    page.keyboard.press("Escape")
    assert not page.is_visible("#card")


def test_points_of_the_map_are_found_by_name(visit: Open, map_url: str) -> None:
    page = visit(map_url, PHONE, offline=True)
    page.fill("#find", "ca")
    assert page.inner_text("#said") == "2 points"  # cameraman and cat
    page.focus("canvas")
    page.keyboard.press(" ")
    assert page.inner_text("#name") in ("cameraman.jpg", "cat.jpg")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_the_map_draws_thumbnails(visit: Open, map_url: str) -> None:
    page = visit(map_url, offline=True)
    page.wait_for_function("() => pictures.size === names.length")
    page.wait_for_timeout(300)
    x, y = place(page, "coffee.jpg")
    colours = page.evaluate(
        "([x, y]) => { const ratio = devicePixelRatio, box = canvas.getBoundingClientRect();"
        " const left = (x - box.left) * ratio - 15, top = (y - box.top) * ratio - 15;"
        " return new Set(context.getImageData(left, top, 30, 30).data).size; }",
        [x, y],
    )
    assert colours > 30
