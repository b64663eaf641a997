"""Equal items of a request are embedded once, and each has its own row or error."""

import asyncio
import base64

import numpy as np
import pytest

from deployments.errors import CorruptImage, FetchFailed
from deployments.items import Base64Item, Parsed, UrlItem
from deployments.service.job import Context, ItemGroup
from tests.conftest import Jpeg
from tests.fakes import FakeModel, service
from tests.service.conftest import Images
from tests.service.fakes import FakeFetcher, SmallStacksModel
from tests.service.requests import CORRUPT, embed, errors, vectors


async def test_duplicates_reach_the_model_once_and_count_as_cached(images: Images) -> None:
    model = FakeModel()
    a, b = images(2)
    embedded = await embed(service(model), [a, b, a, a, b])
    assert sum(map(len, model.stacks)) == 2
    assert embedded.cached == 3
    rows = vectors(embedded)
    assert (rows[[2, 3, 4]] == rows[[0, 0, 1]]).all()
    assert (rows[0] != rows[1]).any()


async def test_duplicates_in_different_stacks_reach_the_model_once(images: Images) -> None:
    model = SmallStacksModel(1)
    items = images(3)
    embedded = await embed(service(model), [*items, *items])
    assert sum(map(len, model.stacks)) == 3
    assert embedded.cached == 3
    assert (vectors(embedded)[:3] == vectors(embedded)[3:]).all()


async def test_the_vectors_of_duplicates_share_no_memory(images: Images) -> None:
    (a,) = images(1)
    rows = (await embed(service(), [a, a], normalize=False)).rows
    assert not np.shares_memory(rows[0], rows[1])


async def test_duplicates_of_a_bad_item_get_its_error_with_their_own_param() -> None:
    embedded = await embed(service(), [CORRUPT, CORRUPT, CORRUPT], on_error="report")
    bad = [error for error in errors(embedded) if error is not None]
    assert [type(error) for error in bad] == [CorruptImage] * 3
    assert [error.param for error in bad] == ["input[0]", "input[1]", "input[2]"]
    assert len({error.message for error in bad}) == 1
    assert embedded.cached == 0


async def test_a_failed_request_names_duplicates_among_its_bad_items(images: Images) -> None:
    with pytest.raises(CorruptImage) as caught:
        await embed(service(), [*images(1), CORRUPT, CORRUPT])
    assert caught.value.param == "input[1]"
    assert [(index, error.param) for index, error in caught.value.items] == [
        (1, "input[1]"),
        (2, "input[2]"),
    ]


async def test_bad_items_are_named_by_their_parameter_and_their_index_in_it(images: Images) -> None:
    opened = service()
    context = Context(None, asyncio.get_running_loop().time() + 10)
    groups = [
        ItemGroup("query", images(1), is_list=False),
        ItemGroup("documents", [CORRUPT, *images(1), CORRUPT]),
        ItemGroup("labels", [CORRUPT], first=7),
    ]
    with pytest.raises(CorruptImage) as caught:
        await opened.embed(groups, context)
    named = [(index, error.param) for index, error in caught.value.items]
    assert named == [(0, "documents[0]"), (2, "documents[2]"), (7, "labels[7]")]


async def test_the_same_bytes_by_url_and_as_base64_are_duplicates(jpeg: Jpeg) -> None:
    model = FakeModel()
    fetcher = FakeFetcher(cat=jpeg(1))
    opened = service(model, fetcher=fetcher)  # type: ignore[arg-type]
    again = base64.b64encode(jpeg(1)).decode()
    items: list[Parsed] = [UrlItem("https://cat"), Base64Item(again)]
    embedded = await embed(opened, items)
    assert fetcher.downloads == ["https://cat"]
    assert sum(map(len, model.stacks)) == 1
    assert embedded.cached == 1
    assert (vectors(embedded)[0] == vectors(embedded)[1]).all()


async def test_a_url_that_is_listed_several_times_is_fetched_once(jpeg: Jpeg) -> None:
    fetcher = FakeFetcher(cat=jpeg(1), dog=jpeg(2), same=jpeg(2), gone=FetchFailed("Gone."))
    opened = service(fetcher=fetcher)  # type: ignore[arg-type]
    names = ["cat", "same", "dog", "cat", "dog", "same", "gone", "gone"]
    items: list[Parsed] = [UrlItem(f"https://{name}") for name in names]
    embedded = await embed(opened, items, on_error="report")
    assert sorted(fetcher.downloads) == [f"https://{n}" for n in ("cat", "dog", "gone", "same")]
    assert embedded.cached == 4
    rows = np.stack([row for row in embedded.rows[:6] if isinstance(row, np.ndarray)])
    assert (rows[[3, 4, 5]] == rows[[0, 2, 1]]).all()
    assert [error and error.param for error in errors(embedded)[6:]] == ["input[6]", "input[7]"]
