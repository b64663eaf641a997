"""Generates /openapi.json: bodies from `schema`, answers from `answers`."""

import functools
import re
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from deployments.api import answers
from deployments.api.endpoint import Dialect, Endpoint
from deployments.api.schema import ITEM_PLACEHOLDER, NULL, EmbeddingOptions
from deployments.items import KEYS, PART_KEYS

Schema = dict[str, Any]

# A single pixel: an example that works wherever it is tried.
SMALLEST_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGOQjb8AAAHpAU1aSKC/AAAAAElFTkSuQmCC"
)

Dialects = tuple[Dialect, ...]


@functools.cache
def openapi(dialects: Dialects) -> Schema:
    """The OpenAPI 3.1 document of these, each under its tag; raylens's own come first."""
    schemas, definitions = _schemas(dialects)
    paths: Schema = {}
    for dialect in dialects:
        for endpoint in dialect.endpoints:
            path = endpoint.path.replace(":path}", "}")
            operation = _operation(endpoint, dialect, schemas)
            paths.setdefault(path, {})[endpoint.method.lower()] = operation
    for path in ("/v1/embeddings", "/embeddings"):
        _add_other_formats(paths[path]["post"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "raylens",
            "version": version("raylens"),
            "description": "Image and text embeddings over HTTP.",
        },
        "tags": [{"name": dialect.name} for dialect in dialects],
        "paths": paths,
        "components": {
            "schemas": {**definitions, "Item": _item()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],  # if the operator has made keys
    }


def _schemas(dialects: Dialects) -> tuple[dict[Any, Schema], Schema]:
    """The schema of each body and answer, mostly a reference, and the definitions referred to."""
    types = {d.error_answer for d in dialects}
    types |= {t for d in dialects for e in d.endpoints for t in (e.body, e.answer) if t is not None}
    found, definitions = TypeAdapter.json_schemas(
        [(t, "validation", TypeAdapter[Any](t)) for t in types],
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


def _operation(endpoint: Endpoint, dialect: Dialect, schemas: dict[Any, Schema]) -> Schema:
    def content(kind: Any, media: str = "application/json") -> Schema:
        return {"content": {media: {"schema": schemas[kind]}}}

    errors = {
        str(dialect.status(status)): {
            "description": ", ".join(sorted(answers.CODES[status])),
            **content(dialect.error_answer),
        }
        for status in endpoint.statuses
    }
    success: Schema = {
        "description": "Success",
        "headers": {"Server-Timing": {"schema": {"type": "string"}}},
    }
    if endpoint.answer is not None:
        success |= content(endpoint.answer)
    operation: Schema = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [dialect.name],
        "responses": {str(endpoint.success): success, **errors},
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            **content(endpoint.body, endpoint.media),
        }
    names = re.findall(r"{(\w+)", endpoint.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    return operation


def _add_other_formats(operation: Schema) -> None:
    """Adds the non-JSON bodies, the options in the query, and the .npy answer."""
    success = operation["responses"]["200"]
    success["content"]["application/x-npy"] = {
        "schema": {
            "description": "One .npy array (N, D), or (N, P, D) of a model that gives P vectors "
            "for each image. Rows of failed items are NaN, or zeros, as is what follows a text "
            "that has fewer vectors than others.",
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
    success["headers"]["X-Truncated-Items"] = {
        "description": "With .npy: the indices of the texts that were truncated, as a list in "
        "JSON; or their number, if that exceeds 4,000 bytes.",
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
