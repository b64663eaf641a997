"""`/v1/embeddings` as those who copied it from OpenAI spell it."""

import base64
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.conftest import Connect
from tests.api.requests import b64, error, post
from tests.fakes import CARD, TEXT, FakeModel

RED, BLUE, LONG = "a wall of #ff0000", "a sea of #0000ff", "long " * 20


@pytest.fixture
async def client(connect: Connect) -> AsyncIterator[httpx.AsyncClient]:
    """Of a model for images and texts that may be shortened."""
    async with connect(FakeModel(replace(CARD, matryoshka=True), text=TEXT)) as client:
        yield client


async def embeddings(client: httpx.AsyncClient, **body: Any) -> list[Any]:
    response = await post(client, **body)
    assert response.status_code == 200, response.text
    return [row["embedding"] for row in response.json()["data"]]


async def test_options_may_have_the_names_that_others_gave_them(client: httpx.AsyncClient) -> None:
    for ours, theirs in (
        ({"dimensions": 4}, {"output_dimension": 4}),
        ({"normalize": False}, {"normalized": False}),
        ({"dtype": "int8"}, {"output_dtype": "int8"}),
        ({"dtype": "ubinary"}, {"output_dtype": "ubinary"}),
        ({"dtype": "ubinary"}, {"embedding_type": "ubinary"}),
        ({"encoding_format": "base64"}, {"embedding_type": "base64"}),
        ({"normalize": False}, {"use_activation": False}),
        ({"dtype": "float16"}, {"embed_dtype": "float16"}),
        (
            {"dtype": "float16", "encoding_format": "base64"},
            {"embed_dtype": "float16", "encoding_format": "base64", "endianness": "little"},
        ),
        ({}, {"embed_dtype": "float32", "endianness": "native", "use_activation": True}),
        ({}, {"output_dtype": "float"}),
        ({}, {"embedding_type": "float", "truncation": True, "normalized": True}),
    ):
        expected = await embeddings(client, input=[RED, BLUE], **ours)
        assert await embeddings(client, input=[RED, BLUE], **theirs) == expected
    assert expected != await embeddings(client, input=[RED, BLUE], dtype="int8")


async def test_too_many_dimensions_are_refused_in_the_callers_word(
    client: httpx.AsyncClient,
) -> None:
    for word in ("dimensions", "output_dimension"):
        refused = error(await post(client, input=RED, **{word: 400}))
        assert (refused["code"], refused["param"]) == ("dimensions_unsupported", word)
        assert refused["message"].startswith(f"{word} is at most")


async def test_uint8_is_int8_plus_128_and_binary_is_ubinary_minus_128(
    client: httpx.AsyncClient,
) -> None:
    int8 = np.array(await embeddings(client, input=[RED, BLUE], dtype="int8"))
    ubinary = np.array(await embeddings(client, input=[RED, BLUE], dtype="ubinary"))
    uint8 = await embeddings(client, input=[RED, BLUE], output_dtype="uint8")
    assert uint8 == (int8 + 128).tolist()
    for name in ("output_dtype", "embedding_type"):
        binary = await embeddings(client, input=[RED, BLUE], **{name: "binary"})
        assert binary == (ubinary - 128).tolist()


@pytest.mark.parametrize(
    ("dtype", "numpy_dtype"),
    [("float", "<f4"), ("int8", "i1"), ("uint8", "u1"), ("binary", "i1"), ("ubinary", "u1")],
)
async def test_base64_is_of_the_bytes_of_voyages_output_dtype(
    client: httpx.AsyncClient, dtype: str, numpy_dtype: str
) -> None:
    body = {"input": [RED, BLUE], "output_dtype": dtype}
    numbers = await embeddings(client, **body)
    encoded = await embeddings(client, **body, encoding_format="base64")
    decoded = [np.frombuffer(base64.b64decode(text), numpy_dtype).tolist() for text in encoded]
    assert decoded == [pytest.approx(row) for row in numbers]


async def test_several_embedding_types_come_as_an_object(client: httpx.AsyncClient) -> None:
    types = ["float", "base64", "binary", "ubinary"]
    expected = {kind: await embeddings(client, input=[RED], embedding_type=kind) for kind in types}
    (row,) = await embeddings(client, input=[RED], embedding_type=types)
    assert row == {kind: found[0] for kind, found in expected.items()}
    (row,) = await embeddings(client, input=RED, embedding_type=["binary"])
    assert row == {"binary": expected["binary"][0]}


async def test_a_failed_item_stands_among_several_embedding_types(
    client: httpx.AsyncClient,
) -> None:
    body = {"input": [RED, {"path": "gone.jpg"}, BLUE], "embedding_type": ["float", "binary"]}
    first, failed, last = await embeddings(client, **body, on_error="report")
    assert failed is None
    assert [first, last] == await embeddings(client, **{**body, "input": [RED, BLUE]})


async def test_jinas_items_are_understood(client: httpx.AsyncClient, jpeg: Any) -> None:
    photo = b64(jpeg(1))
    data = photo["base64"]
    expected = await embeddings(client, input=[photo] * 3 + [{"text": RED}])
    uri = f"data:image/png;base64,{data}"
    items = [{"image": data, "id": "7"}, {"bytes": data}, {"image": uri}, {"text": RED}]
    body = {"task": "retrieval.query", "late_chunking": True, "return_multivector": False}
    assert await embeddings(client, input=items, **body) == expected


async def test_a_vector_for_each_token_is_refused(client: httpx.AsyncClient) -> None:
    refused = error(await post(client, input=RED, return_multivector=True))
    assert (refused["code"], refused["param"]) == ("bad_request", "return_multivector")


async def test_nims_words_for_truncation_are_understood(client: httpx.AsyncClient) -> None:
    for truncate in ("END", True):
        response = await post(client, input=LONG, truncate=truncate, input_type="query")
        assert response.json()["data"][0]["truncated"]
    for option in ({"truncate": "NONE"}, {"truncate": False}, {"truncation": False}):
        assert (await post(client, input=LONG, **option)).status_code == 413
    refused = error(await post(client, input=RED, truncate="START"))
    assert (refused["code"], refused["param"]) == ("bad_request", "truncate")
    assert "their end only" in refused["message"]
    assert error(await post(client, input=RED, truncate="MIDDLE"))["code"] == "bad_request"
    form = await client.post("/v1/embeddings", params={"truncate": "END"}, json={"input": LONG})
    assert form.json()["data"][0]["truncated"]


async def test_one_message_is_one_item(client: httpx.AsyncClient, jpeg: Any) -> None:
    photo = b64(jpeg(1))
    uri = f"data:image/png;base64,{photo['base64']}"
    for item, contents in (
        (RED, (RED, [{"type": "text", "text": RED}], [{"type": "input_text", "text": RED}])),
        (
            photo,
            (
                [{"type": "image_url", "image_url": {"url": uri}}],
                [{"type": "image_url", "image_url": uri}],
                [{"type": "input_image", "image_url": uri}],
            ),
        ),
    ):
        expected = await embeddings(client, input=[item])
        for content in contents:
            message = {"role": "user", "content": content}
            assert await embeddings(client, messages=[message]) == expected


async def test_modality_decides_how_a_string_in_a_message_is_read(
    client: httpx.AsyncClient, jpeg: Any
) -> None:
    uri = f"data:image/png;base64,{b64(jpeg(1))['base64']}"
    for content in (uri, [uri]):
        body = {"messages": [{"role": "user", "content": content}]}
        assert await embeddings(client, **body) == await embeddings(client, input=uri)
        found = await embeddings(client, **body, modality="text")
        assert found == await embeddings(client, input={"text": uri})


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"messages": [{"content": "a"}, {"content": "b"}]}, "bad_request", "messages"),
        ({"messages": []}, "bad_request", "messages"),
        ({"messages": "a"}, "bad_request", "messages"),
        ({"messages": [{"content": "a"}], "input": "a"}, "bad_request", "messages"),
        ({"messages": None}, "bad_request", "input"),
        (
            {"messages": [{"content": [{"type": "text", "text": t} for t in "ab"]}]},
            *("invalid_item", "messages[0]"),
        ),
    ],
)
async def test_messages_that_are_not_one_item_are_refused(
    client: httpx.AsyncClient, body: dict[str, Any], code: str, param: str
) -> None:
    refused = await post(client, **body)
    assert refused.status_code == 400
    assert (error(refused)["code"], error(refused)["param"]) == (code, param)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"output_dimension": 4, "dimensions": 8}, "output_dimension"),
        ({"normalized": True, "normalize": False}, "normalized"),
        ({"truncation": True, "truncate": "NONE"}, "truncation"),
        ({"output_dtype": "int8", "dtype": "ubinary"}, "output_dtype"),
        ({"output_dtype": "int8", "embedding_type": "binary"}, "embedding_type"),
        ({"output_dtype": "uint8", "normalize": False}, "normalize"),
        ({"dtype": "int8", "normalized": False}, "normalize"),
        ({"output_dtype": "int8", "use_activation": False}, "normalize"),
        ({"normalized": True, "use_activation": False}, "use_activation"),
        ({"embed_dtype": "float16", "dtype": "float32"}, "embed_dtype"),
        ({"embed_dtype": "float16", "output_dtype": "int8"}, "embed_dtype"),
        ({"embed_dtype": "float32", "embedding_type": ["binary"]}, "embed_dtype"),
        ({"dtype": "ubinary", "output_dtype": "ubinary", "embed_dtype": "float32"}, "embed_dtype"),
        ({"dtype": "ubinary", "embedding_type": ["ubinary"]}, "embedding_type"),  # in an object
        ({"embed_dtype": "bfloat16"}, "embed_dtype"),
        ({"embed_dtype": "fp8_e4m3"}, "embed_dtype"),
        ({"endianness": "big"}, "endianness"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncation_side": "left"}, "truncation_side"),
        ({"output_dtype": "int4"}, "output_dtype"),
        ({"embedding_type": "int8"}, "embedding_type"),
        ({"embedding_type": ["float", "int8"]}, "embedding_type"),
        ({"embedding_type": []}, "embedding_type"),
        ({"output_dimension": 0}, "output_dimension"),
        ({"dtype": "binary"}, "dtype"),
    ],
)
async def test_what_contradicts_itself_or_is_unknown_is_refused(
    client: httpx.AsyncClient, options: dict[str, Any], param: str
) -> None:
    refused = await post(client, input=RED, **options)
    assert refused.status_code == 400
    assert (error(refused)["code"], error(refused)["param"]) == ("bad_request", param)


async def test_the_same_option_twice_is_no_contradiction(client: httpx.AsyncClient) -> None:
    body = {"input": RED, "dimensions": 4, "output_dimension": 4.0, "normalized": None}
    assert len((await embeddings(client, **body))[0]) == 4
    for types in (
        {"dtype": "float32", "output_dtype": "float", "embed_dtype": "float32"},
        {"dtype": "ubinary", "embedding_type": "ubinary", "output_dtype": "ubinary"},
        {"embed_dtype": "float16", "dtype": "float16"},
        {"embedding_type": "base64", "dtype": "float32"},
    ):
        expected = await embeddings(client, input=RED, **dict([next(iter(types.items()))]))
        assert await embeddings(client, input=RED, **types) == expected


async def test_a_refused_embed_dtype_is_answered_with_those_that_are_taken(
    client: httpx.AsyncClient,
) -> None:
    refused = error(await post(client, input=RED, embed_dtype="bfloat16"))
    assert refused["message"] == "embed_dtype must be 'float32' or 'float16'."


async def test_fewer_tokens_than_the_model_reads_are_refused(client: httpx.AsyncClient) -> None:
    expected = await embeddings(client, input=[LONG])
    for tokens in (None, -1, 24, 8192):
        assert await embeddings(client, input=[LONG], truncate_prompt_tokens=tokens) == expected
    for tokens in (0, 23):
        for items in ({"input": [LONG]}, {"messages": [{"content": LONG}]}):
            refused = await post(client, **items, truncate_prompt_tokens=tokens)
            assert refused.status_code == 400
            assert error(refused)["param"] == "truncate_prompt_tokens"


async def test_npy_has_one_type(client: httpx.AsyncClient) -> None:
    headers = {"accept": "application/x-npy"}
    body: dict[str, Any] = {"input": [RED, {"path": "gone.jpg"}], "on_error": "report"}
    many = {**body, "embedding_type": ["float", "binary"]}
    refused = await client.post("/v1/embeddings", json=many, headers=headers)
    assert error(refused)["param"] == "embedding_type"
    for dtype in ("uint8", "binary"):
        one = {**body, "output_dtype": dtype}
        answer = await client.post("/v1/embeddings", json=one, headers=headers)
        array = np.load(io.BytesIO(answer.content))
        (expected,) = await embeddings(client, input=[RED], output_dtype=dtype)
        assert array.tolist() == [expected, [0] * len(expected)]


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2, 3], [4]]])
async def test_token_ids_are_refused_with_what_to_do(
    client: httpx.AsyncClient, ids: list[Any]
) -> None:
    refused = await post(client, input=ids)
    assert refused.status_code == 400
    assert "check_embedding_ctx_length=False" in error(refused)["message"]


async def test_infinitys_path_is_the_same_endpoint(client: httpx.AsyncClient, jpeg: Any) -> None:
    data = b64(jpeg(1))["base64"]
    body = {"input": [f"data:image/png;base64,{data}"], "modality": "image"}
    answer = await client.post("/embeddings", json=body)
    assert [row["embedding"] for row in answer.json()["data"]] == await embeddings(client, **body)
    refused = await client.post("/embeddings", json={"input": []})
    assert refused.json()["detail"] == error(refused)["message"]


async def test_the_document_has_all_spellings(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    body = document["components"]["schemas"]["EmbeddingsBody"]
    spellings = {"messages", "embedding_type", "normalized", "return_multivector"}
    spellings |= {"output_dtype", "output_dimension", "truncation"}
    spellings |= {"embed_dtype", "endianness", "truncate_prompt_tokens", "use_activation"}
    assert spellings <= body["properties"].keys()
    assert {"enum": ["END", "NONE"]} in body["properties"]["truncate"]["anyOf"][0]["anyOf"]
    assert "/embeddings" in document["paths"]
