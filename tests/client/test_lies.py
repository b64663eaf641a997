"""Answers that look like the service's and cannot be true: none of them becomes a vector."""

import io
import json
from typing import Any

import numpy as np
import pytest
from starlette.responses import Response

from raylens import ApiError, Client
from tests.client.conftest import running
from tests.client.test_http import ITEM, Front, behind


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


LIES = {
    "empty": Response(b""),
    "zip": Response(b"PK\x03\x04 broken"),
    "huge": Response(
        npy(np.ones((1, 12), np.float32)).replace(b"(1, 12), }    ", b"(1, 129999), }")
    ),
    "short": Response(npy(np.ones((1, 12), np.float32))[:-4]),
    "wrong type": Response(npy(np.ones((1, 12), np.int8))),
    "too few": Response(npy(np.ones((0, 12), np.float32))),
    "four axes": Response(npy(np.ones((1, 2, 2, 3), np.float32))),
    "no vectors": Response(npy(np.ones((1, 0, 12), np.float32))),
    "no columns": Response(npy(np.ones((1, 0), np.float32))),
    "strange errors": Response(
        npy(np.ones((1, 12), np.float32)), headers={"X-Item-Errors": '["x"]'}
    ),
    "errors of other items": Response(
        npy(np.ones((1, 12), np.float32)),
        headers={"X-Item-Errors": '[{"index": -1, "code": "x", "message": "x"}]'},
    ),
    "no vector": Response(npy(np.full((1, 12), np.nan, np.float32))),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_vectors_that_cannot_be_true_are_an_error(lie: Response) -> None:
    with behind(Front(lie)) as client, pytest.raises(ApiError) as caught:
        client.embed([ITEM])
    assert (caught.value.code, caught.value.status) == ("unknown", 200)


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_what_stands_for_no_vector_is_never_one(dtype: Any) -> None:
    answer = np.ones((2, 12), dtype)
    answer[1] = np.nan if dtype == np.float32 else 0
    with behind(Front(Response(npy(answer)))) as client:  # its X-Item-Errors was lost
        good, bad = client.embed([ITEM, ITEM], dtype=np.dtype(dtype).name, errors="return")
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, ApiError)
    assert bad.code == "unknown"


@pytest.mark.parametrize("limit", [0, -1, "5", None])
def test_limits_that_cannot_be_true_are_an_error(limit: Any) -> None:
    async def lying(scope: Any, receive: Any, send: Any) -> None:
        limits = {"max_items": limit, "max_body_bytes": 10**6, "max_image_bytes": 10**6}
        listed = json.dumps({"object": "list", "data": [], "limits": limits})
        await Response(listed, media_type="application/json")(scope, receive, send)

    expected = pytest.raises(ApiError, match="is not raylens")
    with running(lying) as url, Client(url) as client, expected:
        client.embed([ITEM, ITEM])


def test_labels_of_fewer_items_are_an_error() -> None:
    class Fewer(Front):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/v1/classify":
                await Response('{"data": []}', media_type="application/json")(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)

    with behind(Fewer()) as client, pytest.raises(ApiError, match="is not raylens"):
        client.classify([ITEM], ["cat"])


def test_an_error_about_no_number_is_not_moved() -> None:
    body = {"error": {"code": "bad_request", "message": "No.", "param": "input[abc]"}}
    front = Front(Response(json.dumps(body), 400, media_type="application/json"))
    with behind(front) as client, pytest.raises(ApiError, match="No") as caught:
        client.embed([ITEM])
    assert caught.value.param == "input[abc]"
