"""Bodies are unpacked as headers say, within bounds; words that are no coding mean nothing."""

import gzip
import zlib
from functools import partial

import pytest

from deployments.errors import FetchBadGateway, ImageTooLarge, RaylensError
from deployments.sources.encodings import TooManyBytesError, Unpacker
from deployments.sources.fetch import Fetcher
from tests.sources.origins import CAP, OK, Origin, answer

# Without the time of day, which would be in the names of tests.
gzipped = partial(gzip.compress, mtime=0)
PACKED = gzipped(b"pixels")
RAW = zlib.compressobj(wbits=-15)
RAW_DEFLATE = RAW.compress(b"pixels") + RAW.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", PACKED),
        ("x-gzip", PACKED),
        ("X-GZip", PACKED),
        ("deflate", zlib.compress(b"pixels")),
        ("deflate", RAW_DEFLATE),
        ("gzip, gzip", gzipped(PACKED)),
        ("deflate, gzip", gzipped(RAW_DEFLATE)),
        ("gzip, identity", PACKED),
        ("gzip,", PACKED),
        ("gzip", gzipped(b"pix") + gzipped(b"els")),
        ("x-gzip", gzipped(b"pix") + gzipped(b"els")),
        ("gzip", PACKED + bytes(9)),
        ("x-gzip", PACKED + b"\r\n"),
        ("aws-chunked", b"pixels"),
        ("none", b"pixels"),
        ("utf-8", b"pixels"),
        ("", b"pixels"),
    ],
)
async def test_content_encodings_are_undone_and_unknown_ones_mean_nothing(
    encoding: str, body: bytes, fetcher: Fetcher, origin: Origin
) -> None:
    origin.answers["/"] = answer(body, Content_Encoding=encoding)
    assert await fetcher.download(origin.url()) == b"pixels"


async def test_codings_in_several_headers_are_undone(fetcher: Fetcher, origin: Origin) -> None:
    body = gzipped(PACKED)
    headers = b"Content-Encoding: gzip\r\n" * 2
    origin.answers["/"] = OK + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert await fetcher.download(origin.url()) == b"pixels"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_bytes_may_come_in_pieces(size: int) -> None:
    body = gzipped(gzipped(b"pix") + gzipped(b"els")) + b"\x1f"
    unpacker = Unpacker(["gzip, x-gzip"], most=100)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert b"".join(map(unpacker.unpack, pieces)) == b"pixels"
    unpacker.end()


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "br"])
async def test_an_empty_body_needs_no_unpacking(
    encoding: str, fetcher: Fetcher, origin: Origin
) -> None:
    origin.answers["/from"] = answer(b"", "302 Found", Location="/", Content_Encoding=encoding)
    assert await fetcher.download(origin.url("/from")) == b"pixels"
    if encoding != "br":
        origin.answers["/"] = answer(b"", Content_Encoding=encoding)
        assert await fetcher.download(origin.url()) == b""


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("x-gzip", gzipped(bytes(2 * CAP)), ImageTooLarge),
        ("gzip", gzipped(bytes(2 * CAP)), ImageTooLarge),
        ("gzip, gzip", gzipped(gzipped(bytes(2 * CAP))), ImageTooLarge),
        ("gzip", gzipped(bytes(CAP)) + gzipped(b"1"), ImageTooLarge),
        ("deflate", zlib.compress(bytes(2 * CAP)), ImageTooLarge),
        ("gzip", PACKED[:-9], FetchBadGateway),
        ("x-gzip", PACKED[:-9], FetchBadGateway),
        ("deflate", RAW_DEFLATE[:-1], FetchBadGateway),
        ("gzip", PACKED + PACKED[:-1], FetchBadGateway),
        ("gzip", b"no gzip", FetchBadGateway),
        ("br", b"\x0b\x02\x80pixels\x03", FetchBadGateway),
        ("gzip, gzip, gzip, gzip", PACKED, FetchBadGateway),
    ],
)
async def test_a_body_that_is_too_large_or_cannot_be_unpacked_is_refused(
    encoding: str, body: bytes, error: type[RaylensError], fetcher: Fetcher, origin: Origin
) -> None:
    origin.answers["/"] = answer(body, Content_Encoding=encoding)
    with pytest.raises(error):
        await fetcher.download(origin.url())


def test_a_crowd_of_empty_members_is_refused_at_once() -> None:
    unpacker = Unpacker(["gzip, gzip"], most=20_000_000)
    with pytest.raises(zlib.error, match="too many members"):
        unpacker.unpack(gzipped(gzipped(b"") * 100_000))


def test_what_follows_a_deflate_stream_does_not_count() -> None:
    unpacker = Unpacker(["deflate"], most=1000)
    assert unpacker.unpack(zlib.compress(b"pixels") + b"x") == b"pixels"
    assert unpacker.unpack(bytes(1_000_000)) == b""
    unpacker.end()


def test_each_layer_of_a_bomb_is_bounded() -> None:
    unpacker = Unpacker(["gzip, gzip"], most=1000)
    bomb = gzipped(gzipped(bytes(10_000_000)))
    with pytest.raises(TooManyBytesError):
        unpacker.unpack(bomb)
