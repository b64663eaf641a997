"""Models that give several vectors for each item: their shapes, and what refuses them."""

import base64
import io

import httpx
import numpy as np
import pytest
from PIL import Image

from raylens import ApiError, Client
from tests.client.conftest import Serve
from tests.client.test_embed import colour
from tests.fakes import LATE_TEXT, PATCHES, FakeModel


def test_several_vectors_for_each_item_keep_their_shape(serve: Serve) -> None:
    with serve(FakeModel(PATCHES)) as url, Client(url) as client:
        found = client.embed([colour(0), colour(1)])
        assert found.shape == (2, 4, 3)
        np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-6)
        np.testing.assert_array_equal(client.embed_image(colour(1)), found[1])
        assert client.embed([colour(0)], dtype="ubinary").shape == (1, 4, 1)
        assert client.embed([]).shape == (0, 4, 3)
        assert client.embed([], dtype="ubinary").shape == (0, 4, 1)
        good, bad = client.embed([colour(0), {"base64": "?"}], errors="return")
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, ApiError)
    np.testing.assert_array_equal(good, found[0])


def test_more_vectors_than_one_answer_may_have_come_in_several(serve: Serve) -> None:
    with (
        serve(FakeModel(PATCHES), limits={"max_body_bytes": 1500}) as url,
        Client(url) as client,
    ):
        assert client.embed(colour(n) for n in range(50)).shape == (50, 4, 3)


def test_what_needs_one_vector_for_each_item_is_refused(serve: Serve) -> None:
    with serve(FakeModel(PATCHES)) as url, Client(url) as client:
        with pytest.raises(ValueError, match="gives 4 vectors for each item, and one is"):
            client.similarity([colour(0)], [colour(1)])
        with pytest.raises(ValueError, match="gives 4 vectors for each item, and one is"):
            client.rank(colour(0), [colour(1)])


def test_late_interaction_has_as_many_vectors_as_tokens_and_ranks_by_maxsim(serve: Serve) -> None:
    texts = [{"text": text} for text in ("ab", "abcdef", "b")]
    with serve(FakeModel(PATCHES, text=LATE_TEXT)) as url, Client(url) as client:
        rows = client.embed(texts, errors="return")
        array = client.embed(texts)
        ranks = client.rank(colour(3), [*texts, colour(9)])
        body = {
            "query": {"base64": png(colour(3))},
            "documents": [*texts, {"base64": png(colour(9))}],
        }
        results = httpx.post(f"{url}/v1/rank", json=body).json()["results"]
        assert client.rank(colour(3), []) == []
    assert [len(row) for row in rows if isinstance(row, np.ndarray)] == [2, 6, 1]
    assert array.shape == (3, 6, 3)
    np.testing.assert_array_equal(array[0, :2], rows[0])
    assert not array[0, 2:].any()
    assert [index for index, _ in ranks] == [result["index"] for result in results]
    np.testing.assert_allclose([s for _, s in ranks], [r["score"] for r in results], atol=1e-5)


def png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
