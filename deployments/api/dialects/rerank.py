"""Rerank as Cohere, Jina, Voyage and vLLM have it, and text-embeddings-inference at `/rerank`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

import orjson
from pydantic import BeforeValidator, Field
from starlette.responses import Response
from typing_extensions import TypedDict

from deployments.api.call import Call
from deployments.api.dialects import tei
from deployments.api.dialects.contents import check_text_limit, item_of
from deployments.api.endpoint import Dialect, post
from deployments.api.fence import request_id
from deployments.api.schema import Body, Items, ListOf, OneItem, WholeNumber, parse
from deployments.errors import BadRequest, RaylensError
from deployments.items import Item, Parsed, TextItem, UrlItem
from deployments.service.embedding import Embedded
from deployments.service.job import ItemGroup, Options
from deployments.service.vectors import Ranking, ranking


def _parts(documents: Any) -> Any:
    """vLLM's clients may send all documents as the parts of one message."""
    if isinstance(documents, Mapping):
        return documents.get("content", documents)
    return documents


class RerankBody(Body):
    query: OneItem
    documents: Annotated[Items, BeforeValidator(_parts)]
    top_n: WholeNumber = Field(0, ge=0, description="Return only this many, the best; 0 is all.")
    top_k: WholeNumber = Field(0, ge=0, description="The same, as Voyage calls it.")
    return_documents: bool = False
    truncation: bool = Field(True, description="Truncate texts that the model cannot read whole.")
    rank_fields: ListOf[Literal["text"]] = Field(
        [], max_length=1, description="Read only the text of documents that have one."
    )
    max_tokens_per_doc: WholeNumber | None = Field(None, ge=1)
    truncate_prompt_tokens: WholeNumber | None = Field(None, ge=-1)
    truncation_side: Literal["right"] = "right"


class TeiRerankBody(tei.TeiBody):
    query: OneItem
    texts: Items
    return_text: bool = False


class RerankDocument(TypedDict, total=False):
    """Under `rank_fields`, with the other fields that came with the text."""

    text: str
    image: Annotated[str, Field(description="The URL that was sent.")]


class RerankResult(TypedDict):
    index: int
    relevance_score: Annotated[float, Field(description="The cosine, from -1 to 1.")]
    document: NotRequired[RerankDocument]


class RerankUnits(TypedDict):
    search_units: int


class RerankMeta(TypedDict):
    billed_units: RerankUnits


class RerankUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class Reranked(TypedDict):
    id: str
    object: Literal["list"]
    model: str
    results: list[RerankResult]
    data: Annotated[list[RerankResult], Field(description="The same, as Voyage calls it.")]
    meta: RerankMeta
    usage: RerankUsage


class TeiRank(TypedDict):
    index: int
    score: float
    text: NotRequired[str]


class RerankError(tei.TeiError):
    """Only TEI's clients read `error`; others read `message` or `detail`."""

    message: str
    detail: str


async def rerank(call: Call) -> Response:
    return await _reranked(call, await call.body(RerankBody))


async def rerank_of_either(call: Call) -> Response:
    """At `/rerank`, TEI's body has `texts` where the others' have `documents`."""
    content = await call.json()
    if content.get("texts") is None or content.get("documents") is not None:
        return await _reranked(call, parse(RerankBody, content))
    tei.check_not_empty("texts", content["texts"])
    body = parse(TeiRerankBody, content)
    texts = call.items("texts", body.texts, item_of)
    ranks, _ = await _ranks(call, body, texts, truncate=body.truncate)
    answer: list[dict[str, Any]] = []
    for index, score in ranks:
        answer.append({"index": index, "score": score})
        sent = _sent(texts.items[index])
        if body.return_text and sent is not None:
            answer[-1]["text"] = sent[1]
    return call.answer(answer)


async def _reranked(call: Call, body: RerankBody) -> Response:
    read = _text_alone if body.rank_fields else item_of
    documents = call.items("documents", body.documents, read)
    for param in ("max_tokens_per_doc", "truncate_prompt_tokens"):
        check_text_limit(call, body.model, param, getattr(body, param))
    ranks, embedded = await _ranks(call, body, documents, truncate=body.truncation)
    results: list[dict[str, Any]] = []
    for index, score in ranks[: body.top_n or body.top_k or None]:
        results.append({"index": index, "relevance_score": score})
        sent = _sent(documents.items[index])
        if body.return_documents and sent is not None:
            whole = body.documents[index]
            keeps = body.rank_fields and _has_text(whole)
            results[-1]["document"] = whole if keeps else dict([sent])
    answer = {
        "id": request_id(call.request),
        "object": "list",
        "model": embedded.card.id,
        "results": results,
        "data": results,
        "meta": {"billed_units": {"search_units": 1}},
        "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
    }
    try:
        return call.answer(answer)
    except orjson.JSONEncodeError:  # it writes fewer levels than it reads
        raise BadRequest(
            "The documents are nested too deeply to be returned; leave return_documents out.",
            param="return_documents",
        ) from None


def _has_text(document: Any) -> bool:
    return isinstance(document, Mapping) and document.get("text") is not None


def _text_alone(document: Any) -> Item:
    """A document under Cohere's `rank_fields`, whose other fields are only returned."""
    return item_of({"text": document["text"]} if _has_text(document) else document)


async def _ranks(
    call: Call, body: RerankBody | TeiRerankBody, documents: ItemGroup, *, truncate: bool
) -> tuple[Ranking, Embedded]:
    """The documents' indices with their cosines to the query, best first."""
    query = call.item("query", body.query, item_of)
    options = Options(truncate=truncate)
    (target, others), embedded = await call.vectors([query, documents], body.model, options)
    return ranking(target[0], others), embedded


def _sent(item: Parsed) -> tuple[str, str] | None:
    """A document's kind and what was sent for it; None for images that are not URLs."""
    if isinstance(item, TextItem):
        return "text", item.text
    return ("image", item.url) if isinstance(item, UrlItem) else None


def error_body(error: RaylensError, request_id: str) -> RerankError:
    body = tei.error_body(error, request_id)
    return {"message": body["error"], "detail": body["error"], **body}


DIALECT = Dialect(
    "rerank",
    error=error_body,
    error_answer=RerankError,
    endpoints=(
        *(
            post(path, rerank, "Rank documents by a query", Reranked, RerankBody)
            for path in ("/v1/rerank", "/v2/rerank")
        ),
        post(
            "/rerank",
            rerank_of_either,
            "Rank documents by a query",
            Reranked | list[TeiRank],
            RerankBody | TeiRerankBody,
        ),
    ),
)
