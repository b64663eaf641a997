"""Commands whose packages are not installed say what to install."""

import sys
from pathlib import Path

import numpy as np
import pytest

from raylens.embeddings import duplicates
from tests.commands import ended, raylens, sentence
from tests.embeddings.stored import store


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / "x.parquet", np.ones((2, 12)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = raylens("dedupe", "--in", str(path))
    assert ended(result) == 2
    assert "pip install 'raylens[parquet]'" in sentence(result)


def test_many_rows_need_usearch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(10, 12)))
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    monkeypatch.setattr(duplicates, "EXACT_ROWS", 5)
    result = raylens("dedupe", "--in", str(path))
    assert ended(result) == 1
    assert "pip install 'raylens[dedupe]'" in sentence(result)


def test_umap_needs_umap_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 12)))
    monkeypatch.setitem(sys.modules, "umap", None)
    page = str(tmp_path / "map.html")
    result = raylens("map", "--in", str(path), "-o", page, "--method", "umap")
    assert ended(result) == 1
    assert "pip install 'raylens[map]'" in sentence(result)
    result = raylens("map", "--in", str(path), "-o", page)
    assert ended(result) == 0
    assert "by PCA" in sentence(result)
    assert "pip install 'raylens[map]'" in sentence(result)
