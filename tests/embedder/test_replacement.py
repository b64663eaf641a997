"""A model that replaces another brings its card and its tokenizer."""

import dataclasses
import pickle
from collections import Counter
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from tokenizers import Tokenizer, models

from deployments.embedder.client import MODEL_TRIES, EmbedderClient
from deployments.errors import ModelReplaced, Unavailable
from deployments.metrics.declared import IngressMetrics
from deployments.wire import ModelCard, WrongModelError
from tests.embedder.clocks import without_waiting
from tests.embedder.handles import ANSWER, DEATHS, STACK, Handle, client, embed, failure
from tests.fakes import CARD, TEXT

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


@pytest.mark.parametrize("told_by", ["a stack", "being ready"])
@without_waiting
async def test_another_version_of_the_model_brings_its_card_and_tokenizer(told_by: str) -> None:
    newer = dataclasses.replace(WITH_TEXT, identity=b"newer")
    asked = (newer,) if told_by == "being ready" else ()
    handle = Handle(
        ready=(WITH_TEXT, *asked, ActorDiedError(), newer),
        tokenizer=(TOKENIZER, (b"newer", JSON)),
        embed=(WrongModelError(b"newer"),) * 2 * MODEL_TRIES,
    )
    opened = client(handle)
    await opened.wait_until_loaded()
    if told_by == "being ready":
        assert await opened.ready() is newer
    else:
        assert isinstance(await failure(opened), ModelReplaced)
    await opened.reloaded()  # failed, and left the card and the tokenizer as they were
    assert opened.card is WITH_TEXT
    assert isinstance(await failure(opened), ModelReplaced)
    await opened.reloaded()
    assert opened.card is newer
    assert len(handle.methods["tokenizer"].calls) == 2


async def test_while_replicas_of_both_models_serve_a_stack_finds_its_own() -> None:
    handle = Handle(embed=(WrongModelError(b"newer"), DEATHS[0], WrongModelError(b"newer"), ANSWER))
    assert await embed(client(handle)) is ANSWER
    assert handle.methods["embed"].calls == [(STACK, CARD.identity, None)] * 4


async def test_a_model_without_text_that_replaces_another_takes_its_tokenizer_away() -> None:
    newer = dataclasses.replace(CARD, identity=b"newer")
    handle = Handle(
        ready=(WITH_TEXT, newer), tokenizer=(TOKENIZER,), embed=(WrongModelError(b"newer"),) * 4
    )
    opened = client(handle)
    await opened.wait_until_loaded()
    await failure(opened)
    await opened.reloaded()
    with pytest.raises(Unavailable):
        opened.tokenizer  # noqa: B018


async def test_the_model_that_serves_keeps_its_names_where_the_settings_have_another() -> None:
    """As after an update whose model cannot start: the ingress is new, and the model is not."""
    serving = dataclasses.replace(CARD, id="older", aliases=("text-embedding-3-small",))
    opened = client(Handle(ready=(serving,)))
    assert opened.names == {"fake"}
    await opened.wait_until_loaded()
    assert opened.names == {"older", "text-embedding-3-small"}


async def test_new_aliases_of_the_same_model_count_at_once() -> None:
    handle: Any = Handle(ready=(CARD,))
    opened = EmbedderClient(handle, names=frozenset({"fake", "alias"}), request_timeout_s=10)
    await opened.wait_until_loaded()
    assert opened.names == {"fake", "alias"}


async def test_the_ingress_is_prepared_for_a_model_before_it_is_asked_of_it() -> None:
    """Decode workers may have to import torch, while requests would pile up behind the first."""
    newer = dataclasses.replace(CARD, identity=b"newer")
    cards: list[tuple[bytes, bool]] = []

    async def prepare(card: ModelCard) -> None:
        cards.append((card.identity, opened.is_loaded and opened.card is card))

    handle: Any = Handle(ready=(CARD, newer), embed=(WrongModelError(b"newer"),) * MODEL_TRIES)
    opened = EmbedderClient(
        handle, names=frozenset({"fake"}), request_timeout_s=10, prepare=prepare
    )
    await opened.wait_until_loaded()
    await failure(opened)
    await opened.reloaded()
    assert cards == [(CARD.identity, False), (b"newer", False)]
    assert opened.card is newer


def test_a_wrong_model_error_keeps_its_identity_through_ray() -> None:
    remote = RayTaskError("embed", "Traceback …", WrongModelError(b"newer"))
    error = pickle.loads(pickle.dumps(remote)).as_instanceof_cause()
    assert isinstance(error, WrongModelError)
    assert error.identity == b"newer"


@without_waiting
async def test_calls_that_are_made_again_are_counted() -> None:
    metrics = IngressMetrics()
    handle = Handle(ready=(CARD,), embed=(ActorDiedError(), WrongModelError(b"other"), ANSWER))
    opened = EmbedderClient(
        handle, names=frozenset({"fake"}), request_timeout_s=10, metrics=metrics
    )
    await opened.wait_until_loaded()
    await embed(opened)
    assert +Counter(metrics.retries.values) == {("replica_died",): 1, ("wrong_model",): 1}
