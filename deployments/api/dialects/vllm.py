"""vLLM's score: the similarity of pairs. Its documentation: docs.vllm.ai, "Score API"."""

import time
from typing import Any, Literal

import numpy as np
from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from deployments.api import answers, render
from deployments.api.call import Call
from deployments.api.dialects.contents import check_text_limit, item_of
from deployments.api.endpoint import Dialect, post
from deployments.api.fence import request_id
from deployments.api.schema import Body, WholeNumber
from deployments.errors import BadRequest
from deployments.service.job import ItemGroup
from deployments.service.vectors import cosines

# vLLM has added pairs of names over time, and all of them still work.
FIRST = ("queries", "text_1", "data_1")
SECOND = ("documents", "items", "text_2", "data_2")


class VllmScoreBody(Body):
    queries: Any = None
    text_1: Any = None
    data_1: Any = None
    documents: Any = None
    items: Any = None
    text_2: Any = None
    data_2: Any = None
    max_tokens_per_query: WholeNumber = 0
    max_tokens_per_doc: WholeNumber = 0
    truncate_prompt_tokens: WholeNumber | None = Field(None, ge=-1)
    truncation_side: Literal["right"] = "right"


class VllmScore(TypedDict):
    index: int
    object: Literal["score"]
    score: float


class VllmUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int


class VllmScores(TypedDict):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[VllmScore]
    usage: VllmUsage


async def score(call: Call) -> Response:
    body = await call.body(VllmScoreBody)
    for param in ("max_tokens_per_query", "max_tokens_per_doc"):
        tokens = getattr(body, param)
        check_text_limit(call, body.model, param, tokens or None)  # 0: as many as there are
    check_text_limit(call, body.model, "truncate_prompt_tokens", body.truncate_prompt_tokens)
    first, second = _group(call, body, FIRST), _group(call, body, SECOND)
    if len(first.items) not in (1, len(second.items)):
        raise BadRequest(
            f"{first.name} has {len(first.items)} items and {second.name} has "
            f"{len(second.items)}, which cannot be paired; send one of the first, or as many.",
            param=first.name,
        )
    (a, b), embedded = await call.vectors([first, second], body.model)
    scores = cosines(np.broadcast_to(a, b.shape), b)
    return call.answer(
        {
            "id": request_id(call.request),
            "object": "list",
            "created": int(time.time()),
            "model": embedded.card.id,
            "data": [
                {"index": index, "object": "score", "score": score}
                for index, score in enumerate(scores)
            ],
            "usage": {
                "prompt_tokens": embedded.tokens,
                "total_tokens": embedded.tokens,
                "completion_tokens": 0,
            },
        }
    )


def _group(call: Call, body: VllmScoreBody, names: tuple[str, ...]) -> ItemGroup:
    """The one of these parameters that there is, an item or a list of them."""
    given = [name for name in names if getattr(body, name) is not None]
    if len(given) != 1:
        raise BadRequest(f"Send exactly one of {', '.join(names)}.", param=names[0])
    return call.items(given[0], getattr(body, given[0]), item_of)


DIALECT = Dialect(
    "vllm",
    error=render.error_body,
    error_answer=answers.Error,
    endpoints=tuple(
        post(path, score, "Similarity of pairs", VllmScores, VllmScoreBody)
        for path in ("/v1/score", "/score")
    ),
)
