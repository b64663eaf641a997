"""Serialises answers: JSON, .npy and errors."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.api.answers import error_type
from deployments.api.schema import Encoding, VectorType
from deployments.errors import RaylensError
from deployments.service.embedding import Embedded
from deployments.service.vectors import as_matrix
from deployments.wire import Vector

# Some clients (aiohttp) refuse header lines of more than 8,190 bytes. HAProxy by default refuses
# answers with more than 15 KB of headers.
MAX_ERROR_HEADER_BYTES = 8000
MAX_TRUNCATED_HEADER_BYTES = 4000

PIECE_BYTES = 256 * 1024

# Of a number in JSON, with the comma.
FLOAT_DIGITS, INTEGER_DIGITS = 13, 5


class Answer(Response):
    """Sends a large body in pieces, at the client's pace: the server would otherwise buffer all
    of it for a client that reads slowly or never."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = memoryview(self.body)
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        for start in range(0, max(len(body), 1), PIECE_BYTES):
            end = start + PIECE_BYTES
            piece = bytes(body[start:end])
            await send({"type": "http.response.body", "body": piece, "more_body": end < len(body)})


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Answer(
        orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )


def quantised(vectors: NDArray[np.float32], dtype: VectorType) -> NDArray[Any]:
    """(…, D) float32 to (…, D) of `dtype`, or (…, ceil(D/8)) bytes for `ubinary` and `binary`.

    `uint8` is `int8` + 128, and `binary` is `ubinary` - 128, as Cohere, Jina and Voyage define it.
    """
    if dtype == "float16":
        return vectors.astype("<f2")
    if dtype == "int8":
        return np.rint(vectors * 127).astype(np.int8)
    if dtype == "uint8":
        return (np.rint(vectors * 127) + 128).astype(np.uint8)
    if dtype == "ubinary":
        return np.packbits(vectors > 0, axis=-1)
    if dtype == "binary":
        return (np.packbits(vectors > 0, axis=-1) ^ 0x80).view(np.int8)
    return vectors.astype("<f4", copy=False)


def written(
    vectors: NDArray[np.float32], encoding: Encoding | Mapping[str, Encoding]
) -> Sequence[Any] | NDArray[Any]:
    """What JSON has for each row of (N, D) or (N, P, D): an array, base64 or, by type, an object of
    them."""
    if not isinstance(encoding, Encoding):
        by_type = {name: written(vectors, one) for name, one in encoding.items()}
        return [dict(zip(by_type, row, strict=True)) for row in zip(*by_type.values(), strict=True)]
    array = quantised(vectors, encoding.dtype)
    return [pybase64.b64encode(row).decode() for row in array] if encoding.is_base64 else array


def embeddings_json(embedded: Embedded, encoding: Encoding | Mapping[str, Encoding]) -> Response:
    good = [row for row in embedded.rows if not isinstance(row, RaylensError)]
    if embedded.card.vectors_per_image is None:
        kind, values = "embedding", iter(written(np.stack(good), encoding) if good else ())
    else:  # texts may have fewer than others
        kind = "multi_embedding"
        values = (value for row in good for value in written(row[None], encoding))
    data: list[dict[str, Any]] = []
    for index, row in enumerate(embedded.rows):
        if isinstance(row, RaylensError):
            error = {"code": row.code, "message": row.message}
            data.append({"object": "error", "index": index, "embedding": None, "error": error})
        else:
            entry = {"object": kind, "index": index, "embedding": next(values)}
            if row.ndim == 2:
                entry["shape"] = row.shape
            if index in embedded.truncated:
                entry["truncated"] = True
            data.append(entry)
    usage = {
        "prompt_tokens": embedded.tokens,
        "total_tokens": embedded.tokens,
        "images": len(good) - embedded.texts,
        "texts": embedded.texts,
        "cached": embedded.cached,
    }
    return json_response(
        {"object": "list", "model": embedded.card.id, "data": data, "usage": usage}
    )


def number_bytes(encoding: Encoding | Mapping[str, Encoding], *, as_npy: bool) -> float:
    """About how many bytes a number of a vector takes in an answer."""
    if not isinstance(encoding, Encoding):
        return sum(number_bytes(one, as_npy=False) for one in encoding.values())
    array = quantised(np.zeros(8, np.float32), encoding.dtype)
    is_float = array.dtype.kind == "f"
    if as_npy or encoding.is_base64:
        return array.nbytes / 8 * (1 if as_npy else 4 / 3)
    return array.size / 8 * (FLOAT_DIGITS if is_float else INTEGER_DIGITS)


def embeddings_npy(embedded: Embedded, shape: tuple[int, ...], dtype: VectorType) -> Response:
    """One array (N, D) or (N, P, D). A failed item, which would have this shape, is NaN, or zeros
    in the integer types; so is what stands behind a text that has fewer vectors than others."""
    rows = embedded.rows
    failed = [isinstance(row, RaylensError) for row in rows]
    blank = np.zeros(shape, np.float32)
    vectors = [blank if isinstance(row, RaylensError) else row for row in rows]
    array = quantised(as_matrix(vectors), dtype)
    nothing = np.nan if np.issubdtype(array.dtype, np.floating) else 0
    array[failed] = nothing
    if array.ndim == 3:
        for places, row in zip(array, vectors, strict=True):
            places[len(row) :] = nothing
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    headers = {}
    if any(failed):
        headers["X-Item-Errors"] = item_errors_header(rows)
    if embedded.truncated:
        which = json.dumps(sorted(embedded.truncated))
        fits = len(which) <= MAX_TRUNCATED_HEADER_BYTES
        headers["X-Truncated-Items"] = which if fits else str(len(embedded.truncated))
    return Answer(buffer.getvalue(), media_type="application/x-npy", headers=headers)


def item_errors_header(rows: Sequence[Vector | RaylensError]) -> str:
    """The item errors as a list in ASCII JSON that fits into a header: an entry for each item, with
    or without its message, or else an entry for each code, with its indices or their number. The
    rows of the array tell which failed."""
    bad = [(index, row) for index, row in enumerate(rows) if isinstance(row, RaylensError)]
    by_code: dict[str, list[int]] = {}
    for index, error in bad:
        by_code.setdefault(error.code, []).append(index)
    for content in (
        [{"index": i, "code": e.code, "message": e.message} for i, e in bad],
        [{"index": i, "code": e.code} for i, e in bad],
        [{"code": code, "indices": which} for code, which in by_code.items()],
    ):
        text = json.dumps(content)
        if len(text) <= MAX_ERROR_HEADER_BYTES:
            return text
    return json.dumps([{"code": code, "number": len(which)} for code, which in by_code.items()])


def ranked_labels(
    rows: NDArray[np.float32], labels: Sequence[str]
) -> Iterator[list[tuple[str, float]]]:
    """(items, labels) probabilities as labels with theirs, the best of each item first."""
    for row in rows:
        yield [(labels[i], float(row[i])) for i in np.argsort(-row, kind="stable")]


def labels_json(rows: NDArray[np.float32], labels: Sequence[str], model: str) -> Response:
    data = [
        {
            "index": index,
            "labels": [{"label": label, "probability": probability} for label, probability in row],
        }
        for index, row in enumerate(ranked_labels(rows, labels))
    ]
    return json_response({"object": "list", "model": model, "data": data})


def error_body(error: RaylensError, request_id: str) -> dict[str, Any]:
    """`detail` and `message` are for clients of other services, which show one of them."""
    details: dict[str, Any] = {
        "message": error.message,
        "type": error_type(error.status),
        "param": error.param,
        "code": error.code,
        "request_id": request_id,
    }
    if error.items:
        details["items"] = [
            {"index": index, "param": item.param, "code": item.code, "message": item.message}
            for index, item in error.items
        ]
    return {"error": details, "detail": error.message, "message": error.message}
