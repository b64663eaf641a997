"""`raylens search`, `dedupe` and `map` as people meet them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raylens import Client
from tests.client.conftest import Serve, serve
from tests.commands import ended, raylens, sentence
from tests.embeddings.stored import KINDS, store
from tests.fakes import PATCHES, TEXT, FakeModel
from tests.servers import ROOT

__all__ = ["serve"]
COLOURS = ["#ff0000", "#f00808", "#00ff00", "#0000ff"]


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = []
    for number, colour in enumerate(COLOURS):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8 + number), colour).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture
def url(serve: Serve) -> Iterator[str]:
    with serve(FakeModel(text=TEXT)) as url:
        yield url


@pytest.fixture
def out(url: str, photos: list[str], tmp_path: Path) -> Path:
    """The photos as the service embeds them, and one that failed."""
    with Client(url) as client:
        vectors = client.embed(photos)
    vectors = np.concatenate((vectors, vectors[:1]))
    return store(tmp_path / "out.parquet", vectors, [*photos, "/gone.png"], failed=[4])


# search


def test_an_image_finds_itself_and_what_is_like_it(out: Path, photos: list[str], url: str) -> None:
    result = raylens("search", photos[0], "--in", str(out), "--top", "2", "--url", url)
    assert ended(result) == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first == f"1.0000  {photos[0]}"
    assert second.endswith(photos[1])


def test_a_text_finds_images(out: Path, photos: list[str], url: str) -> None:
    result = raylens("search", "a photo of #0000ff", "--in", str(out), "--url", url, "--json")
    assert ended(result) == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 4
    assert lines[0] == {"source": photos[3], "score": pytest.approx(1, abs=1e-6), "row": 3}


def test_a_gallery_of_hits_shows_the_query_too(
    out: Path, photos: list[str], url: str, tmp_path: Path
) -> None:
    page = tmp_path / "hits.html"
    arguments = ["search", photos[2], "--in", str(out), "--gallery", str(page), "--url", url]
    assert ended(raylens(*arguments)) == 0
    assert "Searched for" in page.read_text()
    assert page.read_text().count("data:image/webp;base64") == 5


def test_control_characters_of_a_name_do_not_reach_the_terminal(url: str, tmp_path: Path) -> None:
    path = store(tmp_path / "x.npy", np.ones((2, 12)), ["/a\x1b[2J\n.jpg", "/\u202eb.jpg"])
    for arguments in (["search", "words", "--url", url], ["dedupe"]):
        result = raylens(*arguments, "--in", str(path))
        assert ended(result) == 0, result.stderr
        assert "/a\\x1b[2J\\n.jpg" in result.stdout
        assert "\x1b" not in result.stdout
        assert "\u202e" not in result.stdout


def test_an_image_only_model_says_so(
    serve: Serve, photos: list[str], out: Path, tmp_path: Path
) -> None:
    with serve(FakeModel()) as url:
        result = raylens("search", "a cat", "--in", str(out), "--url", url)
    assert ended(result) == 1
    assert "text" in sentence(result)
    assert "fake" in sentence(result)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "clip"}, "was made by the model clip, but"),
        ({"revision": "r2"}, "was made by revision r2 of fake, but"),
    ],
)
def test_another_model_is_refused(
    changes: dict[str, str], reason: str, url: str, tmp_path: Path
) -> None:
    path = store(tmp_path / "x.npy", np.ones((2, 12)), **changes)  # type: ignore[arg-type]
    result = raylens("search", "words", "--in", str(path), "--url", url)
    assert ended(result) == 1
    assert reason in sentence(result)


def test_a_model_that_gives_several_vectors_is_refused(serve: Serve, tmp_path: Path) -> None:
    path = store(tmp_path / "x.npy", np.ones((2, 3)))
    with serve(FakeModel(replace(PATCHES, id="fake"))) as url:
        result = raylens("search", "words", "--in", str(path), "--url", url)
    assert ended(result) == 1
    assert "fake gives 4 vectors for each image now" in sentence(result)


def test_vectors_of_another_length_are_refused(url: str, tmp_path: Path) -> None:
    path = store(tmp_path / "x.npy", np.ones((2, 5)))
    result = raylens("search", "words", "--in", str(path), "--url", url)
    assert ended(result) == 1
    assert "have 5 numbers, those of fake 12" in sentence(result)


@pytest.mark.parametrize("query", ["", "  ", "missing.jpg", "/no/such/photo.PNG", "\x1b[2J.jpg"])
def test_a_query_that_is_a_mistake_is_a_usage_error(query: str, tmp_path: Path) -> None:
    path = store(tmp_path / "x.npy", np.ones((2, 12)))
    result = raylens("search", query, "--in", str(path))
    assert ended(result) == 2
    assert "QUERY" in sentence(result)
    assert "\x1b" not in result.stderr


def test_a_service_that_is_not_there_exits_with_3(tmp_path: Path) -> None:
    path = store(tmp_path / "x.npy", np.ones((2, 12)))
    arguments = ["search", "words", "--in", str(path), "--url", "http://127.0.0.1:9"]
    assert ended(raylens(*arguments)) == 3


def test_no_top_is_a_usage_error(tmp_path: Path) -> None:
    path = store(tmp_path / "x.npy", np.ones((2, 12)))
    result = raylens("search", "words", "--in", str(path), "--top", "0")
    assert ended(result) == 2
    assert "--top" in sentence(result)


# All three


COMMANDS = [["search", "words"], ["dedupe"], ["map", "-o", "map.html"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_file_that_cannot_be_read_is_a_usage_error(command: list[str], tmp_path: Path) -> None:
    result = raylens(*command, "--in", str(tmp_path / "x.parquet"))
    assert ended(result) == 2
    assert "there is no file" in sentence(result)
    (tmp_path / "x.parquet").write_text("PAR1 nonsense")
    result = raylens(*command, "--in", str(tmp_path / "x.parquet"))
    assert ended(result) == 2
    assert "x.parquet" in sentence(result)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_nothing_to_look_at_is_a_failure(
    command: list[str],
    kind: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--url", url] if command[0] == "search" else []
    path = store(tmp_path / kind, np.zeros((0, 12)))
    result = raylens(*command, "--in", str(path), *options)
    assert ended(result) == 1
    assert "is empty" in sentence(result)
    path = store(tmp_path / kind, np.ones((3, 12)), failed=range(3))
    result = raylens(*command, "--in", str(path), *options)
    assert ended(result) == 1
    assert "all its rows failed" in sentence(result)
    assert not Path("map.html").exists()


@pytest.mark.parametrize(
    "command",
    [["search", "words", "--gallery"], ["dedupe", "--gallery"], ["map", "-o"]],
    ids=lambda command: command[0],
)
def test_a_page_that_cannot_be_written_is_named_first(command: list[str], tmp_path: Path) -> None:
    path = store(tmp_path / "x.npy", np.ones((2, 12)))
    result = raylens(*command, str(tmp_path / "missing" / "page.html"), "--in", str(path))
    assert ended(result) == 2
    assert "cannot write" in sentence(result)


@pytest.mark.parametrize(
    "command",
    [["search", "words", "--gallery"], ["dedupe", "--gallery"], ["map", "-o"]],
    ids=lambda command: command[0],
)
def test_a_page_never_replaces_what_is_none(command: list[str], tmp_path: Path) -> None:
    path = store(tmp_path / "x.parquet", np.ones((2, 12)))
    before = path.read_bytes()
    result = raylens(*command, str(path), "--in", str(path))
    assert ended(result) == 2
    assert "ends in .html" in sentence(result)
    assert path.read_bytes() == before


def test_a_terminal_has_a_bar(out: Path, photos: list[str], url: str, tmp_path: Path) -> None:
    page = str(tmp_path / "page.html")
    for command in (
        ["search", photos[0], "--gallery", page, "--url", url],
        ["dedupe", "--threshold", "0.99", "--gallery", page],
        ["map", "-o", page],
    ):
        result = raylens(*command, "--in", str(out), FORCE_COLOR="1")
        assert ended(result) == 0
        assert re.search(r"m(\d)/\1\x1b", result.stderr), result.stderr
        result = raylens(*command, "--in", str(out), "--no-progress", FORCE_COLOR="1")
        assert ended(result) == 0
        assert not re.search(r"m\d/\d\x1b", result.stderr)


# dedupe and map


def test_dedupe_lists_groups(photos: list[str], out: Path, tmp_path: Path) -> None:
    page = tmp_path / "groups.html"
    result = raylens("dedupe", "--in", str(out), "--threshold", "0.99", "--gallery", str(page))
    assert ended(result) == 0, result.stderr
    heading, first, second = result.stdout.splitlines()
    assert heading.startswith("1. 2 images")
    assert first == f"   1.0000  {photos[0]}"
    assert second.endswith(photos[1])
    assert "1 groups" not in sentence(result)
    assert page.read_text().count("data:image/webp;base64") == 2


def test_dedupe_is_json_for_scripts(photos: list[str], out: Path) -> None:
    result = raylens("dedupe", "--in", str(out), "--threshold", "0.99", "--json")
    (group,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert [image["source"] for image in group["images"]] == photos[:2]
    assert group["size"] == 2


@pytest.mark.parametrize("threshold", ["0", "1.5", "-1"])
def test_a_threshold_that_is_no_cosine_is_a_usage_error(threshold: str, tmp_path: Path) -> None:
    path = store(tmp_path / "x.npy", np.ones((2, 12)))
    result = raylens("dedupe", "--in", str(path), "--threshold", threshold)
    assert ended(result) == 2
    assert "--threshold" in sentence(result)


def test_a_map_says_how_it_was_made(out: Path, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    result = raylens("map", "--in", str(out), "-o", str(page))
    assert ended(result) == 0, result.stderr
    assert "4 images of" in sentence(result)
    assert "by PCA" in sentence(result)
    assert page.read_text().count("data:image/webp;base64") == 4


def test_a_map_of_fewer_points_says_so(out: Path, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    result = raylens("map", "--in", str(out), "-o", str(page), "--points", "3", "--method", "pca")
    assert ended(result) == 0, result.stderr
    assert "3 of 4 images" in sentence(result)
    assert "3 of 4 images" in page.read_text()


def test_umap_keeps_clusters_together(tmp_path: Path) -> None:
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(2, 16)), 40, axis=0) + 0.1 * rng.normal(size=(80, 16))
    np.save(tmp_path / "vectors.npy", vectors.astype(np.float32))
    # In a process of its own, where numba compiles nothing: that alone would take 30 seconds.
    code = (
        "import numpy; from raylens.embeddings.projection import project; "
        "numpy.save('points.npy', project(numpy.load('vectors.npy'), 'umap'))"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=environment, check=True
    )
    points = np.load(tmp_path / "points.npy")
    left, right = points[:40], points[40:]
    apart = np.linalg.norm(left.mean(axis=0) - right.mean(axis=0))
    assert apart > 2 * max(left.std(axis=0).max(), right.std(axis=0).max())
