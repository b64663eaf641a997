"""raylens's own endpoints. Each parses its body, asks the service and answers."""

import asyncio
import dataclasses
from typing import Any

import numpy as np
from starlette.responses import Response

from deployments.api import answers, render
from deployments.api.bodies import is_image, is_json, media_type, preferred_format, read_form
from deployments.api.call import Call
from deployments.api.dialects import spoken
from deployments.api.dialects.lookalikes import EmbeddingsBody, refuse_others_words, words_for
from deployments.api.endpoint import Dialect, get, post, probe
from deployments.api.listing import model_entry, model_list
from deployments.api.openapi import openapi
from deployments.api.schema import (
    ClassifyBody,
    EmbeddingOptions,
    Encoding,
    RankBody,
    SimilarityBody,
    parse,
    without_empty,
)
from deployments.errors import BadRequest, UnsupportedMediaType
from deployments.items import BytesItem, signature_of
from deployments.service.classify import Classifier
from deployments.service.job import ItemGroup, Options
from deployments.service.vectors import as_rows, cosines, maxsim_ranking, ranking


async def embeddings(call: Call) -> Response:
    preferred = preferred_format(call.request)
    asked, group = await _embedding_input(call)
    encoding = asked.encoding()
    if preferred == "npy" and isinstance(encoding, dict):
        raise BadRequest("A .npy array has one embedding_type only.", param="embedding_type")
    takes = render.number_bytes(encoding, as_npy=preferred == "npy")
    options = dataclasses.replace(asked.options(), number_bytes=takes)
    embedded = await call.embed([group], asked.model, options)
    card = embedded.card
    if preferred == "npy" and isinstance(encoding, Encoding):
        vector = (asked.dimensions or card.dimensions,)
        # One for each token of a text, if there are no images; a failed item has none.
        several = 1 if card.score == "maxsim" else card.vectors_per_image
        shape = (several, *vector) if several and card.vectors_per_image else vector
        return render.embeddings_npy(embedded, shape, encoding.dtype)
    return render.embeddings_json(embedded, encoding)


async def _embedding_input(call: Call) -> tuple[EmbeddingOptions, ItemGroup]:
    kind = media_type(call.request)
    # Options in the query apply to any body; the body's own take precedence.
    asked = _options(dict(call.request.query_params))
    query = asked.model_dump(exclude_unset=True)
    if kind == "multipart/form-data":
        fields, files = await read_form(call.request, call.limits)
        if not files:
            raise BadRequest("The form has no file; send at least one in a field named file.")
        options = _options({**query, **without_empty(fields)})
        return options, ItemGroup("file", [BytesItem(f) for f in files])
    if not (is_image(kind) or is_json(kind)):
        raise UnsupportedMediaType(
            "Send application/json, multipart/form-data or the image itself as image/*, with "
            "the header Content-Type."
        )
    data = await call.raw()
    if is_image(kind) or (not kind and signature_of(data) is not None):
        return asked, ItemGroup("input", [BytesItem(data)], is_list=False)
    content = await call.parsed(data)
    for name, value in query.items():
        if all(content.get(word) is None for word in words_for(name)):
            content[name] = value
    body = parse(EmbeddingsBody, content)
    return body, body.group(call)


def _options(strings: dict[str, Any]) -> EmbeddingOptions:
    """Of a query string or a form."""
    refuse_others_words(strings)
    return parse(EmbeddingOptions, strings, strict=False)


async def similarity(call: Call) -> Response:
    body = await call.body(SimilarityBody)
    groups = [call.items("a", body.a), call.items("b", body.b)]
    (a, b), _ = await call.vectors(groups, body.model, Options(truncate=body.truncate))
    scores = (a @ b.T).clip(-1, 1) if body.mode == "matrix" else cosines(a, b)
    return call.answer({"scores": scores})


async def rank(call: Call) -> Response:
    body = await call.body(RankBody)
    documents = call.items("documents", body.documents)
    query = call.item("query", body.query)
    score = call.service.model(body.model).card.score
    if body.score is not None and body.score != score:
        raise BadRequest(
            f"This model's items are compared by {score}; leave score out."
            if score is not None
            else "This model's vectors are of patches, and no score compares items by them.",
            param="score",
        )
    options = Options(truncate=body.truncate, several=score == "maxsim")
    embedded = await call.embed([query, documents], body.model, options)
    target, *others = as_rows(embedded.rows)
    if embedded.card.score == "maxsim":  # in a thread, because images have a thousand vectors each
        ranks = await asyncio.to_thread(maxsim_ranking, target, others)
    else:
        ranks = ranking(target, np.stack(others))
    results = [{"index": index, "score": score} for index, score in ranks[: body.top_n]]
    return call.answer({"object": "list", "model": embedded.card.id, "results": results})


async def classify(call: Call) -> Response:
    body = await call.body(ClassifyBody)
    group = call.items("input", body.input)
    context, options = call.context(body.model), Options(truncate=body.truncate)
    rows, card, timing = await Classifier(call.service).classify(
        group, body.labels, body.template, context, options
    )
    call.took(timing)
    # In a thread: half a million labels and more would block the event loop.
    return await asyncio.to_thread(render.labels_json, rows, body.labels, card.id)


async def models(call: Call) -> Response:
    return call.answer(model_list(call.service))


async def one_model(call: Call) -> Response:
    model = call.service.model(call.request.path_params["model"])
    return call.answer(model_entry(model.card, call.limits))


async def livez(call: Call) -> Response:
    return call.answer({"status": "ok"})


async def readyz(call: Call) -> Response:
    cards = await call.service.ready()
    return call.answer({"status": "ready", "model": cards[0].id})


async def document(call: Call) -> Response:
    return call.answer(openapi((NATIVE, *spoken(call.service.settings.api))))


NATIVE = Dialect(
    "raylens",
    error=render.error_body,
    error_answer=answers.Error,
    endpoints=(
        *(
            # The second is infinity's.
            post(
                path,
                embeddings,
                "Embed images and texts",
                answers.Embeddings,
                EmbeddingsBody,
                statuses=(406,),
            )
            for path in ("/v1/embeddings", "/embeddings")
        ),
        post(
            "/v1/similarity",
            similarity,
            "Cosine similarity of two lists of items",
            answers.Similarity,
            SimilarityBody,
        ),
        post(
            "/v1/rank",
            rank,
            "Documents ordered by their similarity to a query",
            answers.Rank,
            RankBody,
        ),
        post(
            "/v1/classify",
            classify,
            "Probabilities of labels, by models that read text",
            answers.Classification,
            ClassifyBody,
        ),
        get("/v1/models", models, "The served models", answers.ModelList),
        get(
            "/v1/models/{model:path}",
            one_model,
            "One of the served models",
            answers.Model,
            statuses=(404,),
        ),
        probe("/livez", livez, "Is the process up?", answers.Alive),
        probe("/readyz", readyz, "Is the model ready?", answers.Ready),
        get("/openapi.json", document, "This document", dict[str, Any]),
    ),
)
