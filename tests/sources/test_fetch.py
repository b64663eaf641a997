"""A download is the body, the request reveals little, and redirects are followed with care."""

import asyncio
import socket

import pytest

from deployments.errors import (
    FetchBadGateway,
    FetchFailed,
    UrlForbidden,
)
from deployments.settings import Fetch
from deployments.sources.fetch import Fetcher
from tests.sources.origins import OK, Names, Origin, answer, fetching, redirect

# Ordinary downloads


async def test_a_download_is_the_body(fetcher: Fetcher, origin: Origin) -> None:
    assert await fetcher.download(origin.url()) == b"pixels"


async def test_an_empty_body_is_no_bytes(fetcher: Fetcher, origin: Origin) -> None:
    origin.answers["/"] = answer(b"")
    assert await fetcher.download(origin.url()) == b""


async def test_chunked_and_unbounded_bodies_are_read_to_their_end(
    fetcher: Fetcher, origin: Origin
) -> None:
    origin.answers["/"] = (
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\npix\r\n3\r\nels\r\n0\r\n\r\n"
    )
    assert await fetcher.download(origin.url()) == b"pixels"

    async def until_closed(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\npixels")

    origin.answers["/"] = until_closed
    assert await fetcher.download(origin.url()) == b"pixels"


async def test_one_connection_serves_many_downloads(fetcher: Fetcher, origin: Origin) -> None:
    for _ in range(5):
        await fetcher.download(origin.url())
    assert origin.connections == 1


async def test_the_request_tells_who_asks_and_nothing_else(origin: Origin) -> None:
    origin.answers["/"] = answer(Set_Cookie="id=1")
    origin.answers["/from"] = redirect("/")
    # By name, because cookie jars keep nothing for IP addresses.
    async with fetching(origin, resolver=Names(origin_test=[["127.0.0.1"]])) as fetcher:
        await fetcher.download(origin.url("/from#part", "origin.test"))
        await fetcher.download(origin.url("/", "origin.test"))
    assert len(origin.requests) == 3
    assert origin.requests[0].startswith("GET /from HTTP/1.1\r\n")
    for request in origin.requests:
        names = {line.split(":")[0].lower() for line in request.split("\r\n")[1:] if line}
        assert names <= {"host", "user-agent", "accept", "accept-encoding"}
        assert "User-Agent: raylens/" in request
        assert "Accept: image/*" in request


async def test_proxies_of_the_environment_are_not_used(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with fetching(origin) as fetcher:
        assert await fetcher.download(origin.url()) == b"pixels"


async def test_a_fetcher_that_is_not_started_says_so(origin: Origin) -> None:
    with pytest.raises(RuntimeError):
        await Fetcher(Fetch(allow_ports=(origin.port,)), max_bytes=1).download(origin.url())


async def test_a_fetcher_can_be_closed_twice_and_started_again(origin: Origin) -> None:
    async with fetching(origin) as fetcher:
        await fetcher.close()
        await fetcher.close()
        await fetcher.start()
        assert await fetcher.download(origin.url()) == b"pixels"


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(status: int, fetcher: Fetcher, origin: Origin) -> None:
    origin.answers["/a"] = redirect("/b", f"{status} Over There")
    origin.answers["/b"] = redirect(origin.url("/c?d=e"))
    origin.answers["/c?d=e"] = redirect(f"//127.0.0.1:{origin.port}/")
    assert await fetcher.download(origin.url("/a")) == b"pixels"


async def test_one_redirect_too_many_is_a_failed_fetch(origin: Origin) -> None:
    for number in range(4):
        origin.answers[f"/{number}"] = redirect(f"/{number + 1}")
    origin.answers["/4"] = answer()
    async with fetching(origin) as fetcher:
        assert await fetcher.download(origin.url("/1")) == b"pixels"
        with pytest.raises(FetchFailed) as caught:
            await fetcher.download(origin.url("/0"))
        assert "more than 3 times" in caught.value.message
    async with fetching(origin, max_redirects=0) as fetcher:
        with pytest.raises(FetchFailed):
            await fetcher.download(origin.url("/3"))


@pytest.mark.parametrize(
    "host", ["127.0.0.3", "169.254.169.254", "[::ffff:127.0.0.3]", "localhost", "①⓪.⓪.⓪.①"]
)
async def test_a_redirect_to_an_address_that_is_not_public_is_refused(
    host: str, origin: Origin
) -> None:
    elsewhere = socket.create_server(("127.0.0.3", origin.port))
    elsewhere.setblocking(False)
    names = Names(origin=[["127.0.0.1"]], localhost=[["127.0.0.3"]])
    origin.answers["/"] = redirect(origin.url(host=host))
    async with fetching(origin, resolver=names, allow_cidrs=("127.0.0.1/32",)) as fetcher:
        with pytest.raises(UrlForbidden):
            await fetcher.download(origin.url(host="origin"))
    with elsewhere, pytest.raises(BlockingIOError):
        elsewhere.accept()
    assert origin.connections == 1


@pytest.mark.parametrize(
    "location",
    [
        "ftp://h/x",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "gopher://127.0.0.1/x",
        "http://user:pass@127.0.0.1/",
        "http://127.0.0.1:22/",
        "http://127.0.0.1:99999/",
        "http://127.1/",
        "http://[fe80::1%25lo]/",
        "http://h\\x/",
        "http://h h/",
        "http://[",
        "/" + "x" * 8000,
    ],
)
async def test_a_redirect_to_a_bad_url_is_a_failed_fetch(
    location: str, fetcher: Fetcher, origin: Origin
) -> None:
    origin.answers["/"] = redirect(location)
    with pytest.raises(FetchFailed):
        await fetcher.download(origin.url())
    assert len(origin.requests) == 1


async def test_the_cause_of_a_failure_behind_a_redirect_names_the_second_host(
    fetcher: Fetcher, origin: Origin
) -> None:
    origin.answers["/"] = redirect(f"http://localhost:{origin.port}/broken")
    origin.answers["/broken"] = b"nonsense\r\n\r\n"
    with pytest.raises(FetchBadGateway) as caught:
        await fetcher.download(origin.url())
    assert str(caught.value.cause).endswith(f" from http://localhost:{origin.port}")


# Origins as they are


async def test_a_non_authoritative_answer_is_an_answer(fetcher: Fetcher, origin: Origin) -> None:
    origin.answers["/"] = answer(status="203 Non-Authoritative Information")
    assert await fetcher.download(origin.url()) == b"pixels"


@pytest.mark.parametrize("headers", [{"X_Policy": "x" * 9000}, {f"X_{i}": "x" for i in range(140)}])
async def test_large_heads_are_read(
    headers: dict[str, str], fetcher: Fetcher, origin: Origin
) -> None:
    origin.answers["/"] = answer(b"pixels", "200 OK", **headers)
    assert await fetcher.download(origin.url()) == b"pixels"


async def test_a_signed_url_of_thousands_of_characters_is_fetched(
    fetcher: Fetcher, origin: Origin
) -> None:
    path = "/?signature=" + "a" * 2600
    origin.answers[path] = answer()
    assert await fetcher.download(origin.url(path)) == b"pixels"


async def test_a_redirect_without_a_target_is_an_answer_of_its_own(
    fetcher: Fetcher, origin: Origin
) -> None:
    origin.answers["/"] = redirect("")
    with pytest.raises(FetchFailed, match="answered 302"):
        await fetcher.download(origin.url())
    assert len(origin.requests) == 1
