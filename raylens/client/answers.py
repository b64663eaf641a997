"""Reads the service's answers, and tells them from those of anything else that may answer."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from raylens.client.errors import ApiError
from raylens.client.transport import NUMPY, EmbedOptions, Ranked, Row

_LIMITS = ("max_items", "max_body_bytes", "max_image_bytes")
# With these, a proxy says that it does not reach the service, or not in time.
_GATEWAY = (502, 503, 504)


def rows(response: httpx.Response, options: EmbedOptions, count: int) -> list[Row]:
    """The vectors of `count` items, or their errors."""
    with _ours(response):
        vectors = _array(response.content, NUMPY[options.dtype], count)
        errors = _item_errors(response)
        if not all(0 <= index < count for index in errors):
            raise IndexError
        # A proxy may strip the header: what stands for no vector must not pass for one.
        missing = np.isnan(vectors) if vectors.dtype.kind == "f" else vectors == 0
        if options.dtype != "ubinary":  # whose zeros may be a vector
            for index in np.flatnonzero(missing.reshape(count, -1).all(axis=1)).tolist():
                errors.setdefault(index, _no_vector(response))
    if errors and options.on_error == "fail":
        first = min(errors)
        raise ApiError(
            errors[first].message,
            code=errors[first].code,
            status=response.status_code,
            param=f"input[{first}]",
            request_id=errors[first].request_id,
            items=errors,
        )
    return [errors.get(index, _real(vector)) for index, vector in enumerate(vectors)]


def ranked(response: httpx.Response, count: int, labels: Sequence[str]) -> list[Ranked]:
    """For each of `count` items, all labels."""
    with _ours(response):
        results: list[Ranked] = [
            [(str(entry["label"]), float(entry["probability"])) for entry in item["labels"]]
            for item in response.json()["data"]
        ]
        expected = sorted(labels)
        if len(results) != count or any(
            sorted(label for label, _ in result) != expected for result in results
        ):
            raise ValueError
    return results


def models(response: httpx.Response) -> dict[str, Any]:
    """What GET /v1/models answers."""
    with _ours(response):
        listed: dict[str, Any] = response.json()
        limits = [listed["limits"][name] for name in _LIMITS]
        if not isinstance(listed["data"], list) or not all(
            isinstance(limit, int) and limit > 0 for limit in limits
        ):
            raise ValueError
    return listed


def refusal(response: httpx.Response) -> ApiError | ConnectionError:
    """Why the status is not 200: the service's error, or one about whatever else answered."""
    retry_after = response.headers.get("Retry-After", "")
    retry_after_s = float(retry_after) if retry_after.isdecimal() else None
    try:
        error = response.json()["error"]
        param, request_id = error.get("param"), error.get("request_id")
        items = {
            _index(entry["index"]): ApiError(str(entry["message"]), code=str(entry["code"]))
            for entry in error.get("items") or ()
        }
        return ApiError(
            str(error["message"]),
            code=str(error["code"]),
            status=response.status_code,
            param=None if param is None else str(param),
            request_id=None if request_id is None else str(request_id),
            items=items,
            retry_after_s=retry_after_s,
        )
    except Exception:  # whatever a strange answer makes the parsers raise
        sentence = (
            f"{response.url} answered with status {response.status_code}, and not as raylens does"
        )
    if response.status_code in _GATEWAY:
        return ConnectionError(sentence)
    return ApiError(
        sentence, code="unknown", status=response.status_code, retry_after_s=retry_after_s
    )


def _array(content: bytes, dtype: type[Any], count: int) -> NDArray[Any]:
    """A .npy file of (count, D), or of (count, P, D). It must be as long as its header says before
    that takes memory."""
    file = io.BytesIO(content)
    if npy.read_magic(file) != (1, 0):
        raise ValueError
    shape, is_fortran, its_dtype = npy.read_array_header_1_0(file)
    start = file.tell()
    if is_fortran or its_dtype != np.dtype(dtype) or len(shape) not in (2, 3):
        raise ValueError
    if shape[0] != count or min(shape) < 1:
        raise ValueError
    if math.prod(shape) * its_dtype.itemsize != len(content) - start:
        raise ValueError
    return np.frombuffer(content, its_dtype, offset=start).reshape(shape).copy()


def _real(vector: NDArray[Any]) -> NDArray[Any]:
    """Without what follows a text with fewer vectors than others. In the integer types it stays,
    because zeros may be vectors."""
    if vector.ndim == 1 or vector.dtype.kind != "f":
        return vector
    return vector[: len(vector) - int(np.isnan(vector).all(axis=1).sum())]


def _item_errors(response: httpx.Response) -> dict[int, ApiError]:
    """The errors in X-Item-Errors: one for each item or, where many failed, for each code."""
    request_id = response.headers.get("X-Request-Id")
    errors = {}
    for entry in json.loads(response.headers.get("X-Item-Errors", "[]")):
        message = str(entry.get("message", "Embed it alone to learn more."))
        for index in entry["indices"] if "indices" in entry else [entry["index"]]:
            errors[_index(index)] = ApiError(
                message, code=str(entry["code"]), request_id=request_id
            )
    return errors


def _no_vector(response: httpx.Response) -> ApiError:
    return ApiError(
        f"{response.url} answered without a vector for this item, and without saying why.",
        code="unknown",
        request_id=response.headers.get("X-Request-Id"),
    )


def _index(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value


@contextmanager
def _ours(response: httpx.Response) -> Iterator[None]:
    """Inside, what cannot be read is no answer of raylens."""
    try:
        yield
    except Exception:  # whatever a strange answer makes the parsers raise
        raise ApiError(
            f"What answers at {response.url} is not raylens.",
            code="unknown",
            status=response.status_code,
        ) from None
