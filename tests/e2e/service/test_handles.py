"""Through handles, other Ray jobs get the same vectors as over HTTP."""

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.e2e.service.clients import embed, run_python
from tests.servers import ROOT, Server


def test_a_ray_job_outside_the_tree_gets_the_same_vector_by_handle(
    server: Server, tmp_path: Path
) -> None:
    script = """
import json, ray
from ray import serve
ray.init(address="auto", log_to_driver=False)
handle = serve.get_app_handle("raylens")
vector = handle.embed_image.remote("5.jpg").result()
assert vector.dtype == "float32" and vector.shape == (1280,)
try:
    handle.embed_image.remote("none.jpg").result()
except Exception as error:
    code = [error.code, error.status, error.param]
print("RESULT", json.dumps({"vector": vector.tolist(), "error": code}))
"""
    result = json.loads(run_python(server, script, tmp_path).partition("RESULT")[2])
    assert result["vector"] == pytest.approx(embed(server, {"path": "5.jpg"}), abs=1e-6)
    assert result["error"] == ["path_not_found", 404, "input"]


def test_connect_has_the_surface_of_the_other_clients(
    server: Server, tmp_path: Path, files: str, folder: Path
) -> None:
    script = f"""
import json, pathlib, numpy as np, raylens
with raylens.connect() as client, raylens.Client("{server.url}") as other:
    one = client.embed_image("5.jpg")  # under the service's image root
    for item in ("{folder}/5.jpg", pathlib.Path("{folder}/5.jpg"), "{files}/5.jpg",
                 open("{folder}/5.jpg", "rb").read()):
        assert np.allclose(client.embed_image(item), one, atol=1e-6)
    items = ["{folder}/5.jpg", {{"path": "none.jpg"}}, "{folder}/6.jpg"]
    for c in (client, other):
        good, bad, better = c.embed(items, errors="return")
        assert np.allclose(good, one, atol=1e-6) and bad.code == "path_not_found"
        bits = c.embed(items[:1], dtype="ubinary")
        assert bits.dtype == "uint8" and (bits[0] == np.packbits(one > 0)).all()
        assert c.rank(items[0], [items[2], items[0]])[0][0] == 1
        assert c.ready() and c.models()[0]["id"] == "efficientnet-lite0"
    errors = []
    for call in (lambda: client.embed(items), lambda: client.embed_text("a cat"),
                 lambda: client.classify(items[:1], ["a", "b"]),
                 lambda: client.embed(items[:1], dtype="int8", normalize=False)):
        try:
            call()
        except raylens.ApiError as error:
            errors.append([error.code, error.status, error.param])
print("RESULT", json.dumps({{"vector": one.tolist(), "errors": errors}}))
"""
    result = json.loads(run_python(server, script, tmp_path).partition("RESULT")[2])
    assert result["vector"] == pytest.approx(embed(server, {"path": "5.jpg"}), abs=1e-6)
    assert result["errors"] == [
        ["path_not_found", 404, "input[1]"],
        ["text_unsupported", 400, "input[0]"],
        ["text_unsupported", 400, "labels"],
        ["bad_request", 400, "normalize"],
    ]


def test_the_example_of_a_ray_data_job(server: Server, tmp_path: Path, folder: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "vectors"
    photos.mkdir()
    for name in ("5.jpg", "6.jpg"):
        (photos / name).write_bytes((folder / name).read_bytes())
    (photos / "broken.jpg").write_bytes(b"not an image")
    script = (
        f"import runpy, sys; sys.argv = ['x', {str(photos)!r}, {str(out)!r}]; "
        f"runpy.run_path({str(ROOT / 'examples' / 'ray_data_job.py')!r}, run_name='__main__')"
    )
    assert "Model: efficientnet-lite0" in run_python(server, script, tmp_path)
    rows = {Path(row["path"]).name: row for row in parquet.read_table(out).to_pylist()}
    assert rows["5.jpg"]["embedding"] == pytest.approx(embed(server, {"path": "5.jpg"}), abs=1e-6)
    assert rows["broken.jpg"]["embedding"] is None
    assert rows["broken.jpg"]["error"].startswith("unsupported_image")
