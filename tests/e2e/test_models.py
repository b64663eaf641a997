"""Several models in one service, texts among them: over HTTP and through the handle.

The references are transformers' own, computed here from the same checkpoints.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from tests.e2e.service.clients import run_python
from tests.models import families
from tests.models.comparison import LABELS, TEXTS, unit
from tests.models.reference import TransformersReference, upright_rgb
from tests.servers import ROOT, Server, serve

Jpeg = Callable[..., bytes]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny checkpoints of two families, in folders named after them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: families.write(name, folder / name.lower()) for name in ("CLIP", "SigLIP")}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path], photos: list[Path]
) -> Iterator[Server]:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    clip, siglip = checkpoints["CLIP"], checkpoints["SigLIP"]
    config["applications"][0]["args"] = {
        "model": {"id": str(clip), "aliases": ["text-embedding-3-small"], "precision": "float32"},
        "models": [{"id": str(siglip), "precision": "float32"}],
        "image_roots": [str(photos[0].parent)],
    }
    config["applications"][0]["deployments"].append(
        {"name": "Embedder-siglip", "max_ongoing_requests": 100}
    )
    folder = tmp_path_factory.mktemp("server")
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    with serve(folder, path) as server:
        yield server


@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_texts_get_the_vectors_that_transformers_gives(
    server: Server, checkpoints: dict[str, Path], name: str
) -> None:
    body = {"input": [{"text": text} for text in TEXTS], "model": checkpoints[name].name}
    answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=30).json()
    found = np.array([entry["embedding"] for entry in answer["data"]])
    expected = unit(TransformersReference(checkpoints[name]).texts(TEXTS))
    assert (found * expected).sum(axis=1).min() > 0.9999
    assert answer["model"] == checkpoints[name].name
    assert answer["usage"]["texts"] == len(TEXTS)


@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_classify_gives_the_probabilities_of_the_models_own_logits(
    server: Server, checkpoints: dict[str, Path], photos: list[Path], name: str
) -> None:
    body = {
        "input": [{"path": photo.name} for photo in photos],
        "labels": LABELS,
        "template": "{}",
        "model": checkpoints[name].name,
    }
    answer = httpx.post(f"{server.url}/v1/classify", json=body, timeout=30).json()
    images = [upright_rgb(photo.read_bytes()) for photo in photos]
    expected = TransformersReference(checkpoints[name]).probabilities(images, LABELS)
    for row, entry in zip(expected, answer["data"], strict=True):
        found = {label["label"]: label["probability"] for label in entry["labels"]}
        assert [found[label] for label in LABELS] == pytest.approx(row, abs=1e-3)


def test_a_handle_embeds_texts_and_compares_them_with_images(
    server: Server, photos: list[Path], tmp_path: Path
) -> None:
    script = f"""
import json, asyncio
import ray
from ray import serve

ray.init(address="auto", log_to_driver=False)
handle = serve.get_app_handle("raylens")
path, texts = {photos[0].name!r}, ["a cat", "a house"]
try:
    handle.batch_text_image_similarity.remote(texts, [path, "none.jpg"]).result()
except Exception as error:
    param = error.param
text = handle.embed_text.remote("a cat").result()
image = handle.embed_image.remote(path).result()
other = handle.embed.remote(["a cat"], model="siglip").result()
print("RESULT", json.dumps({{
    "similarity": handle.text_image_similarity.remote("a cat", path).result(),
    "same": handle.image_text_similarity.remote(path, "a cat").result(),
    "cosine": float(text @ image),
    "batch": handle.batch_embed_text.remote(texts).result().shape,
    "pairs": handle.batch_text_image_similarity.remote(texts, [path, path]).result().tolist(),
    "param": param,
    "dimensions": handle.text_embedding_dimension.remote().result(),
    "other": other[0].shape,
    "models": [model["id"] for model in handle.info.remote().result()["data"]],
}}))
"""
    printed = run_python(server, script, tmp_path)
    line = next(line for line in printed.splitlines() if "RESULT" in line)
    result = json.loads(line.partition("RESULT ")[2])
    assert result["similarity"] == pytest.approx(result["cosine"], abs=1e-6)
    assert result["same"] == pytest.approx(result["cosine"], abs=1e-6)
    assert result["pairs"][0] == pytest.approx(result["cosine"], abs=1e-6)
    assert result["param"] == "paths[1]"
    assert result["batch"] == [2, 24]
    assert result["dimensions"] == 24
    assert result["other"] == [32]
    assert result["models"] == ["clip", "siglip"]


def test_the_models_are_listed_with_their_modalities_and_text_lengths(server: Server) -> None:
    models = httpx.get(f"{server.url}/v1/models", timeout=30).json()["data"]
    assert [(m["id"], m["modalities"], m["max_text_tokens"]) for m in models] == [
        ("clip", ["image", "text"], 77),
        ("siglip", ["image", "text"], 64),
    ]
    assert models[0]["aliases"] == ["text-embedding-3-small"]


def test_an_alias_selects_the_default_model_and_an_unknown_name_is_404(server: Server) -> None:
    for name, status in (("text-embedding-3-small", 200), ("siglip", 200), ("gpt-4", 404)):
        body = {"input": "a cat", "model": name}
        answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=30)
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["model"] == ("siglip" if name == "siglip" else "clip")
