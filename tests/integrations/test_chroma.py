"""Chroma, as it is, embeds through the service and gets the client's vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raylens import Client
from tests.client.conftest import serve as serve  # a fixture
from tests.integrations.test_integrations import PHOTOS
from tests.integrations.test_integrations import client as client  # a fixture

chromadb = pytest.importorskip(
    "chromadb", reason="chromadb is too heavy for every run of the tests: pip install chromadb"
)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    return chromadb.PersistentClient(str(tmp_path / "chroma"))


def vectors(collection: Any) -> Any:
    return collection.get(include=["embeddings"])["embeddings"]


def test_it_gets_the_vectors_of_documents_images_and_uris(client: Client, store: Any) -> None:
    from chromadb.utils.data_loaders import ImageLoader

    from raylens.integrations.chroma import RaylensEmbeddingFunction

    function = RaylensEmbeddingFunction()
    arrays = [np.array(Image.open(path)) for path in PHOTOS]
    collection = store.create_collection("arrays", embedding_function=function)
    collection.add(ids=PHOTOS, images=arrays)
    assert np.allclose(vectors(collection), client.embed(arrays), atol=1e-6)
    texts = ["x #ff0000", "photos/a.jpg"]  # a text, although there is such a file
    collection = store.create_collection("texts", embedding_function=function)
    collection.add(ids=["1", "2"], documents=texts)
    expected = client.embed([{"text": text} for text in texts])
    assert np.allclose(vectors(collection), expected, atol=1e-6)
    collection = store.create_collection(
        "uris", embedding_function=function, data_loader=ImageLoader()
    )
    collection.add(ids=PHOTOS, uris=PHOTOS)
    assert collection.query(query_texts=["y #0000ff"], n_results=1)["ids"] == [["photos/c.jpg"]]
    assert collection.configuration["hnsw"]["space"] == "cosine"


def test_a_collection_is_opened_without_the_function_and_knows_no_key(
    client: Client, store: Any
) -> None:
    from raylens.integrations.chroma import RaylensEmbeddingFunction

    function = RaylensEmbeddingFunction(api_key="sesame", dimensions=12)
    store.create_collection("photos", embedding_function=function).add(ids=["1"], documents=["x"])
    opened = store.get_collection("photos")
    opened.add(ids=["2"], documents=["y"])
    assert vectors(opened).shape == (2, 12)
    for path in Path("chroma").rglob("*"):
        assert path.is_dir() or b"sesame" not in path.read_bytes()


def test_a_collection_does_not_say_where_the_key_is_sent(client: Client, store: Any) -> None:
    from raylens.integrations.chroma import RaylensEmbeddingFunction

    stored = RaylensEmbeddingFunction().get_config() | {"url": "http://127.0.0.1:1", "api_key": "x"}
    opened = RaylensEmbeddingFunction.build_from_config(stored)
    assert np.allclose(opened(["x"]), client.embed([{"text": "x"}]), atol=1e-6)
