"""For everybody: by keyboard, with a screen reader, in the dark, on a phone."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PHONE, PHOTOS, WIDE, Open, Page, Serve, choose, until_status
from tests.fakes import TEXT, FakeModel


def violations(page: Page) -> list[str]:
    """What axe finds wrong, but for what it calls minor or moderate."""
    axe: Any = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response
    assert len(found["passes"]) > 10
    return [
        f"{one['id']}: {node['html']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def fill(page: Page, broken: Path) -> None:
    broken.write_bytes(PHOTOS[0].read_bytes()[:3000])
    page.wait_for_selector("#facts dt")
    page.fill("#line", "a cat")
    page.press("#line", "Enter")
    page.fill("#line", "http://10.0.0.1/a.jpg")
    page.press("#line", "Enter")
    choose(page, [*PHOTOS, broken])
    until_status(page, "9 items embedded, 2 failed.")


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    serve: Serve, visit: Open, tmp_path: Path, scheme: str, size: tuple[int, int]
) -> None:
    page = visit(serve(FakeModel(text=TEXT)), size, scheme)
    assert violations(page) == []
    fill(page, tmp_path / "broken.jpg")
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_dialog_and_the_explorer(
    serve: Serve, visit: Open, scheme: str
) -> None:
    page = visit(serve(auth={"keys": [{"name": "a", "sha256": "0" * 64}]}), WIDE, scheme)
    page.wait_for_selector("#key-dialog[open]")
    assert violations(page) == []

    page = visit(serve() + "/docs", WIDE, scheme)
    page.click("#post_v1_embeddings > summary")
    page.click("#post_v1_embeddings form .primary")
    page.wait_for_selector("#post_v1_embeddings .result pre")
    page.click("#get_v1_models_model > summary")
    assert violations(page) == []


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_is_wider_than_the_screen(
    serve: Serve, visit: Open, tmp_path: Path, width: int
) -> None:
    page = visit(serve(FakeModel(text=TEXT)), (width, 740))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    fill(page, tmp_path / ("broken" * 12 + ".jpg"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for tab in ("#tab-raylens", "#tab-openai"):
        page.click(tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_all_can_be_done_by_keyboard(serve: Serve, visit: Open) -> None:
    page = visit(serve())
    page.wait_for_selector("#facts dt")
    files = [str(photo) for photo in PHOTOS[:3]]
    page.on("filechooser", lambda chooser: chooser.set_files(files))

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                outline = page.evaluate(
                    "() => { const style = getComputedStyle(document.activeElement);"
                    " return style.outlineStyle + style.outlineWidth; }"
                )
                assert outline == "solid2px"
                return
        raise AssertionError(f"Tab does not lead to {selector}")

    tab_to("#choose")
    page.keyboard.press("Enter")
    until_status(page, "3 images embedded.")
    tab_to("#line")
    page.keyboard.type("http://10.0.0.1/a.jpg")
    page.keyboard.press("Enter")
    until_status(page, "1 failed")
    tab_to(".card .nearest")
    target = page.evaluate("document.activeElement.getAttribute('href')")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == target
    tab_to(".remove")
    page.keyboard.press("Enter")
    until_status(page, "2 images embedded, 1 failed.")
    assert page.evaluate("document.activeElement.matches('.card')")
    tab_to("#matrix")
    tab_to("[role=tab]")
    page.keyboard.press("ArrowRight")
    assert "import raylens" in page.inner_text("#snippet")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#snippet").startswith("curl")
    tab_to("#copy")


def test_what_happens_is_announced_and_the_matrix_is_a_table(serve: Serve, visit: Open) -> None:
    page = visit(serve())
    assert page.get_attribute("#status", "role") == "status"
    choose(page, PHOTOS[:3])
    until_status(page, "3 images embedded.")
    table = page.get_by_role("table", name="Cosine similarity of each pair")
    assert table.get_by_role("columnheader", name="cat.jpg").count() == 1
    assert table.get_by_role("rowheader", name="cat.jpg").count() == 1
    assert page.get_by_role("button", name="Remove cat.jpg").count() == 1
    assert page.get_by_role("tab", name="curl", selected=True).count() == 1


def test_nothing_moves_for_those_who_want_it_still(serve: Serve, visit: Open) -> None:
    page = visit(serve(), reduced_motion="reduce")
    still = page.evaluate("getComputedStyle(document.getElementById('choose')).transitionDuration")
    assert still == "0s"
