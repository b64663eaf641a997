"""A model that is replaced by another in the middle of a request: nobody notices."""

from dataclasses import replace

import numpy as np
import pytest

from deployments.errors import ModelNotFound, ModelReplaced, Unavailable
from deployments.items import BytesItem, TextItem
from deployments.service import embedding
from deployments.service.classify import Classifier
from deployments.service.job import Context, ItemGroup
from deployments.texts.tokenizer import Encoded
from deployments.wire import ModelCard, Pixels, StackVectors, TextSpec, Tokens, Vectors
from tests.fakes import CARD, TEXT, FakeModel, FakeTokenizer, service
from tests.service.conftest import Images
from tests.service.fakes import IMAGE_BYTES
from tests.service.requests import embed, vectors

NEWER = replace(CARD, id="newer", identity=b"newer", dimensions=3, text=TEXT)
FAR = 1e9


class UpperCase(FakeTokenizer):
    def encode(self, texts: list[str]) -> list[Encoded]:  # type: ignore[override]
        return super().encode([text.upper() for text in texts])


class Replaced(FakeModel):
    """Makes way for another, of 3 dimensions, after some stacks; one image is a stack."""

    stack_bytes = IMAGE_BYTES

    def __init__(
        self, after: int, *, text: TextSpec | None = None, newer: ModelCard = NEWER
    ) -> None:
        super().__init__(text=text)
        self.left = after
        self.newer = newer

    async def reloaded(self) -> None:
        self.loaded_card, self.tokenizer = self.newer, UpperCase()
        self.names = frozenset({self.newer.id, *self.newer.aliases})

    async def embed(
        self, stack: Pixels, identity: bytes, deadline: float, tenant: str | None = None
    ) -> StackVectors:
        self._count()
        made = await super().embed(stack, identity, deadline)
        return made._replace(vectors=self._short(made.vectors))

    async def embed_text(
        self, stack: Tokens, identity: bytes, deadline: float, tenant: str | None = None
    ) -> StackVectors:
        self._count()
        made = await super().embed_text(stack, identity, deadline)
        return made._replace(vectors=self._short(made.vectors))

    def _count(self) -> None:
        if self.left == 0 and self.loaded_card is not None:  # the ingress has not heard of it yet
            self.loaded_card = replace(self.loaded_card, identity=self.newer.identity)
        self.left -= 1

    def _short(self, made: Vectors) -> Vectors:
        return made[:, :3] if self.left < 0 else made


@pytest.mark.parametrize("cache_bytes", [0, 10**6])
async def test_a_request_is_answered_by_one_model(images: Images, cache_bytes: int) -> None:
    model = Replaced(after=2)
    embedded = await embed(service(model, cache={"max_bytes": cache_bytes}), images(4))
    assert vectors(embedded).shape == (4, 3)
    assert embedded.card is NEWER


async def test_a_request_that_names_the_model_does_not_get_another_ones_vectors(
    images: Images,
) -> None:
    opened = service(Replaced(after=1))
    with pytest.raises(ModelNotFound):
        await opened.embed([ItemGroup("input", images(2))], Context("fake", FAR))


async def test_a_request_that_names_it_by_an_alias_which_both_have_is_answered(
    images: Images,
) -> None:
    model = Replaced(after=1, newer=replace(NEWER, aliases=("small",)))
    model.names |= {"small"}
    group = ItemGroup("input", images(2))
    embedded = await service(model).embed([group], Context("small", FAR))
    assert embedded.card.id == "newer"


async def test_texts_are_tokenised_for_the_model_that_reads_them() -> None:
    model = Replaced(after=0, text=TEXT)
    await embed(service(model), [TextItem("cat")])
    assert model.token_stacks[-1].tolist() == [[ord(c) for c in "CAT"]]


async def test_labels_and_images_are_of_one_model(images: Images) -> None:
    model = Replaced(after=1, text=TEXT)  # the labels' stack is the older model's
    group = ItemGroup("input", [item for item in images(2) if isinstance(item, BytesItem)])
    opened = service(model)
    rows, card, _ = await Classifier(opened).classify(
        group, ["#ff0000", "#00ff00"], "{}", Context(None, FAR)
    )
    assert card.id == "newer"
    assert np.isfinite(rows).all()


async def test_a_request_whose_model_never_settles_is_refused_in_the_end(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cluster whose processors give the model two precisions."""

    class Unsettled(FakeModel):
        tries = 0

        async def reloaded(self) -> None: ...

        async def embed(
            self, stack: Pixels, identity: bytes, deadline: float, tenant: str | None = None
        ) -> StackVectors:
            self.tries += 1
            raise ModelReplaced("The model is being replaced by another; retry.", retry_after_s=1)

    monkeypatch.setattr(embedding, "RESTART_PAUSES_S", (0.001,) * 3)
    model = Unsettled()
    with pytest.raises(ModelReplaced):
        await embed(service(model), images(1))
    assert model.tries == 4


async def test_a_name_is_not_unknown_while_no_model_is_loaded(images: Images) -> None:
    """The one that is still loading may have it, after an update that failed."""
    group = ItemGroup("input", images(1))
    with pytest.raises(Unavailable, match="still being loaded"):
        await service(FakeModel(None)).embed([group], Context("other", FAR))
    with pytest.raises(ModelNotFound):
        await service(FakeModel()).embed([group], Context("other", FAR))
