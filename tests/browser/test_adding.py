"""Every way to bring images and words onto the page, and what it says of the bad ones."""

from collections.abc import Callable
from pathlib import Path

from tests.browser.conftest import PHOTOS, Open, Serve, choose, names, transfer, until_status
from tests.fakes import TEXT, FakeModel


def test_the_empty_page_says_what_to_do_and_what_embeds(serve: Serve, visit: Open) -> None:
    page = visit(serve())
    assert page.inner_text("h1") == "See which images are alike"
    page.wait_for_selector("#facts dt")
    facts = page.inner_text("#facts")
    assert "fake" in facts
    assert "12 dimensions" in facts
    assert "cpu" in facts
    assert "float32" in facts
    assert not page.is_visible("#work")
    assert not page.is_visible("#alike")


def test_the_samples_are_embedded_with_one_click(serve: Serve, visit: Open) -> None:
    page = visit(serve())
    page.click("#samples")
    until_status(page, "8 images embedded.")
    assert page.locator("#matrix tbody tr").count() == 8
    assert page.locator("#bars dt").count() >= 2
    assert page.locator(".card .nearest").count() == 8


def test_chosen_files_are_compared(serve: Serve, visit: Open, tmp_path: Path) -> None:
    copies = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    for path in copies:
        path.write_bytes(PHOTOS[0].read_bytes())
    page = visit(serve())
    choose(page, [*copies, PHOTOS[1]])
    until_status(page, "3 images embedded.")
    nearest = page.locator(".card .nearest").all_inner_texts()
    assert [text.split() for text in nearest[:2]] == [
        ["Nearest", "b.jpg", "1.00"],
        ["Nearest", "a.jpg", "1.00"],
    ]
    rows = page.locator("#matrix tbody tr").all()
    cells = [row.locator("td").all_inner_texts() for row in rows]
    assert cells[0][:2] == cells[1][:2] == ["1.00", "1.00"]
    assert cells[0][2] == cells[2][0] != "1.00"


def test_photos_are_dropped_anywhere(serve: Serve, visit: Open) -> None:
    page = visit(serve())
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer(page, PHOTOS[:2])})
    assert page.is_visible("#veil")
    page.dispatch_event("main", "drop", {"dataTransfer": transfer(page, PHOTOS[:2])})
    until_status(page, "2 images embedded.")
    assert not page.is_visible("#veil")


def test_photos_are_pasted(serve: Serve, visit: Open) -> None:
    page = visit(serve())
    page.evaluate(
        "data => document.body.dispatchEvent("
        "new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))",
        transfer(page, PHOTOS[:2]),
    )
    until_status(page, "2 images embedded.")
    assert names(page) == [photo.name for photo in PHOTOS[:2]]


def test_a_url_is_fetched_by_the_service_and_not_by_the_browser(
    serve: Serve, visit: Open, origin: str
) -> None:
    port = int(origin.rpartition(":")[2])
    page = visit(serve(fetch={"allow_cidrs": ["127.0.0.0/8"], "allow_ports": [port]}))
    page.fill("#line", f"{origin}/{PHOTOS[0].name}")
    page.press("#line", "Enter")
    until_status(page, "1 image embedded.")
    assert page.inner_text(".card .tile") == f"127.0.0.1:{port}"
    assert page.locator(".card img").count() == 0
    assert page.input_value("#line") == ""


def test_a_forbidden_url_and_a_dropped_link_say_why(serve: Serve, visit: Open) -> None:
    page = visit(serve())
    links = transfer(page, links="http://10.0.0.1/a.jpg\nhttp://127.0.0.1/b.png")
    page.dispatch_event("main", "drop", {"dataTransfer": links})
    until_status(page, "2 failed")
    reasons = page.locator(".card .wrong").all_inner_texts()
    assert [reason.partition(".")[0] for reason in reasons] == [
        "This service may not fetch that URL"
    ] * 2
    assert names(page) == ["a.jpg", "b.png"]
    assert not page.is_visible("#again")


def test_what_is_no_address_is_refused_by_an_image_model_and_embedded_by_another(
    serve: Serve, visit: Open
) -> None:
    page = visit(serve())
    page.wait_for_selector("#facts dt")
    page.fill("#line", "a cat")
    page.click("#typed button")
    assert "whole web address" in page.inner_text("#line-error")
    assert names(page) == []

    page = visit(serve(FakeModel(text=TEXT)))
    page.wait_for_selector("#facts dt")
    for words in ("a photo of #ff0000", "<b>bold</b>", "x" * 100):
        page.fill("#line", words)
        page.click("#typed button")
    choose(page, PHOTOS[:1])
    until_status(page, "4 items embedded.")
    assert names(page)[1] == "<b>bold</b>"
    assert "Longer than the model reads" in page.inner_text(".card:nth-child(3)")


def test_bad_files_have_the_services_sentence_and_the_good_are_compared(
    serve: Serve, visit: Open, tmp_path: Path, jpeg: Callable[..., bytes]
) -> None:
    bad = {
        "cut.jpg": PHOTOS[0].read_bytes()[:3000],
        "IMG_1.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "notes.txt": b"hello",
        "empty.jpg": b"",
        "large.jpg": jpeg(0, (600, 600)) + bytes(100_000),
        "<img src=x onerror=alert(1)>.jpg": b"hello",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    page = visit(serve(limits={"max_image_bytes": 90_000}))
    choose(page, [PHOTOS[0], *(tmp_path / name for name in bad), PHOTOS[1]])
    until_status(page, "2 images embedded, 6 failed.")
    said = dict(zip(names(page)[1:-1], page.locator(".card .wrong").all_inner_texts(), strict=True))
    assert "broken" in said["cut.jpg"]
    assert "format" in said["IMG_1.heic"]
    assert "format" in said["notes.txt"]
    assert said["empty.jpg"]
    assert "the service takes at most 90 kB" in said["large.jpg"]
    assert said["<img src=x onerror=alert(1)>.jpg"]
    assert page.inner_text(".card:nth-child(3) .tile") == "HEIC"
    assert page.locator("#matrix tbody tr").count() == 2
    assert not page.is_visible("#again")


def test_times_tell_the_stages_and_what_came_from_the_cache(serve: Serve, visit: Open) -> None:
    page = visit(serve())
    choose(page, PHOTOS[:3])
    until_status(page, "3 images embedded.")
    rows = dict(
        zip(
            page.locator("#bars dt").all_inner_texts(),
            page.locator("#bars dd").all_inner_texts(),
            strict=True,
        )
    )
    assert rows["In the model"] == "2.5 ms"
    assert rows["Waiting for the model"] == "1.5 ms"
    assert "cache" not in page.inner_text("#time-note")
    choose(page, PHOTOS[:2])
    until_status(page, "5 images embedded.")
    assert page.inner_text("#time-note").startswith(
        "Of 2 requests together. 2 items came from the cache."
    )


def test_a_folder_is_dropped_with_all_its_images(serve: Serve, visit: Open, tmp_path: Path) -> None:
    inner = tmp_path / "photos" / "deeper"
    inner.mkdir(parents=True)
    (inner.parent / "a.jpg").write_bytes(PHOTOS[0].read_bytes())
    (inner / "b.JPG").write_bytes(PHOTOS[1].read_bytes())
    (inner / "notes.txt").write_text("no image")
    page = visit(serve())
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(inner.parent)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
    until_status(page, "2 images embedded.")
    assert sorted(names(page)) == ["a.jpg", "b.JPG"]
