"""The document at /openapi.json: bodies from `schema.py`, answers as `render.py` makes them."""

import functools
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from deployments import errors
from deployments.api.render import error_type
from deployments.api.schema import (
    ITEM_PLACEHOLDER,
    NULL,
    ClassifyBody,
    EmbeddingOptions,
    EmbeddingsBody,
    RankBody,
    SimilarityBody,
)
from deployments.settings import PUBLIC_LIMITS

Schema = dict[str, Any]

NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
STRING: Schema = {"type": "string"}
KEY: Schema = {"type": "http", "scheme": "bearer"}
MODEL: Schema = {"name": "model", "in": "path", "required": True, "schema": STRING}

BODIES = (EmbeddingsBody, SimilarityBody, RankBody, ClassifyBody)

# What every endpoint that embeds items may answer besides 200.
ITEM_STATUSES = (400, 401, 403, 404, 413, 415, 422, 429, 500, 502, 503, 504)
OTHER_STATUSES = (401, 429, 500, 503, 504)


@functools.cache
def openapi() -> Schema:
    """The OpenAPI 3.1 document."""
    _, definitions = models_json_schema(
        [(body, "validation") for body in BODIES], ref_template="#/components/schemas/{model}"
    )
    schemas = {**_with_items(definitions["$defs"]), **_shared_schemas()}
    alive, ready = _object(status=STRING), _object(status=STRING, model=STRING)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "raylens",
            "version": version("raylens"),
            "description": "Image and text embeddings over HTTP.",
        },
        "paths": {
            "/v1/embeddings": {"post": _embeddings()},
            "/v1/similarity": {
                "post": _json_operation(
                    "similarity",
                    "Cosine similarity of two lists of items",
                    "SimilarityBody",
                    _object(scores=_array({"anyOf": [NUMBER, _array(NUMBER)]})),
                )
            },
            "/v1/rank": {
                "post": _json_operation(
                    "rank",
                    "Documents ordered by their similarity to a query",
                    "RankBody",
                    _list(results=_object(index=INTEGER, score=NUMBER)),
                )
            },
            "/v1/classify": {
                "post": _json_operation(
                    "classify",
                    "Probabilities of labels, by models with a text tower",
                    "ClassifyBody",
                    _list(
                        data=_object(
                            index=INTEGER,
                            labels=_array(_object(label=STRING, probability=NUMBER)),
                        )
                    ),
                )
            },
            "/v1/models": {
                "get": _operation("models", "The served models", _ref("ModelList"), OTHER_STATUSES)
            },
            "/v1/models/{model}": {
                "get": _operation("model", "One of them", _ref("Model"), (*OTHER_STATUSES, 404)),
                "parameters": [MODEL],
            },
            "/livez": {"get": _operation("livez", "Is the process up?", alive, (500, 504))},
            "/readyz": {"get": _operation("readyz", "Has it answered?", ready, (500, 503, 504))},
            "/openapi.json": {
                "get": _operation("openapi", "This document", {"type": "object"}, OTHER_STATUSES)
            },
        },
        "components": {"schemas": schemas, "securitySchemes": {"key": KEY}},
        "security": [{}, {"key": []}],  # where the operator has made keys
    }


def _with_items(schema: Any) -> Any:
    if isinstance(schema, dict) and ITEM_PLACEHOLDER.items() <= schema.items():
        return _ref("Item")
    if isinstance(schema, dict):
        return {key: _with_items(value) for key, value in schema.items()}
    return [_with_items(value) for value in schema] if isinstance(schema, list) else schema


def _embeddings() -> Schema:
    operation = _operation(
        "embeddings", "Embed images and texts", _ref("Embeddings"), (*ITEM_STATUSES[:4], 406)
    )
    operation["responses"].update(_error_responses(ITEM_STATUSES))
    operation["responses"]["200"]["content"]["application/x-npy"] = {
        "schema": {
            "description": "One .npy array (N, D); rows of failed items are NaN, or zeros.",
            "type": "string",
            "contentMediaType": "application/x-npy",
        }
    }
    operation["responses"]["200"]["headers"]["X-Item-Errors"] = {
        "description": "With .npy under on_error=report: the item errors as a list in ASCII JSON, "
        "each with index, code and message; without the messages when that is over 8,000 bytes; "
        "and by code, each with its indices, when even that is.",
        "schema": STRING,
    }
    options = EmbeddingOptions.model_json_schema()["properties"]
    for option in options.values():  # a query string and a form have no null
        option |= next(kind for kind in option.pop("anyOf") if kind != NULL)
    image: Schema = {"schema": {"type": "string", "contentMediaType": "image/*"}}
    form = {
        **options,
        "file": _array({"type": "string", "contentMediaType": "application/octet-stream"}),
    }
    operation["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {"schema": _ref("EmbeddingsBody")},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": form, "required": ["file"]}
            },
            "image/*": image,
            "application/octet-stream": image,
        },
    }
    operation["parameters"] = [
        {
            "name": name,
            "in": "query",
            "description": "For any body; what the body says comes first.",
            "schema": schema,
        }
        for name, schema in options.items()
    ]
    return operation


def _json_operation(operation_id: str, summary: str, body: str, answer: Schema) -> Schema:
    operation = _operation(operation_id, summary, answer, ITEM_STATUSES)
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": _ref(body)}},
    }
    return operation


def _operation(
    operation_id: str, summary: str, answer: Schema, statuses: tuple[int, ...]
) -> Schema:
    return {
        "operationId": operation_id,
        "summary": summary,
        "responses": {
            "200": {
                "description": "Success",
                "headers": {"Server-Timing": {"schema": STRING}},
                "content": {"application/json": {"schema": answer}},
            },
            **_error_responses(statuses),
        },
    }


def _error_responses(statuses: tuple[int, ...]) -> Schema:
    return {
        str(status): {
            "description": ", ".join(sorted(_codes()[status])),
            "content": {"application/json": {"schema": _ref("Error")}},
        }
        for status in statuses
    }


@functools.cache
def _codes() -> dict[int, set[str]]:
    codes: dict[int, set[str]] = {}
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.RaylensError):
            codes.setdefault(value.status, set()).add(value.code)
    return codes


def _shared_schemas() -> Schema:
    all_codes = sorted(set().union(*_codes().values()))
    code: Schema = {"type": "string", "enum": all_codes}
    nothing: Schema = {"type": "null"}
    embedding = {
        "description": "Numbers, or base64 under encoding_format=base64.",
        "anyOf": [_array(NUMBER), STRING],
    }
    vector = _object(object={"const": "embedding"}, index=INTEGER, embedding=embedding)
    vector["properties"]["truncated"] = {
        "const": True,
        "description": "Only there when the model could not read all of the text.",
    }
    failed = _object(
        object={"const": "error"},
        index=INTEGER,
        embedding=nothing,
        error=_object(code=code, message=STRING),
    )
    item_error = _object(index=INTEGER, param=STRING, code=code, message=STRING)
    error_body = _object(
        message=STRING,
        type={"enum": sorted({error_type(status) for status in _codes()})},
        param={"anyOf": [STRING, nothing]},
        code=code,
        request_id=STRING,
    )
    error_body["properties"]["items"] = _array(item_error)
    limits = _object(**dict.fromkeys(PUBLIC_LIMITS, INTEGER))
    model = _object(
        id=STRING,
        object={"const": "model"},
        created=INTEGER,
        owned_by=STRING,
        aliases=_array(STRING),
        dimensions=INTEGER,
        image_size={"anyOf": [INTEGER, _array(INTEGER)]},
        max_text_tokens={"anyOf": [INTEGER, nothing]},
        modalities=_array(STRING),
        precision=STRING,
        precision_reason=STRING,
        engine=STRING,
        engine_reason=STRING,
        device=STRING,
        device_reason=STRING,
        revision={"anyOf": [STRING, nothing]},
        matryoshka={"type": "boolean"},
        max_items=INTEGER,
        limits=limits,
    )
    return {
        "Item": _item(),
        "Embeddings": _object(
            **_list(data={"anyOf": [vector, failed]})["properties"],
            usage=_object(
                **dict.fromkeys(
                    ("prompt_tokens", "total_tokens", "images", "texts", "cached"), INTEGER
                )
            ),
        ),
        "Model": model,
        "ModelList": _object(object={"const": "list"}, data=_array(_ref("Model")), limits=limits),
        "Error": _object(error=error_body),
    }


def _item() -> Schema:
    url = _object(url=STRING)
    return {
        "description": "One image or text, in any of these spellings.",
        "anyOf": [
            {"type": "string", "description": "A data URI or http(s) URL; anything else is text."},
            *(
                {"type": "object", "properties": {key: STRING}, "required": [key]}
                for key in ("path", "url", "base64", "image", "text")
            ),
            _object(type={"const": "image_url"}, image_url=url),
            _object(type={"const": "text"}, text=STRING),
        ],
    }


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(**entries: Schema) -> Schema:
    """OpenAI's list object, of one model's answers under one key."""
    lists = {key: _array(entry) for key, entry in entries.items()}
    return _object(object={"const": "list"}, model=STRING, **lists)


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
