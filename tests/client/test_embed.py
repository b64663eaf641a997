"""Batches, their order, and what becomes of bad items."""

import asyncio
import inspect
import os
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import raylens
from raylens import ApiError, AsyncClient, Client
from raylens.client.blocking import Methods
from raylens.client.methods import AsyncMethods
from tests.client.conftest import Serve
from tests.fakes import CARD, TEXT, FakeModel


def raises(sentence: str) -> Any:
    return pytest.raises(ApiError, match=sentence)


def colour(number: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (number % 256, number // 256, 128))


def texts(count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        yield {"text": f"#{number:06x}"}


def test_many_items_of_a_generator_keep_their_order(client: Client) -> None:
    vectors = client.embed(texts(3000))
    assert vectors.shape == (3000, 12)
    alone = client.embed([{"text": "#000bb7"}])
    np.testing.assert_allclose(vectors[2999], alone[0], atol=1e-6)
    assert len(np.unique(vectors, axis=0)) == 3000


def test_a_request_has_no_more_items_than_the_service_takes(serve: Serve) -> None:
    with serve(limits={"max_items": 3}) as url, Client(url) as client:
        assert client.embed(colour(n) for n in range(20)).shape == (20, 12)


def test_a_request_has_no_more_bytes_than_the_service_takes(serve: Serve) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    with serve(limits={"max_body_bytes": 40_000}) as url, Client(url) as client:
        assert client.embed(noise).shape == (6, 12)  # 12 KB each, 16 in base64


def test_no_items_are_an_empty_array_of_the_models_width(client: Client) -> None:
    assert client.embed([]).shape == (0, 12)
    assert client.embed([], dtype="ubinary").shape == (0, 2)
    assert client.embed([], errors="return") == []


def test_no_items_are_as_wide_as_the_model_of_that_name_or_alias(serve: Serve) -> None:
    other = FakeModel(replace(CARD, id="other", aliases=("small",), dimensions=8))
    with serve(FakeModel(), other) as url, Client(url) as client:
        for name in ("other", "small"):
            assert client.embed([], model=name).shape == (0, 8)


def test_a_lone_item_is_a_list_of_one(client: Client) -> None:
    assert client.embed(colour(1)).shape == (1, 12)
    assert client.embed("a cat").shape == (1, 12)


@pytest.mark.parametrize(
    ("dtype", "width", "kind"),
    [("float16", 12, "float16"), ("int8", 12, "int8"), ("ubinary", 2, "uint8")],
)
def test_vectors_come_in_the_type_that_was_asked_for(
    client: Client, dtype: Any, width: int, kind: str
) -> None:
    vectors = client.embed([colour(1), colour(2)], dtype=dtype)
    assert (vectors.shape, vectors.dtype) == ((2, width), np.dtype(kind))


def test_options_reach_the_service(client: Client) -> None:
    assert abs(np.linalg.norm(client.embed([colour(1)], normalize=False)) - 1) > 1
    with pytest.raises(ApiError, match="dimensions_unsupported"):
        client.embed([colour(1)], dimensions=4)
    with pytest.raises(ApiError, match="model_not_found"):
        client.embed([colour(1)], model="other")
    with pytest.raises(ApiError, match="text_too_long"):
        client.embed(["x" * 100], truncate=False)
    with pytest.raises(ValueError, match='"raise" or "return"'):
        client.embed([colour(1)], errors="ignore")  # type: ignore[call-overload]


def test_the_first_bad_item_is_named_by_its_place_in_the_call(client: Client) -> None:
    items: list[Any] = [colour(n) for n in range(200)]
    items[150] = items[151] = b"not an image"
    with pytest.raises(ApiError) as caught:
        client.embed(items)
    error = caught.value
    assert (error.status, error.code, error.param) == (415, "unsupported_image", "input[150]")
    assert error.request_id
    assert error.items[150].code == "unsupported_image"
    assert str(error).startswith("unsupported_image (input[150]): ")


def test_bad_items_are_returned_in_their_places(client: Client, tmp_path: Path) -> None:
    items: list[Any] = [colour(n) for n in range(300)]
    items[3], items[4], items[250] = b"not an image", tmp_path / "none.jpg", b""
    rows = client.embed(items, errors="return")
    errors = {place: row for place, row in enumerate(rows) if isinstance(row, Exception)}
    assert {place: type(error) for place, error in errors.items()} == {
        3: ApiError,
        4: FileNotFoundError,
        250: ApiError,
    }
    vector = rows[299]
    assert isinstance(vector, np.ndarray)
    np.testing.assert_allclose(vector, client.embed_image(colour(299)), atol=1e-6)


def test_a_file_that_cannot_be_read_is_an_os_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        client.embed([tmp_path / "none.jpg"])


@pytest.mark.parametrize(
    ("bad", "code"), [(b"", "corrupt_image"), (b"x" * 2_000_000, "image_too_large")]
)
def test_an_item_that_is_refused_here_is_named_by_its_place(
    serve: Serve, bad: bytes, code: str
) -> None:
    items: list[Any] = [*(colour(n) for n in range(150)), bad]
    limits, expected = {"max_image_bytes": 1_000_000}, pytest.raises(ApiError)
    with serve(limits=limits) as url, Client(url) as client, expected as caught:
        client.embed(items)
    assert (caught.value.code, caught.value.param) == (code, "input[150]")
    assert caught.value.items[150].code == code


@pytest.mark.parametrize("bad", [Path("/none.jpg"), Image.new("CMYK", (8, 8)), 7])
def test_an_item_that_is_none_is_named_by_its_place(client: Client, bad: Any) -> None:
    with pytest.raises((OSError, ValueError, TypeError)) as caught:
        client.embed([*(colour(n) for n in range(150)), bad])
    assert caught.value.__notes__ == ["item 150"]


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_never_ends_is_not_read(client: Client, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "fifo" if kind == "fifo" else Path("/dev/zero")
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(OSError, match="Not a regular file"):
        client.embed([path])


def test_a_file_that_is_longer_than_it_says_is_read_up_to_the_limit(serve: Serve) -> None:
    path = Path("/proc/self/maps")  # whose size is said to be 0
    if not path.is_file():
        pytest.skip("needs Linux")
    sentence = "has 101 bytes"
    with serve(limits={"max_image_bytes": 100}) as url, Client(url) as client, raises(sentence):
        client.embed([path])


def test_labels_and_top_n_that_are_slips_are_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="labels must be a list"):
        client.classify([colour(1)], "cat")
    for top_n in (-1, 0):
        with pytest.raises(ValueError, match="top_n must be at least 1"):
            client.rank("#00ff00", [colour(1), colour(2)], top_n=top_n)


def test_an_image_of_too_many_bytes_is_not_sent(serve: Serve) -> None:
    sentence = "has 101 bytes; the service takes at most 100"
    with serve(limits={"max_image_bytes": 100}) as url, Client(url) as client, raises(sentence):
        client.embed([b"x" * 101])


def test_an_error_of_the_callers_generator_ends_the_call(client: Client) -> None:
    def broken() -> Iterator[Image.Image]:
        yield from (colour(n) for n in range(100))
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        client.embed(broken())
    assert client.embed([colour(1)]).shape == (1, 12)


def test_cosines_ranks_and_labels(client: Client) -> None:
    red, green = Image.new("RGB", (8, 8), "#ff0000"), Image.new("RGB", (8, 8), "#00ff00")
    matrix = client.similarity([red, green], ["#ff0000", "#00ff00", red], mode="matrix")
    assert matrix.shape == (2, 3)
    np.testing.assert_allclose(np.diag(matrix), [1, 1], atol=1e-6)
    assert matrix.max() <= 1
    np.testing.assert_allclose(client.similarity(red, ["#ff0000"]), [1.0], atol=1e-6)
    with pytest.raises(ValueError, match="2 items cannot be paired with 1"):
        client.similarity([red, green], [red])
    with pytest.raises(ValueError, match='must be "pairwise" or "matrix"'):
        client.similarity([red], [red], mode="all")  # type: ignore[arg-type]
    assert [index for index, _ in client.rank("#00ff00", [red, green], top_n=1)] == [1]
    ((best, probability), (other, _)) = client.classify(red, ["#00ff00", "#ff0000"])[0]
    assert (best, other) == ("#ff0000", "#00ff00")
    assert probability > 0.9


def test_what_rank_says_is_what_the_service_says(client: Client, serve: Serve) -> None:
    import httpx

    documents = [{"text": f"text {n}"} for n in range(5)]
    ours = client.rank({"text": "#ff0000"}, documents)
    url = str(client._methods._transport.url)  # type: ignore[attr-defined]
    theirs = httpx.post(
        f"{url}/v1/rank", json={"query": {"text": "#ff0000"}, "documents": documents}
    ).json()["results"]
    assert [index for index, _ in ours] == [result["index"] for result in theirs]
    scores = [result["score"] for result in theirs]
    np.testing.assert_allclose([score for _, score in ours], scores, atol=1e-6)


def test_models_and_readiness(serve: Serve) -> None:
    with serve(FakeModel(text=TEXT)) as url, Client(url) as client:
        assert [model["id"] for model in client.models()] == ["fake"]
        assert client.ready()
    with serve(FakeModel(None)) as url, Client(url) as client:
        assert not client.ready()
    with Client(url) as client:  # nobody is there any more
        assert not client.ready()


async def test_the_asynchronous_client_does_the_same(serve: Serve) -> None:
    with serve(FakeModel(text=TEXT)) as url:
        async with AsyncClient(url) as client:
            one, two = await asyncio.gather(client.embed([colour(1)]), client.embed("a cat"))
            assert one.shape == two.shape == (1, 12)
        with Client(url) as blocking:  # beside a running loop, as in a notebook
            np.testing.assert_array_equal(blocking.embed([colour(1)]), one)


def test_one_client_serves_several_threads(client: Client) -> None:
    vectors: dict[int, Any] = {}

    def embed(number: int) -> None:
        vectors[number] = client.embed_image(colour(number))

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, vector in vectors.items():
        np.testing.assert_array_equal(vector, client.embed_image(colour(number)))


def test_a_closed_client_says_so(serve: Serve) -> None:
    with serve() as url:
        client = Client(url)
        client.close()
        client.close()
        with pytest.raises(RuntimeError, match="the client is closed"):
            client.models()


def test_errors_can_be_pickled() -> None:
    item = ApiError("broken", code="corrupt_image")
    error = ApiError("bad", code="x", status=400, param="input[1]", items={1: item})
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.message, copy.code, copy.status, copy.param) == ("bad", "x", 400, "input[1]")
    assert copy.items[1].code == "corrupt_image"


def test_blocking_and_asynchronous_clients_have_the_same_methods() -> None:
    def signatures(of: type) -> dict[str, list[str]]:
        return {
            name: [*inspect.signature(method).parameters]
            for name, method in inspect.getmembers(of, inspect.isfunction)
            if not name.startswith("_") and name != "rows"
        }

    asynchronous, blocking = signatures(AsyncMethods), signatures(Methods)
    assert asynchronous.pop("embed")[:2] == ["self", "items"]
    assert blocking.pop("embed") == ["self", "items", "options"]
    assert asynchronous == blocking
    assert inspect.signature(raylens.Client) == inspect.signature(raylens.AsyncClient)
