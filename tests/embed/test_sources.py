"""What each kind of SOURCE stands for."""

import io
import os
from pathlib import Path

import pytest

from raylens.embed.sources import SourceError, Sources


def found(*sources: str, stdin: bytes = b"") -> list[str]:
    return list(Sources(sources, io.BytesIO(stdin)))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images and other files, which is the current one."""
    names = ("b.jpg", "a.PNG", "notes.txt", "sub/c.webp", "sub/deep/d.jpeg", "no ending")
    hidden = (".hidden.jpg", "._a.png", ".cache/e.jpg")
    for name in names + hidden:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_all_visible_images_below_it_by_name(tree: Path) -> None:
    expected = ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.jpeg"]
    assert found(".") == [str(tree / name) for name in expected]
    assert found(str(tree / "sub/")) == [str(tree / name) for name in expected[2:]]


def test_a_file_that_is_named_is_taken_whatever_its_name(tree: Path) -> None:
    for name in ("no ending", ".hidden.jpg", "sub/../notes.txt"):
        assert found(name) == [os.path.normpath(tree / name)]


def test_a_hidden_folder_that_is_named_is_searched(tree: Path) -> None:
    assert found(".cache") == [str(tree / ".cache/e.jpg")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg"]),
        ("*", ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.jpeg"]),
        ("s?b/*", ["sub/c.webp", "sub/deep/d.jpeg"]),
        ("**/*.jpeg", ["sub/deep/d.jpeg"]),
        ("**/*.jpg", ["b.jpg"]),
        ("**/deep/*", ["sub/deep/d.jpeg"]),
        ("sub/**", ["sub/c.webp", "sub/deep/d.jpeg"]),
        ("[ab].*", ["a.PNG", "b.jpg"]),
    ],
)
def test_a_glob_is_the_images_that_match(tree: Path, pattern: str, expected: list[str]) -> None:
    assert sorted(found(pattern)) == [str(tree / name) for name in expected]
    assert sorted(found(str(tree / pattern))) == [str(tree / name) for name in expected]


def test_a_file_with_a_name_like_a_glob_is_that_file(tree: Path) -> None:
    (tree / "photo[1].jpg").touch()
    assert found("photo[1].jpg") == [str(tree / "photo[1].jpg")]


def test_urls_are_taken_as_they_are() -> None:
    urls = ["https://example.org/a b?x=[1]", "HTTP://example.org/"]
    assert found(*urls) == urls


def test_lines_of_stdin_and_lists_are_sources(tree: Path) -> None:
    lines = b"\xef\xbb\xbfb.jpg\r\n\nsub\nhttps://example.org/x.jpg\nmissing.jpg\n@odd\n"
    (tree / "list.txt").write_bytes(lines)
    expected = [
        str(tree / "b.jpg"),
        str(tree / "sub/c.webp"),
        str(tree / "sub/deep/d.jpeg"),
        "https://example.org/x.jpg",
        str(tree / "missing.jpg"),
        str(tree / "@odd"),
    ]
    assert found("-", stdin=lines) == found("@list.txt") == expected


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("missing.jpg", "there is no file or folder missing.jpg"),
        ("*.nothing", r"nothing matches \*.nothing"),
        ("nowhere/**/*.jpg", "nothing matches nowhere"),
        ("@missing.txt", "there is no list missing.txt"),
    ],
)
def test_what_stands_for_nothing_is_told_at_once(tree: Path, source: str, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        Sources(["b.jpg", source], io.BytesIO())


def test_links_are_followed_but_not_in_circles(tree: Path) -> None:
    elsewhere = tree / ".cache"
    (tree / "sub/up").symlink_to(tree)
    (tree / "sub/self").symlink_to(tree / "sub")
    (tree / "link").symlink_to(elsewhere)
    (tree / "linked.jpg").symlink_to(elsewhere / "e.jpg")
    (tree / "a.jpg").symlink_to("a.jpg")
    (tree / "broken.jpg").symlink_to(tree / "nothing")
    expected = ["a.PNG", "b.jpg", "link/e.jpg", "linked.jpg", "sub/c.webp", "sub/deep/d.jpeg"]
    assert found(".") == [str(tree / name) for name in expected]
    assert sorted(found("**/*.*")) == [str(tree / name) for name in expected]


def test_what_is_no_regular_file_is_left_out(tree: Path) -> None:
    os.mkfifo(tree / "sub/deep/pipe.jpg")
    (tree / "sub/deep/folder.jpg").mkdir()
    assert found("sub/deep") == [str(tree / "sub/deep/d.jpeg")]


def test_a_folder_that_cannot_be_read_is_remembered(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def refusing(path: str) -> object:  # chmod does not keep root out
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    sources = Sources(["sub"], io.BytesIO())
    assert list(sources) == [str(tree / "sub/c.webp")]
    assert sources.unreadable == {str(tree / "sub/deep"): "Permission denied"}
    assert sources.folders == {str(tree / "sub")}
