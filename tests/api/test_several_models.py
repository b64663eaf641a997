"""Several models behind one API: which one answers, and which are listed."""

from dataclasses import replace

from tests.api.colours import image
from tests.api.conftest import Connect
from tests.fakes import CARD, TEXT, FakeModel


def two_models() -> tuple[FakeModel, FakeModel]:
    more = replace(CARD, id="more", aliases=("second",), dimensions=12)
    return FakeModel(), FakeModel(more, text=TEXT)


async def test_the_request_selects_the_model_by_id_or_alias(connect: Connect) -> None:
    first, second = two_models()
    async with connect(first, second) as client:
        for number, name in enumerate((None, "fake", "more", "second")):
            body = {"input": image(f"#ff00{number:02x}"), "model": name}
            answer = (await client.post("/v1/embeddings", json=body)).json()
            assert answer["model"] == ("more" if name in ("more", "second") else "fake")
        missing = await client.post("/v1/embeddings", json={"input": "x", "model": "none"})
    assert (len(first.stacks), len(second.stacks)) == (2, 2)
    assert missing.json()["error"]["code"] == "model_not_found"


async def test_every_endpoint_takes_the_model_that_the_request_names(connect: Connect) -> None:
    bodies: dict[str, dict[str, object]] = {
        "embeddings": {"input": "a"},
        "similarity": {"a": ["a"], "b": [image("#ff0000")]},
        "rank": {"query": "a", "documents": [image("#ff0000")]},
        "classify": {"input": image("#ff0000"), "labels": ["a"]},
    }
    async with connect(*two_models()) as client:
        for path, body in bodies.items():
            default = await client.post(f"/v1/{path}", json=body)
            assert default.json()["error"]["code"] == "text_unsupported"
            named = await client.post(f"/v1/{path}", json={**body, "model": "more"})
            assert named.status_code == 200


async def test_all_models_are_listed(connect: Connect) -> None:
    async with connect(*two_models()) as client:
        models = (await client.get("/v1/models")).json()["data"]
    shown = [(m["id"], m["modalities"], m["max_text_tokens"]) for m in models]
    assert shown == [("fake", ["image"], None), ("more", ["image", "text"], TEXT.max_tokens)]


async def test_a_model_that_is_loading_is_not_ready_and_not_called_missing(
    connect: Connect,
) -> None:
    async with connect(FakeModel(), FakeModel(None)) as client:
        ready = await client.get("/readyz")
        first = await client.post("/v1/embeddings", json={"input": image("#ff0000")})
        other = await client.post("/v1/embeddings", json={"input": "x", "model": "loading"})
        missing = await client.post("/v1/embeddings", json={"input": "x", "model": "more"})
        models = (await client.get("/v1/models")).json()["data"]
    assert (ready.status_code, first.status_code, other.status_code) == (503, 200, 503)
    assert missing.status_code == 404
    assert [model["id"] for model in models] == ["fake"]
