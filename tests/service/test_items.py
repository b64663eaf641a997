"""Each item, whatever its source, ends as a vector or as its own error, and is counted."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deployments.errors import BadRequest, FetchFailed, InvalidItem, PathNotFound, TextUnsupported
from deployments.items import PathItem, TextItem, UrlItem
from deployments.texts.tokenizer import Encoded
from tests.conftest import Jpeg
from tests.fakes import CARD, TEXT, FakeModel, FakeTokenizer, service
from tests.service.conftest import Images
from tests.service.fakes import FakeFetcher
from tests.service.requests import CORRUPT, embed, errors

# Sources


async def test_an_image_that_cannot_be_fetched_is_an_error_of_its_item(jpeg: Jpeg) -> None:
    fetcher = FakeFetcher(cat=jpeg(1), gone=FetchFailed("The origin said 404."))
    opened = service(fetcher=fetcher)  # type: ignore[arg-type]
    items = [UrlItem("https://gone"), UrlItem("https://cat")]
    bad, good = errors(await embed(opened, items, on_error="report"))
    assert isinstance(bad, FetchFailed)
    assert bad.param == "input[0]"
    assert good is None


async def test_text_is_refused_by_a_model_without_a_text_tower(images: Images) -> None:
    embedded = await embed(service(), [*images(1), TextItem("a cat")], on_error="report")
    _, bad = errors(embedded)
    assert isinstance(bad, TextUnsupported)
    assert bad.param == "input[1]"
    with pytest.raises(TextUnsupported):
        await embed(service(), [TextItem("")])


async def test_a_text_in_which_the_model_reads_no_tokens_is_an_error_of_its_item() -> None:
    class Bare(FakeTokenizer):  # it adds no special token
        def encode(self, texts: Sequence[str]) -> list[Encoded]:
            return [Encoded([ord(c) for c in text], truncated=False) for text in texts]

    model = FakeModel(text=TEXT)
    model.tokenizer = Bare()
    embedded = await embed(service(model), [TextItem(""), TextItem("a")], on_error="report")
    bad, good = errors(embedded)
    assert isinstance(bad, InvalidItem)
    assert (bad.param, good) == ("input[0]", None)


async def test_an_item_that_came_as_an_error_stays_that_error(images: Images) -> None:
    items = [InvalidItem("not an item"), *images(1)]
    bad, good = errors(await embed(service(), items, on_error="report"))
    assert isinstance(bad, InvalidItem)
    assert bad.param == "input[0]"
    assert good is None


# Metrics


async def test_each_item_is_counted_by_its_outcome(images: Images) -> None:
    opened = service()
    items = [*images(2), images(1)[0], CORRUPT, CORRUPT, PathItem("x"), TextItem("x")]
    await embed(opened, items, on_error="report")
    assert opened.metrics.items.values == {
        ("bytes", "ok"): 3,
        ("bytes", "corrupt_image"): 2,
        ("path", "path_not_found"): 1,
        ("text", "text_unsupported"): 1,
    }


async def test_the_bad_items_of_a_failed_request_are_counted(images: Images) -> None:
    opened = service()
    with pytest.raises(PathNotFound):
        await embed(opened, [*images(1), PathItem("x"), CORRUPT])
    assert opened.metrics.items.values == {
        ("path", "path_not_found"): 1,
        ("bytes", "corrupt_image"): 1,
    }


# Options from callers of a handle, which no schema checks.


@pytest.mark.parametrize("dimensions", [0, -1, "12", 1.5, True])
async def test_dimensions_that_are_no_positive_integer_are_a_bad_request(dimensions: Any) -> None:
    opened = service(FakeModel(replace(CARD, matryoshka=True)))
    with pytest.raises(BadRequest):
        await embed(opened, [TextItem("x")], dimensions=dimensions)


async def test_dimensions_may_be_a_numpy_integer(images: Images) -> None:
    embedded = await embed(service(), images(1), dimensions=np.int64(12))
    assert len(embedded.rows) == 1


async def test_an_unknown_on_error_is_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        await embed(service(), [TextItem("x")], on_error="reprot")
