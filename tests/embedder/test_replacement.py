"""A model that replaces another brings its card and its tokenizer."""

import asyncio
import dataclasses
import pickle

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from tokenizers import Tokenizer, models

from deployments.errors import Unavailable
from deployments.wire import WrongGeometryError
from tests.embedder.clocks import without_waiting
from tests.embedder.handles import ANSWER, Handle, client, embed
from tests.fakes import CARD, TEXT
from tests.until import until

JSON = Tokenizer(models.WordLevel({"cat": 0, "?": 1}, unk_token="?")).to_str()
TOKENIZER = (CARD.identity, JSON)
WITH_TEXT = dataclasses.replace(CARD, text=TEXT)


@without_waiting
async def test_a_model_with_text_counts_as_loaded_only_with_its_tokenizer() -> None:
    others = (b"of an older version", Tokenizer(models.WordLevel({"?": 9}, unk_token="?")).to_str())
    handle = Handle(ready=(WITH_TEXT,) * 3, tokenizer=(ActorDiedError(), others, TOKENIZER))
    opened = client(handle)
    with pytest.raises(Unavailable):
        opened.tokenizer  # noqa: B018
    await opened.wait_until_loaded()
    assert opened.card == WITH_TEXT
    assert [encoded.ids for encoded in opened.tokenizer.encode(["cat"])] == [[0]]
    assert len(handle.methods["tokenizer"].calls) == 3


@pytest.mark.parametrize("told_by", ["an answer", "being ready"])
@without_waiting
async def test_another_version_of_the_model_brings_its_card_and_tokenizer(told_by: str) -> None:
    newer = dataclasses.replace(WITH_TEXT, identity=b"newer")
    asked = (newer,) if told_by == "being ready" else ()
    handle = Handle(
        ready=(WITH_TEXT, *asked, ActorDiedError(), newer),
        tokenizer=(TOKENIZER, (b"newer", JSON)),
        embed=(ANSWER._replace(identity=b"newer"),) * 2,
    )
    opened = client(handle)
    await opened.wait_until_loaded()
    if told_by == "being ready":
        assert await opened.ready() is newer
    else:
        await embed(opened)
    await asyncio.sleep(1)  # the refresh failed, and left the card and the tokenizer as they were
    assert opened.card is WITH_TEXT
    await embed(opened)
    await asyncio.to_thread(until, lambda: opened.card is newer, within_s=10)
    assert len(handle.methods["tokenizer"].calls) == 2


@without_waiting
async def test_a_wrong_geometry_error_means_that_the_model_was_replaced() -> None:
    newer = dataclasses.replace(CARD, identity=b"newer")
    handle = Handle(ready=(CARD, newer), embed=(WrongGeometryError(b"newer"),))
    opened = client(handle)
    await opened.wait_until_loaded()
    with pytest.raises(Unavailable, match="replaced") as caught:
        await embed(opened)
    assert caught.value.retry_after_s == 1
    await asyncio.sleep(1)
    assert opened.card is newer


def test_a_wrong_geometry_error_keeps_its_identity_through_ray() -> None:
    remote = RayTaskError("embed", "Traceback …", WrongGeometryError(b"newer"))
    error = pickle.loads(pickle.dumps(remote)).as_instanceof_cause()
    assert isinstance(error, WrongGeometryError)
    assert error.identity == b"newer"
