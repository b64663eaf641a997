"""Through handles, other Ray jobs get the same vectors as over HTTP."""

import base64
import json
from pathlib import Path

import pytest

from tests.e2e.service.clients import embed, run_python
from tests.servers import Server


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


def test_connect_offers_the_handles_methods_as_plain_calls(
    server: Server, tmp_path: Path, files: str, folder: Path
) -> None:
    data = base64.b64encode((folder / "5.jpg").read_bytes()).decode()
    script = f"""
import json, numpy as np, raylens
client = raylens.connect()
one = client.embed_image("5.jpg")
assert np.allclose(client.embed_image_url("{files}/5.jpg"), one, atol=1e-6)
assert np.allclose(client.embed_image_base64("{data}"), one, atol=1e-6)
both = client.batch_embed_images(["5.jpg", {{"path": "6.jpg"}}])
assert both.shape == (2, 1280) and np.allclose(both[0], one, atol=1e-6)
good, bad = client.embed([{{"path": "5.jpg"}}, {{"path": "none.jpg"}}], on_error="report")
assert np.allclose(good, one, atol=1e-6) and bad.code == "path_not_found"
codes = []
for call in (client.text_embedding_dimension, lambda: client.embed_text("a cat"),
             lambda: client.batch_text_image_similarity(["a"], [])):
    try:
        call()
    except Exception as error:
        codes.append(error.code)
result = {{"vector": one.tolist(), "dimension": client.image_embedding_dimension(),
           "model": client.info()["data"][0]["id"], "codes": codes}}
print("RESULT", json.dumps(result))
"""
    result = json.loads(run_python(server, script, tmp_path).partition("RESULT")[2])
    assert result["vector"] == pytest.approx(embed(server, {"path": "5.jpg"}), abs=1e-6)
    assert (result["dimension"], result["model"]) == (1280, "efficientnet-lite0")
    assert result["codes"] == ["text_unsupported", "text_unsupported", "bad_request"]
