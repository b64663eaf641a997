"""`raylens bench`: a small run against a real HTTP layer."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raylens import bench
from raylens.cli import app
from raylens.cluster import free_port
from tests.answering import answering
from tests.client.conftest import Serve, serve

__all__ = ["serve"]  # a fixture


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LOADS", (bench.Load(2, 1), bench.Load(1, 4)))


def test_photos_are_numbered_so_that_no_cache_knows_them() -> None:
    images = bench.photos(2)
    assert 30_000 < len(images[0]) < 150_000
    numbered: Iterator[bytes] = bench.numbered([*images, b"\x89PNG"])
    assert len({next(numbered) for _ in range(9)}) == 9


@pytest.mark.usefixtures("quick")
def test_a_table_a_plot_and_a_profile(serve: Serve, tmp_path: Path) -> None:
    plot, profile = tmp_path / "bench.png", tmp_path / "profile.json"
    with serve() as url:
        options = ["--seconds", "1", "--plot", str(plot), "--profile", str(profile)]
        result = CliRunner().invoke(app, ["bench", "--url", url, *options])
    assert result.exit_code == 0, result.output
    assert "2 x 1 image" in result.output
    assert plot.read_bytes()[:4] == b"\x89PNG"
    profiled = json.loads(profile.read_text())
    assert profiled["model"]["id"] == "fake"
    first, second = profiled["runs"]
    assert (second["callers"], second["images_per_request"]) == (1, 4)
    assert first["images_per_s"] > 0
    assert first["p99_ms"] >= first["p50_ms"] > 0
    assert {"decode", "queue", "model", "total"} <= set(first["stages_p50_ms"])
    assert first["failed"] == {}


@pytest.mark.usefixtures("quick")
def test_what_is_refused_is_counted_and_is_a_failure(serve: Serve) -> None:
    with serve(limits={"max_image_bytes": 1000}) as url:
        result = CliRunner().invoke(app, ["bench", "--url", url, "--seconds", "1"])
    assert result.exit_code == 1
    assert "image_too_large" in result.output


def test_a_wrong_call_is_explained(tmp_path: Path) -> None:
    for arguments, sentence, code in (
        (["--plot", "bench.pdf"], "ends in .png", 2),
        (["--plot", str(tmp_path / "missing/bench.png")], "cannot write", 2),
        (["--profile", str(tmp_path)], "cannot write", 2),
        (["--images", str(tmp_path)], "there are no JPEGs in", 2),
        (["--url", f"http://127.0.0.1:{free_port()}"], "nothing answers at", 3),
    ):
        result = CliRunner().invoke(app, ["bench", *arguments])
        assert (result.exit_code, result.exception.__class__) == (code, SystemExit)
        assert sentence in result.output.replace("\n", " ")


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(bench, "measure", None)
    result = CliRunner().invoke(app, ["bench", "--plot", str(tmp_path / "bench.png")])
    assert result.exit_code == 1
    assert "pip install 'raylens[plot]'" in result.output


def models(*listed: dict[str, str]) -> bytes:
    """What a service's /v1/models returns."""
    limits = dict.fromkeys(("max_items", "max_body_bytes", "max_image_bytes"), 1000)
    return json.dumps({"data": listed, "limits": limits}).encode()


@pytest.mark.usefixtures("quick")
def test_a_service_that_goes_away_meanwhile_is_told() -> None:
    def answer(path: str) -> tuple[int, bytes]:
        if path != "/v1/models":
            raise ConnectionAbortedError
        return 200, models({"id": "fake"})

    with answering(answer) as url:
        result = CliRunner().invoke(app, ["bench", "--url", url])
    assert (result.exit_code, result.exception.__class__) == (3, SystemExit)
    assert "went away" in result.output


def test_a_service_without_models_is_told() -> None:
    with answering(lambda path: (200, models())) as url:
        result = CliRunner().invoke(app, ["bench", "--url", url])
    assert (result.exit_code, result.exception.__class__) == (1, SystemExit)
    assert "has no model" in result.output
