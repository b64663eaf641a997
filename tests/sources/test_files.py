"""Regular files below the image roots are read, and every other path is not found."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.errors import ImageTooLarge, PathNotFound
from deployments.sources.files import ImageRoots


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "cats").mkdir(parents=True)
    (root / "cats" / "tom.jpg").write_bytes(b"meow")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


@pytest.fixture
def roots(root: Path) -> ImageRoots:
    return ImageRoots([root], max_bytes=10)


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("path", ["cats/tom.jpg", "./cats//./tom.jpg"])
def test_a_relative_path_is_read_below_the_root(roots: ImageRoots, path: str) -> None:
    assert roots.read(path) == b"meow"


def test_an_absolute_path_is_read_when_it_lies_inside_a_root(roots: ImageRoots, root: Path) -> None:
    assert roots.read(str(root / "cats" / "tom.jpg")) == b"meow"


def test_an_absolute_path_outside_the_roots_is_not_found(
    roots: ImageRoots, root: Path, tmp_path: Path
) -> None:
    sibling = tmp_path / "root-of-another"  # begins with the root's own name
    sibling.mkdir()
    (sibling / "x").write_bytes(b"x")
    for path in (sibling / "x", tmp_path / "secret", "/etc/hostname", root):
        with pytest.raises(PathNotFound):
            roots.read(str(path))
    for path in ("/" + str(root / "cats" / "tom.jpg"), str(root) + "cats/tom.jpg"):
        with pytest.raises(PathNotFound):
            roots.read(path)


def test_roots_are_tried_in_order(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "x").write_bytes(b"from b")
    (tmp_path / "c" / "x").write_bytes(b"from c")
    (tmp_path / "a" / "x").symlink_to(tmp_path / "b" / "x")
    missing = tmp_path / "missing"
    roots = ImageRoots([missing, tmp_path / "a", tmp_path / "b", tmp_path / "c"], max_bytes=10)
    assert roots.read("x") == b"from b"
    assert roots.read(str(tmp_path / "c" / "x")) == b"from c"


def test_the_file_system_root_can_be_a_root(root: Path) -> None:
    assert ImageRoots([Path("/")], max_bytes=10).read(str(root.resolve() / "cats/tom.jpg"))


def test_without_roots_every_path_is_not_found(root: Path) -> None:
    for path in ("cats/tom.jpg", str(root / "cats" / "tom.jpg")):
        with pytest.raises(PathNotFound):
            ImageRoots([], max_bytes=10).read(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "/",
        "..",
        "../secret",
        "cats/../../secret",
        "cats/../cats/tom.jpg",  # harmless, but no reason to resolve it
        "cats",
        "cats/",
        "cats/tom.jpg/x",
        "dogs/rex.jpg",
        "cats/tom.jpg\0",
        "\0",
        "cats\0/tom.jpg",
        "\udcff",
        "~/x",
        "x" * 300,
        "x/" * 5000 + "x",
        "cats\\tom.jpg",
        "file:///etc/hostname",
    ],
)
def test_every_other_path_is_not_found(roots: ImageRoots, path: str) -> None:
    with pytest.raises(PathNotFound):
        roots.read(path)


def test_a_name_of_raw_bytes_is_not_found_although_it_exists(roots: ImageRoots, root: Path) -> None:
    try:
        (root / "\udcff").write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(PathNotFound):
        roots.read("\udcff")


def test_a_link_below_the_root_is_not_followed(
    roots: ImageRoots, root: Path, tmp_path: Path
) -> None:
    (root / "file-link").symlink_to(root / "cats" / "tom.jpg")
    (root / "out-link").symlink_to(tmp_path / "secret")
    (root / "folder-link").symlink_to(root / "cats")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nowhere")
    for path in ("file-link", "out-link", "folder-link/tom.jpg", "loop", "dangling", "loop/x"):
        with pytest.raises(PathNotFound):
            roots.read(path)


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    roots = ImageRoots([tmp_path / "link"], max_bytes=10)
    assert roots.read("cats/tom.jpg") == b"meow"
    assert roots.read(str(tmp_path / "link" / "cats" / "tom.jpg")) == b"meow"


def test_only_regular_files_are_read_and_none_blocks(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(root / "fifo")
    monkeypatch.chdir(root)  # because a socket's path may have 100 characters at most
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        for path in ("fifo", "socket"):
            with pytest.raises(PathNotFound):
                ImageRoots([root], max_bytes=10).read(path)
    with pytest.raises(PathNotFound):
        ImageRoots([Path("/dev")], max_bytes=10).read("zero")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_not_found(roots: ImageRoots, root: Path) -> None:
    (root / "cats" / "tom.jpg").chmod(0)
    with pytest.raises(PathNotFound):
        roots.read("cats/tom.jpg")


def test_a_file_may_have_exactly_the_allowed_size(roots: ImageRoots, root: Path) -> None:
    (root / "full").write_bytes(b"x" * 10)
    (root / "over").write_bytes(b"x" * 11)
    (root / "empty").write_bytes(b"")
    assert len(roots.read("full")) == 10
    assert roots.read("empty") == b""
    with pytest.raises(ImageTooLarge) as caught:
        roots.read("over")
    assert "10 bytes" in caught.value.message


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_file_longer_than_its_stated_size_cannot_exceed_the_cap() -> None:
    # Files under /proc report a size of 0, like a file that grows after fstat.
    process = Path(f"/proc/{os.getpid()}")
    assert (process / "status").stat().st_size == 0
    with pytest.raises(ImageTooLarge):
        ImageRoots([process], max_bytes=10).read("status")


def test_all_failures_have_the_same_message(roots: ImageRoots) -> None:
    messages = set()
    for path in ("missing", "../secret", "cats", "\0"):
        with pytest.raises(PathNotFound) as caught:
            roots.read(path)
        messages.add(caught.value.message)
    assert len(messages) == 1


def test_no_descriptor_is_left_open_whatever_the_outcome(roots: ImageRoots, root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "over").write_bytes(b"x" * 11)
    (root / "link").symlink_to("cats")
    before = open_descriptors()
    for path in ("cats/tom.jpg", "cats", "fifo", "over", "link/tom.jpg", "cats/no/x", "no", "a\0"):
        with suppress(PathNotFound, ImageTooLarge):
            roots.read(path)
    assert open_descriptors() == before


@given(st.text(alphabet="./\\\0ab~\udc80é", max_size=12))
def test_any_text_is_a_path_that_is_not_found(text: str) -> None:
    with pytest.raises(PathNotFound):
        ImageRoots([Path(__file__).parent], max_bytes=10).read(text)


def test_an_absolute_path_may_call_a_linked_root_by_either_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    roots = ImageRoots([tmp_path / "link"], max_bytes=10)
    assert roots.read(str(tmp_path / "link" / "a.jpg")) == b"a"
    assert roots.read(str(tmp_path / "real" / "a.jpg")) == b"a"


def test_a_file_with_a_trailing_slash_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with pytest.raises(PathNotFound):
        ImageRoots([tmp_path], max_bytes=10).read("a.jpg/")
