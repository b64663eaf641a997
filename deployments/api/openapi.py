"""Generates /openapi.json: bodies from `schema`, answers from `answers`."""

import functools
from importlib.metadata import version
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from deployments.api import answers
from deployments.api.schema import (
    ITEM_PLACEHOLDER,
    NULL,
    Body,
    ClassifyBody,
    EmbeddingOptions,
    EmbeddingsBody,
    RankBody,
    SimilarityBody,
)
from deployments.items import KEYS, PART_KEYS

Schema = dict[str, Any]

# The statuses besides 200 of every endpoint that embeds items.
ITEM_STATUSES = (400, 401, 403, 404, 413, 415, 422, 429, 500, 502, 503, 504)
OTHER_STATUSES = (401, 429, 500, 503, 504)


# A single pixel: an example that works wherever it is tried.
SMALLEST_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGOQjb8AAAHpAU1aSKC/AAAAAElFTkSuQmCC"
)


class Endpoint(NamedTuple):
    method: str
    path: str
    operation_id: str
    summary: str
    body: type[Body] | None
    answer: Any
    statuses: tuple[int, ...]


ENDPOINTS = (
    Endpoint(
        *("post", "/v1/embeddings", "embeddings", "Embed images and texts"),
        *(EmbeddingsBody, answers.Embeddings, (*ITEM_STATUSES, 406)),
    ),
    Endpoint(
        *("post", "/v1/similarity", "similarity", "Cosine similarity of two lists of items"),
        *(SimilarityBody, answers.Similarity, ITEM_STATUSES),
    ),
    Endpoint(
        *("post", "/v1/rank", "rank", "Documents ordered by their similarity to a query"),
        *(RankBody, answers.Rank, ITEM_STATUSES),
    ),
    Endpoint(
        *("post", "/v1/classify", "classify", "Probabilities of labels, by models that read text"),
        *(ClassifyBody, answers.Classification, ITEM_STATUSES),
    ),
    Endpoint(
        *("get", "/v1/models", "models", "The served models"),
        *(None, answers.ModelList, OTHER_STATUSES),
    ),
    Endpoint(
        *("get", "/v1/models/{model}", "model", "One of the served models"),
        *(None, answers.Model, (*OTHER_STATUSES, 404)),
    ),
    Endpoint("get", "/livez", "livez", "Is the process up?", None, answers.Alive, (500, 504)),
    Endpoint(
        *("get", "/readyz", "readyz", "Is the model ready?"),
        *(None, answers.Ready, (500, 503, 504)),
    ),
    Endpoint(
        *("get", "/openapi.json", "openapi", "This document"),
        *(None, dict[str, Any], OTHER_STATUSES),
    ),
)


@functools.cache
def openapi() -> Schema:
    """The OpenAPI 3.1 document."""
    paths: Schema = {}
    for endpoint in ENDPOINTS:
        paths[endpoint.path] = {endpoint.method: _operation(endpoint)}
    _add_other_formats(paths["/v1/embeddings"]["post"])
    paths["/v1/models/{model}"]["parameters"] = [
        {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "raylens",
            "version": version("raylens"),
            "description": "Image and text embeddings over HTTP.",
        },
        "paths": paths,
        "components": {
            "schemas": {**_schemas()[1], "Item": _item()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],  # if the operator has made keys
    }


@functools.cache
def _schemas() -> tuple[dict[Any, Schema], Schema]:
    """The schema of each body and answer, mostly a reference, and the definitions referred to."""
    types = [t for e in ENDPOINTS for t in (e.body, e.answer) if t is not None]
    adapters = {t: TypeAdapter[Any](t) for t in (*types, answers.Error)}
    found, definitions = TypeAdapter.json_schemas(
        [(t, "validation", adapter) for t, adapter in adapters.items()],
        ref_template="#/components/schemas/{model}",
    )
    schemas = {t: schema for (t, _), schema in found.items()}
    return schemas, _with_items(definitions["$defs"])


def _with_items(schema: Any) -> Any:
    if isinstance(schema, dict) and ITEM_PLACEHOLDER.items() <= schema.items():
        return {"$ref": "#/components/schemas/Item"}
    if isinstance(schema, dict):
        return {key: _with_items(value) for key, value in schema.items()}
    return [_with_items(value) for value in schema] if isinstance(schema, list) else schema


def _operation(endpoint: Endpoint) -> Schema:
    operation: Schema = {
        "operationId": endpoint.operation_id,
        "summary": endpoint.summary,
        "responses": {
            "200": {
                "description": "Success",
                "headers": {"Server-Timing": {"schema": {"type": "string"}}},
                "content": _json(endpoint.answer),
            },
            **{
                str(status): {
                    "description": ", ".join(sorted(answers.CODES[status])),
                    "content": _json(answers.Error),
                }
                for status in endpoint.statuses
            },
        },
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(endpoint.body)}
    return operation


def _json(kind: Any) -> Schema:
    return {"application/json": {"schema": _schemas()[0][kind]}}


def _add_other_formats(operation: Schema) -> None:
    """Adds the non-JSON bodies, the options in the query, and the .npy answer."""
    success = operation["responses"]["200"]
    success["content"]["application/x-npy"] = {
        "schema": {
            "description": "One .npy array (N, D); rows of failed items are NaN, or zeros.",
            "type": "string",
            "contentMediaType": "application/x-npy",
        }
    }
    success["headers"]["X-Item-Errors"] = {
        "description": "With .npy under on_error=report: the item errors as a list in ASCII JSON, "
        "each with index, code and message; without messages if that exceeds 8,000 bytes; and as "
        "a list of codes, each with its indices, or with the number of items, if that does too.",
        "schema": {"type": "string"},
    }
    options = EmbeddingOptions.model_json_schema()["properties"]
    for option in options.values():  # a query string and a form have no null
        option |= next(kind for kind in option.pop("anyOf") if kind != NULL)
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {
        "type": "object",
        "properties": {**options, "file": {"type": "array", "items": file}},
        "required": ["file"],
    }
    image: Schema = {"schema": {"type": "string", "contentMediaType": "image/*"}}
    operation["requestBody"]["content"] |= {
        "multipart/form-data": {"schema": form},
        "image/*": image,
        "application/octet-stream": image,
    }
    operation["parameters"] = [
        {
            "name": name,
            "in": "query",
            "description": "For any body; the body's own options take precedence.",
            "schema": schema,
        }
        for name, schema in options.items()
    ]


def _item() -> Schema:
    text: Schema = {"type": "string"}

    def object_of(**properties: Schema) -> Schema:
        return {"type": "object", "properties": properties, "required": list(properties)}

    return {
        "description": "One image or text, in any of these spellings.",
        "examples": [{"base64": SMALLEST_PNG}],
        "anyOf": [
            {
                "type": "string",
                "description": "A data URI, an http(s) URL or base64 of an image; anything else is "
                "text.",
            },
            *(object_of(**{key: text}) for key in KEYS),
            object_of(image_url=object_of(url=text)),
            *(object_of(type={"const": kind}, **{key: text}) for kind, key in PART_KEYS.items()),
            object_of(type={"const": "image_url"}, image_url=object_of(url=text)),
        ],
    }
