"""Reads request bodies, bounded: bytes, JSON and forms. Negotiates the format of the answer."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import numpy as np
import orjson
from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from deployments.errors import (
    BadRequest,
    BodyTooLarge,
    NotAcceptable,
    TooManyItems,
    UnsupportedMediaType,
)
from deployments.settings import Limits

MAX_FORM_FIELDS = 32

# Other words in Content-Encoding mean nothing; object stores keep them as metadata.
CODINGS = frozenset({"br", "compress", "deflate", "gzip", "x-compress", "x-gzip", "zstd"})

# Parsed in less than a millisecond. Parsing a larger body blocks all other requests, so only one is
# parsed at a time, least-served tenant first.
QUICK_JSON_BYTES = 64 * 1024
# However short, each JSON value takes up to 100 bytes of memory, and each object key a microsecond
# in which all other requests wait.
MAX_COMMAS = 1_000_000
MAX_KEYS = 100_000
# How much is counted at a time; it takes a few arrays of this size.
COUNTED_BYTES = 256 * 1024
# What the form parser gets at a time: a megabyte of near-boundaries can take it 0.2 s.
FORM_PIECE_BYTES = 64 * 1024

# Repairing this much takes a few milliseconds, in which all other requests wait.
MAX_REPAIRED_BYTES = 1024 * 1024
MAX_REPAIRED_SURROGATES = 10_000
# Some of Python's 100 or so others may make the parser take more than quadratic time.
FORM_CHARSETS = (b"utf-8", b"utf8", b"us-ascii", b"iso-8859-1")
# In a JSON string, an escaped surrogate pair or half of one (group 1). Beginning with a literal
# makes the search ten times as fast.
_SURROGATES = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|([89a-fA-F][0-9a-fA-F]{2}))"
)


class _InMemoryParser(MultiPartParser):
    # The body is bounded and in memory already, so parts need not be spooled to disk.
    spool_max_size = 2**31
    file_field = b"file"
    ended = False

    def on_headers_finished(self) -> None:
        # A file may come without a file name, or with an encoded one only (RFC 7578, 4.2);
        # Starlette would treat it as a text field.
        part = self._current_part
        disposition = part.content_disposition or b""
        _, options = parse_options_header(disposition)
        if options.get(b"name") == self.file_field and not options.get(b"filename"):
            name = b"file" if b"filename*" in disposition.lower() else b""
            part.content_disposition = b'form-data; name="%s"; filename="%s"' % (
                *(self.file_field, name),
            )
        super().on_headers_finished()

    def on_end(self) -> None:
        self.ended = True


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body, chunked or not; never holds more than `max_bytes` and a chunk.

    Raises BodyTooLarge, if possible by Content-Length before anything is read, and
    UnsupportedMediaType for a compressed body.
    """
    codings = request.headers.get("content-encoding", "").lower().split(",")
    if CODINGS.intersection(coding.strip() for coding in codings):
        raise UnsupportedMediaType("Send the body uncompressed, without Content-Encoding.")
    declared = request.headers.get("content-length", "")
    chunks: list[bytes] = []
    size = int(declared) if declared.isascii() and declared.isdigit() else 0
    if size <= max_bytes:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                break
            chunks.append(chunk)
    if size > max_bytes:
        raise BodyTooLarge(f"The body is larger than {max_bytes} bytes; split the request.")
    return b"".join(chunks)


async def read_json(
    request: Request, max_bytes: int, turn: AbstractAsyncContextManager[None]
) -> dict[str, Any]:
    """The body as a JSON object. A large one is parsed within `turn`.

    Raises BadRequest, UnsupportedMediaType or BodyTooLarge.
    """
    if not is_json(media_type(request)):
        raise UnsupportedMediaType("Send JSON, with the header Content-Type: application/json.")
    return await parse_json(await read_body(request, max_bytes), turn)


async def parse_json(body: bytes, turn: AbstractAsyncContextManager[None]) -> dict[str, Any]:
    """A body as a JSON object. A large one is parsed within `turn`.

    Raises BadRequest or BodyTooLarge.
    """
    if len(body) <= QUICK_JSON_BYTES:
        return _parsed(body)
    async with turn:
        if _are_too_many(body.count(b","), min(body.count(b":"), body.count(b'"') // 2)):
            # Perhaps because of what stands in texts.
            commas, colons = await asyncio.to_thread(outside_strings, body)
            if _are_too_many(commas, colons):
                raise BodyTooLarge("The body has too many values; split the request.")
        return _parsed(body)


def _are_too_many(commas: int, keys: int) -> bool:
    return commas > MAX_COMMAS or keys > MAX_KEYS


def outside_strings(body: bytes) -> tuple[int, int]:
    """The commas and the colons of JSON outside of its strings. In invalid JSON, only the counts up
    to the error are right; parsers stop there, too."""
    commas = colons = start = 0
    in_string = np.False_
    while start < len(body):
        # Pairs go first, from the left: a backslash that remains escapes what follows it.
        piece = body[start : start + COUNTED_BYTES].replace(b"\\\\", b"")
        start += COUNTED_BYTES + piece.endswith(b"\\")  # what that one escapes is no quote
        codes = np.frombuffer(piece.replace(b'\\"', b""), np.uint8)
        if len(codes):
            inside = np.logical_xor.accumulate(codes == ord('"')) ^ in_string
            commas += int(np.count_nonzero((codes == ord(",")) & ~inside))
            colons += int(np.count_nonzero((codes == ord(":")) & ~inside))
            in_string = inside[-1]
    return commas, colons


def _parsed(body: bytes) -> dict[str, Any]:
    body = body.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
    try:
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            if len(body) > MAX_REPAIRED_BYTES:
                raise
            content = orjson.loads(_without_lone_surrogates(body))
    except orjson.JSONDecodeError as error:
        raise BadRequest(_why_not_json(body, error)) from None
    if not isinstance(content, dict):
        raise BadRequest("The body must be a JSON object.")
    return content


def _why_not_json(body: bytes, error: orjson.JSONDecodeError) -> str:
    if not body.strip():
        return "The body is empty; send a JSON object, or an image with its Content-Type."
    if body.startswith(b"--"):
        return "The body looks like a form, but its Content-Type is not multipart/form-data."
    try:
        body.decode()
    except UnicodeDecodeError as not_utf8:
        return f"The body is not UTF-8 (at byte {not_utf8.start}), as JSON must be."
    return f"The body is not valid JSON (line {error.lineno}, column {error.colno})."


def _without_lone_surrogates(body: bytes) -> bytes:
    """JSON with U+FFFD for each lone surrogate, as browsers read it. JavaScript and Python escape
    one when a text was cut in the middle of an emoji; orjson refuses it.
    """
    many = body.count(b"\\ud") + body.count(b"\\uD") > MAX_REPAIRED_SURROGATES
    if many or b"\0" in body:  # NUL is invalid in JSON, and a placeholder below
        return body
    # An escaped backslash does not begin another escape.
    masked = body.replace(b"\\\\", b"\0")
    repaired = _SURROGATES.sub(lambda match: b"\\ufffd" if match[1] else match[0], masked)
    return repaired.replace(b"\0", b"\\\\")


async def read_form(
    request: Request, limits: Limits, *, file: str = "file"
) -> tuple[dict[str, str], list[bytes]]:
    """A multipart body as its text fields and its files, which are in fields named `file`. There
    may be none.

    Raises BadRequest, BodyTooLarge, TooManyItems or UnsupportedMediaType.
    """
    _, options = parse_options_header(request.headers.get("content-type"))
    if options.get(b"charset", b"utf-8").lower() not in FORM_CHARSETS:
        raise UnsupportedMediaType("Send the form in UTF-8, without another charset.")
    if not options.get(b"boundary"):
        raise BadRequest(
            "The Content-Type has no boundary. Leave the header to the client that makes the form."
        )
    body = await read_body(request, limits.max_body_bytes)

    async def stream() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), FORM_PIECE_BYTES):
            yield body[start : start + FORM_PIECE_BYTES]
            await asyncio.sleep(0)  # other requests get a turn
        if not parser.ended:  # the parser silently drops an unfinished part
            raise BadRequest("The multipart body is cut short; its closing boundary is missing.")

    parser = _InMemoryParser(
        request.headers, stream(), max_files=limits.max_items, max_fields=MAX_FORM_FIELDS
    )
    parser.file_field = file.encode()
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise TooManyItems(
                f"One request may have {limits.max_items} files; split the request.", param=file
            ) from None
        if error.message.startswith(("Too many fields", "Part exceeded")):
            raise BadRequest(
                f"The form has more than {MAX_FORM_FIELDS} fields besides its files, or a field "
                "of more than 1 MiB."
            ) from None
        raise BadRequest("The multipart body is malformed.") from None
    except (LookupError, ValueError):  # which odd headers make the parser raise
        raise BadRequest("The multipart body is malformed.") from None
    fields: dict[str, str] = {}
    files: list[bytes] = []
    try:
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields[name] = value
            elif name == file:
                data = await value.read()
                if data or value.filename:  # otherwise a file input that was left empty
                    files.append(data)
            else:
                raise BadRequest(f"Files go into form fields named {file}.", param=file)
    finally:
        await form.close()
    return fields, files


def is_json(kind: str) -> bool:
    """Whether a media type is JSON; a missing one counts as JSON."""
    return kind in ("", "application/json", "text/json") or kind.endswith("+json")


def is_image(kind: str) -> bool:
    """Whether a media type is an image's, or any bytes'; binary/octet-stream is S3's default."""
    return kind.startswith("image/") or kind in ("application/octet-stream", "binary/octet-stream")


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def preferred_format(request: Request) -> Literal["json", "npy"]:
    """What the Accept header prefers. Raises NotAcceptable if it accepts neither."""
    accept = ",".join(request.headers.getlist("accept"))
    # Empty elements of a list mean nothing (RFC 9110, 5.6.1.2).
    parts = [part for part in accept.split(",") if part.strip()] or ["*/*"]
    ranges = dict(_media_range(part) for part in parts)
    best = max(_preference(ranges, "application/json"), _preference(ranges, "application/x-npy"))
    if best[0] <= 0:
        raise NotAcceptable("Answers are application/json or application/x-npy.")
    return "json" if best == _preference(ranges, "application/json") else "npy"


def _media_range(part: str) -> tuple[str, float]:
    kind, *parameters = (p.strip().lower() for p in part.split(";"))
    kind = "*/*" if kind == "*" else kind  # as Java's HttpURLConnection writes it
    for parameter in parameters:
        if parameter.startswith("q="):
            quality = re.fullmatch(r"0?\.\d+|0\.?|1(\.0*)?", parameter[2:].strip())
            return kind, float(quality[0]) if quality else 0.0
    return kind, 1.0


def _preference(ranges: dict[str, float], kind: str) -> tuple[float, int]:
    """Quality and specificity of the most specific range for `kind` (RFC 9110, 12.5.1)."""
    matching = (kind, "application/*", "*/*")
    for breadth, name in enumerate(matching):
        if name in ranges:
            return ranges[name], -breadth
    return 0.0, 0
