import asyncio
import socket
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp.abc import AbstractResolver

from deployments.errors import (
    BadUrl,
    FetchBadGateway,
    FetchFailed,
    FetchTimeout,
    UrlForbidden,
)
from deployments.settings import Fetch
from deployments.sources.breaker import FAILURES
from deployments.sources.fetch import Fetcher

CAP = 100_000
OK = b"HTTP/1.1 200 OK\r\n"


def answer(body=b"pixels", status="200 OK", **headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location, status="302 Found"):
    return answer(b"moved", status, Location=location)


class Origin:
    """A server on the loopback that says what each path is told to and counts connections."""

    def __init__(self):
        self.answers = {"/": answer()}
        self.connections = 0
        self.open_now = 0
        self.requests = []
        self.asked = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()

    async def serve(self, reader, writer):
        self.connections += 1
        self.open_now += 1
        self.idle.clear()
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head.decode())
                self.asked.set()
                answer = self.answers[head.split(b" ")[1].decode()]
                if callable(answer):
                    await answer(reader, writer)
                    return
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError, KeyError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self.open_now -= 1
            if not self.open_now:
                self.idle.set()

    def url(self, path="/", host="127.0.0.1"):
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
async def origin():
    origin = Origin()
    listener = socket.create_server(("127.0.0.1", 0))
    origin.port = listener.getsockname()[1]
    server = await asyncio.start_server(origin.serve, sock=listener)
    yield origin
    server.close()
    await asyncio.wait_for(origin.idle.wait(), 2)


@asynccontextmanager
async def fetching(origin, *, resolver=None, max_bytes=CAP, **overrides):
    options = {
        "allow_cidrs": ("127.0.0.0/8",),
        "allow_ports": (origin.port, 80, 443),
        "timeout_s": 5.0,
        "idle_timeout_s": 5.0,
        **overrides,
    }
    fetcher = Fetcher(Fetch(**options), max_bytes=max_bytes, resolver=resolver)
    await fetcher.start()
    try:
        yield fetcher
    finally:
        await fetcher.close()


@pytest.fixture
async def fetcher(origin):
    async with fetching(origin) as fetcher:
        yield fetcher


@pytest.fixture
async def guarded(origin):
    """A fetcher as it comes: no holes in its policy."""
    async with fetching(origin, allow_cidrs=()) as fetcher:
        yield fetcher


class Names(AbstractResolver):
    """A resolver that says what it is told, one answer after the other."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "."): list(answer) for name, answer in answers.items()}
        self.asked = []

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        self.asked.append(host)
        answers = self.answers.get(host, [socket.gaierror(socket.EAI_NONAME, "no such name")])
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(addresses, Exception):
            raise addresses
        if callable(addresses):
            await addresses()
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
            for address in addresses
        ]

    async def close(self):
        pass


# The ordinary way


async def test_a_download_is_the_body(fetcher, origin):
    assert await fetcher.download(origin.url()) == b"pixels"


async def test_an_empty_body_is_no_bytes(fetcher, origin):
    origin.answers["/"] = answer(b"")
    assert await fetcher.download(origin.url()) == b""


async def test_chunked_and_unbounded_bodies_are_read_to_their_end(fetcher, origin):
    origin.answers["/"] = (
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\npix\r\n3\r\nels\r\n0\r\n\r\n"
    )
    assert await fetcher.download(origin.url()) == b"pixels"

    async def until_closed(_, writer):
        writer.write(OK + b"\r\npixels")

    origin.answers["/"] = until_closed
    assert await fetcher.download(origin.url()) == b"pixels"


async def test_one_connection_serves_many_downloads(fetcher, origin):
    for _ in range(5):
        await fetcher.download(origin.url())
    assert origin.connections == 1


async def test_the_request_tells_who_asks_and_nothing_else(origin):
    origin.answers["/"] = answer(Set_Cookie="id=1")
    origin.answers["/from"] = redirect("/")
    # By name, for cookie jars keep nothing for addresses.
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


async def test_proxies_of_the_environment_are_not_used(origin, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with fetching(origin) as fetcher:
        assert await fetcher.download(origin.url()) == b"pixels"


async def test_a_fetcher_that_is_not_started_says_so(origin):
    with pytest.raises(RuntimeError):
        await Fetcher(Fetch(allow_ports=(origin.port,)), max_bytes=1).download(origin.url())


async def test_it_can_be_closed_twice_and_started_again(origin):
    async with fetching(origin) as fetcher:
        await fetcher.close()
        await fetcher.close()
        await fetcher.start()
        assert await fetcher.download(origin.url()) == b"pixels"


# The caller's words


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "/x",
        "//h/x",
        "h/x",
        "ftp://h/x",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "gopher://h:80/x",
        "javascript:alert(1)",
        "http:",
        "http://",
        "http:///x",
        "http:h",
        "http:/h/x",
        "http://?x",
        "http://:80/x",
        "http://user@h/x",
        "http://user:pass@h/x",
        "http://:pass@h/x",
        "http://@h/x",
        "http://h@127.0.0.1/x",
        "http://h/a b",
        " http://h/",
        "http://h/ ",
        "http://h/\n",
        "http://h\t/x",
        "http://h/\r\nX: y",
        "http://h/\0",
        "http://h/\x7f",
        "http://h/\x85",
        "http://h/\u3000",
        "http://h/\u2028",
        "http://h/\ud800",
        "http://h\\x/",
        "http:\\\\h\\x",
        "http://h/\\x",
        "http://h:0/",
        "http://h:22/x",
        "http://h:65536/",
        "http://h:-80/",
        "http://h:8a/",
        "http://h:80:80/",
        "https://h:8443/",
        "http://[::1",
        "http://[::1]x/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[2606:4700::1%251]/",
        "http://h%2ex/",
        "http://%31%32%37.0.0.1/",
        "http://[1.2.3.4]/",
        "http://h\uff0fx/",
        "http://127.1/",
        "http://127.0.1/",
        "http://0/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0X7F.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://127.0.0.1./",
        "http://127.0.0.08/",
        "http://127.0.0.256/",
        "http://1.2.3.4.5/",
        "http://\uff14\uff12/",
        "http://h/" + "x" * 2040,
    ],
)
async def test_a_bad_url_is_refused_without_looking_it_up(url, origin):
    names = Names()
    async with fetching(origin, resolver=names) as fetcher:
        with pytest.raises(BadUrl):
            await fetcher.download(url)
    assert names.asked == []


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("HTTP://EXAMPLE.com./é?q=é#f", "example.com."),
        ("https://example.com", "example.com"),
        ("http://ex-1.example:443/a%20b?c=@d:e", "ex-1.example"),
        ("http://faß.de/", "xn--fa-hia.de"),
        ("http://0x7g/", "0x7g"),
        ("http://h#@127.0.0.1:90000/x", "h"),
        ("http://h/" + "x" * 2039, "h"),
    ],
)
async def test_a_good_url_is_looked_up(url, host, origin):
    names = Names()
    names.answers[host] = [["10.0.0.1"]]
    async with fetching(origin, resolver=names) as fetcher:
        with pytest.raises(UrlForbidden):
            await fetcher.download(url)
    assert names.asked == [host]


# What may be dialled


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "168.63.129.16",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "localhost",
        "LOCALHOST",
    ],
)
async def test_an_address_that_is_not_public_is_never_dialled(host, guarded, origin):
    with pytest.raises(UrlForbidden) as caught:
        await guarded.download(origin.url(host=host))
    assert host not in caught.value.message
    assert origin.connections == 0


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "017700000001", "127.0.0.1."]
)
async def test_odd_spellings_of_an_address_reach_nothing_even_where_it_is_allowed(
    host, fetcher, origin
):
    with pytest.raises(BadUrl):
        await fetcher.download(origin.url(host=host))
    assert origin.connections == 0


async def test_mapped_and_unusual_digits_are_the_same_address_where_it_is_allowed(fetcher, origin):
    for host in ("①②⑦.⓪.⓪.①", "127.0.0.1"):
        assert await fetcher.download(origin.url(host=host)) == b"pixels"
    assert origin.connections == 1


async def test_a_name_with_one_refused_address_is_refused_whole(origin):
    public, private = "93.184.215.14", "127.0.0.1"
    for addresses in (
        [private, public],
        [public, private],
        ["2606:4700::1", "::1"],
        ["fe80::1%lo"],
    ):
        names = Names(mixed=[addresses])
        async with fetching(origin, resolver=names, allow_cidrs=()) as fetcher:
            with pytest.raises(UrlForbidden):
                await fetcher.download(origin.url(host="mixed"))
    assert origin.connections == 0


async def test_a_name_that_changes_its_address_is_checked_at_every_dial(origin):
    # First an allowed address, then, as in DNS rebinding, one that is not.
    listener = socket.create_server(("127.0.0.2", origin.port))
    secret = Origin()
    server = await asyncio.start_server(secret.serve, sock=listener)
    origin.answers["/"] = answer(Connection="close")
    names = Names(rebinding=[["127.0.0.1"], ["127.0.0.2"]])
    async with fetching(origin, resolver=names, allow_cidrs=("127.0.0.1/32",)) as fetcher:
        assert await fetcher.download(origin.url(host="rebinding")) == b"pixels"
        fetcher._guarded.connector.clear_dns_cache()
        with pytest.raises(UrlForbidden):
            await fetcher.download(origin.url(host="rebinding"))
    server.close()
    assert origin.connections == 1
    assert secret.connections == 0


async def test_a_resolver_that_hides_a_zone_or_a_name_in_an_address_is_refused(origin):
    for address in ("localhost", "127.1", "::1%lo", "0x7f.1", ""):
        async with fetching(origin, resolver=Names(odd=[[address]])) as fetcher:
            with pytest.raises(UrlForbidden):
                await fetcher.download(origin.url(host="odd"))
    assert origin.connections == 0


async def test_an_allowed_host_may_resolve_to_any_address_and_no_other_name_may(origin):
    names = Names(store_local=[["127.0.0.1"]], thief_local=[["127.0.0.1"]])
    async with fetching(
        origin, resolver=names, allow_cidrs=(), allow_hosts=("Store.Local",)
    ) as fetcher:
        assert await fetcher.download(origin.url(host="store.local")) == b"pixels"
        assert await fetcher.download(origin.url(host="STORE.LOCAL")) == b"pixels"
        for host in ("thief.local", "127.0.0.1", "[::ffff:127.0.0.1]"):
            with pytest.raises(UrlForbidden):
                await fetcher.download(origin.url(host=host))
    assert origin.connections == 1


async def test_an_allowed_host_opens_nothing_to_where_it_redirects(origin):
    origin.answers["/away"] = redirect(origin.url(host="thief.local"))
    origin.answers["/stay"] = redirect("/")
    names = Names(store_local=[["127.0.0.1"]], thief_local=[["127.0.0.1"]])
    async with fetching(
        origin, resolver=names, allow_cidrs=(), allow_hosts=("store.local",)
    ) as fetcher:
        assert await fetcher.download(origin.url("/stay", "store.local")) == b"pixels"
        with pytest.raises(UrlForbidden):
            await fetcher.download(origin.url("/away", "store.local"))
    assert len(origin.requests) == 3


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(status, fetcher, origin):
    origin.answers["/a"] = redirect("/b", f"{status} Over There")
    origin.answers["/b"] = redirect(origin.url("/c?d=e"))
    origin.answers["/c?d=e"] = redirect(f"//127.0.0.1:{origin.port}/")
    assert await fetcher.download(origin.url("/a")) == b"pixels"


async def test_one_redirect_too_many_is_a_failed_fetch(origin):
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
async def test_a_redirect_to_an_address_that_is_not_public_is_refused(host, origin):
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
        "http://h/a b",
        "http://[",
        "/" + "x" * 2100,
    ],
)
async def test_a_redirect_to_a_bad_url_is_a_failed_fetch(location, fetcher, origin):
    origin.answers["/"] = redirect(location)
    with pytest.raises(FetchFailed):
        await fetcher.download(origin.url())
    assert len(origin.requests) == 1


# What the origin says


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("201 Created", FetchFailed),
        ("204 No Content", FetchFailed),
        ("206 Partial Content", FetchFailed),
        ("300 Multiple Choices", FetchFailed),
        ("302 Without Location", FetchFailed),
        ("304 Not Modified", FetchFailed),
        ("400 Bad Request", FetchFailed),
        ("404 /etc/secret 10.0.0.7", FetchFailed),
        ("429 Too Many Requests", FetchFailed),
        ("499 Odd", FetchFailed),
        ("500 Oops", FetchBadGateway),
        ("503 Later", FetchBadGateway),
        ("599 Odd", FetchBadGateway),
        ("999 Go Away", FetchBadGateway),
    ],
)
async def test_a_status_that_is_no_image_is_an_error(status, error, fetcher, origin):
    origin.answers["/"] = answer(b"" if status[:3] in ("204", "304") else b"secret text", status)
    with pytest.raises(error) as caught:
        await fetcher.download(origin.url())
    assert status[:3] in caught.value.message
    assert "secret" not in caught.value.message
    assert "10.0.0.7" not in caught.value.message


async def test_a_switch_of_protocols_is_a_failed_fetch(fetcher, origin):
    origin.answers["/"] = b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    with pytest.raises(FetchFailed):
        await fetcher.download(origin.url())


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\r\n",
        b"pixels",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npixels",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\npixels",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\npixels",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 6\r\n\r\npixels",
    ],
)
async def test_cut_short_and_garbled_answers_are_a_bad_gateway(garbage, fetcher, origin):
    async def speak(_, writer):
        writer.write(garbage)

    origin.answers["/"] = speak
    with pytest.raises(FetchBadGateway) as caught:
        await fetcher.download(origin.url())
    assert "127.0.0.1" not in caught.value.message


async def test_a_connection_reset_in_the_body_is_a_bad_gateway(fetcher, origin):
    async def reset(_, writer):
        writer.write(OK + b"Content-Length: 100\r\n\r\npixels")
        await writer.drain()
        writer.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        writer.transport.abort()

    origin.answers["/"] = reset
    with pytest.raises(FetchBadGateway):
        await fetcher.download(origin.url())


async def test_a_refused_connection_is_a_bad_gateway(origin):
    with socket.socket() as bound:  # bound and not listening: nobody else can take the port
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        async with fetching(origin, allow_ports=(port,)) as fetcher:
            with pytest.raises(FetchBadGateway):
                await fetcher.download(f"http://127.0.0.1:{port}/")


async def test_a_tls_failure_is_a_bad_gateway(origin):
    closed = asyncio.Event()

    async def not_tls(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        closed.set()

    server = await asyncio.start_server(not_tls, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with fetching(origin, allow_ports=(port,)) as fetcher:
        with pytest.raises(FetchBadGateway) as caught:
            await fetcher.download(f"https://127.0.0.1:{port}/")
    assert "TLS" in caught.value.message
    server.close()
    await closed.wait()


async def test_a_name_that_is_not_found_is_a_bad_gateway(origin):
    names = Names(gone=[socket.gaierror(socket.EAI_NONAME, "10.0.0.7 said no")], empty=[[]])
    async with fetching(origin, resolver=names) as fetcher:
        with pytest.raises(FetchBadGateway) as caught:
            await fetcher.download(origin.url(host="gone"))
        assert "not found" in caught.value.message
        assert "10.0.0.7" not in caught.value.message


async def test_an_origin_that_accepts_and_is_silent_fails_at_once_after_some_tries(origin):
    async def silent(reader, writer):
        await reader.read()

    origin.answers["/"] = silent
    async with fetching(origin, idle_timeout_s=0.1) as fetcher:
        for _ in range(FAILURES):
            with pytest.raises(FetchTimeout):
                await fetcher.download(origin.url())
        connections = origin.connections
        with pytest.raises(FetchBadGateway, match="lately"):
            await fetcher.download(origin.url())
        assert origin.connections == connections
