"""The examples run as they are, against the HTTP layer with a fake model behind it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from raylens.cluster import free_port
from tests.client.conftest import Serve, serve
from tests.servers import ROOT
from tests.until import until

__all__ = ["serve"]  # a fixture

EXAMPLES = ROOT / "examples"
SEARCHES = ["lancedb_search.py", "qdrant_search.py", "duckdb_search.py"]
ELSEWHERE = {"ray_data_job.py"}  # tests/e2e


@pytest.fixture
def folder(tmp_path: Path, jpeg: Callable[..., bytes]) -> Path:
    """A working directory with five photos, of which two are the same."""
    photos = tmp_path / "work" / "photos"
    photos.mkdir(parents=True)
    for name, seed in {"a": 1, "b": 2, "c": 3, "d": 4, "same_as_b": 2}.items():
        (photos / f"{name}.jpg").write_bytes(jpeg(seed))
    return photos.parent


@pytest.fixture
def environment(serve: Serve) -> Iterator[dict[str, str]]:
    with serve() as url:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        yield {**os.environ, "RAYLENS_URL": url, "PYTHONPATH": str(ROOT), "PATH": path}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_near_duplicates(folder: Path, environment: dict[str, str]) -> None:
    output = run(
        [sys.executable, str(EXAMPLES / "near_duplicates.py"), "photos"], folder, environment
    )
    assert output.split() == ["1.000", "b.jpg", "same_as_b.jpg"]


@pytest.mark.parametrize("name", SEARCHES)
def test_databases_find_the_same_photo(
    folder: Path, environment: dict[str, str], name: str
) -> None:
    command = [sys.executable, str(EXAMPLES / name), "photos", "photos/b.jpg"]
    first, second, _ = run(command, folder, environment).splitlines()
    assert {first, second} == {"1.000 photos/b.jpg", "1.000 photos/same_as_b.jpg"}


def test_a_web_application(folder: Path, environment: dict[str, str]) -> None:
    port = free_port()
    command = ["-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_app:app", "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, *command], cwd=folder, env={**environment, "PHOTOS": "photos"}
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: _answers(url))
            photo = (folder / "photos" / "c.jpg").read_bytes()
            answer = httpx.post(f"{url}/nearest", files={"photo": photo}).json()
            assert answer == {"name": "c.jpg", "cosine": pytest.approx(1, abs=1e-5)}
            bad = httpx.post(f"{url}/nearest", files={"photo": b"not an image"})
            assert bad.status_code == 415
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/docs").is_success
    except httpx.TransportError:
        return False


def test_a_folder_becomes_a_parquet_file(folder: Path, environment: dict[str, str]) -> None:
    command = ["sh", str(EXAMPLES / "folder_to_parquet.sh"), "photos", "photos.parquet"]
    assert "5" in run(command, folder, environment)


def test_the_notebook(folder: Path, environment: dict[str, str], tmp_path: Path) -> None:
    (folder / "first_steps.ipynb").write_bytes((EXAMPLES / "first_steps.ipynb").read_bytes())
    options = ["--execute", "--to", "notebook", "--output", "done.ipynb"]
    command = [sys.executable, "-m", "nbconvert", *options, "first_steps.ipynb"]
    run(command, folder, {**environment, "IPYTHONDIR": str(tmp_path)})
    output = json.loads((folder / "done.ipynb").read_text())["cells"][-1]["outputs"]
    assert "ApiError" in json.dumps(output)


def test_every_example_is_run_by_a_test() -> None:
    here = Path(__file__).read_text()
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh", ".ipynb")}
    assert {name for name in names - ELSEWHERE if name.split(".")[0] not in here} == set()
