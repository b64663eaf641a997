"""HTTP that no proper client would send, and bodies that a proper one could."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass

HOST = b"Host: raylens\r\n"
JSON = b"Content-Type: application/json\r\n"


@dataclass
class Trick:
    name: str
    data: bytes


def post(
    body: bytes, *headers: bytes, path: bytes = b"/v1/embeddings", length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    lines = b"".join(header + b"\r\n" for header in headers)
    return (
        b"POST "
        + path
        + b" HTTP/1.1\r\n"
        + HOST
        + lines
        + b"Content-Length: %d\r\n\r\n" % size
        + body
    )


def get(path: bytes, *headers: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return (
        b"GET "
        + path
        + b" "
        + version
        + b"\r\n"
        + HOST
        + b"".join(header + b"\r\n" for header in headers)
        + b"\r\n"
    )


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"POST /v1/embeddings HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(chunks) + end


def all_tricks() -> Iterator[Trick]:
    yield from heads()
    yield from framings()
    yield from bodies()


def heads() -> Iterator[Trick]:
    yield Trick("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
    yield Trick("a blank line", b"\r\n\r\n")
    for i in range(20):
        method = b"INVENTED" + bytes([65 + i])
        yield Trick(
            f"the method {method.decode()}", method + b" /livez HTTP/1.1\r\n" + HOST + b"\r\n"
        )
    yield Trick("HTTP/0.9", b"GET /\r\n\r\n")
    yield Trick("HTTP/9.9", get(b"/livez", version=b"HTTP/9.9"))
    yield Trick("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    yield Trick("no host", b"GET /livez HTTP/1.1\r\n\r\n")
    yield Trick("two hosts", get(b"/livez", b"Host: other"))
    yield Trick("a host of noise", b"GET /livez HTTP/1.1\r\nHost: \xff\xfe\x00\r\n\r\n")
    yield Trick("a lone line feed", b"GET /livez HTTP/1.1\nHost: raylens\n\n")
    yield Trick("a line feed in a header", get(b"/livez", b"X-A: a\nX-B: b"))
    yield Trick("a NUL in a header", get(b"/livez", b"X-A: a\0b"))
    yield Trick("a header without colon", get(b"/livez", b"nothing"))
    yield Trick("a space before the colon", get(b"/livez", b"X-A : b"))
    yield Trick("a folded header", get(b"/livez", b"X-A: a\r\n b"))
    yield Trick("a header of 100 KB", get(b"/livez", b"X-A: " + b"a" * 100_000))
    yield Trick("1,000 headers", get(b"/livez", *(b"X-%d: a" % i for i in range(1000))))
    yield Trick("a path of 100 KB", get(b"/" + b"a" * 100_000))
    yield Trick("a query of 10 KB", get(b"/v1/models?" + b"a=b&" * 2500))
    yield Trick("bytes in the path", get(b"/\xff\xfe\x80"))
    yield Trick("a NUL in the path", get(b"/livez%00"))
    yield Trick("out of the root", get(b"/../../etc/passwd"))
    yield Trick("out of the root, encoded", get(b"/%2e%2e/%2e%2e/etc/passwd"))
    yield Trick("an absolute URL", get(b"http://127.0.0.1:22/livez"))
    yield Trick("CONNECT", b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HOST + b"\r\n")
    yield Trick("TRACE", b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n")
    yield Trick("OPTIONS *", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n")
    yield Trick("a method of its own", b"EVIL /livez HTTP/1.1\r\n" + HOST + b"\r\n")
    yield Trick("a method of 10 KB", b"A" * 10_000 + b" / HTTP/1.1\r\n" + HOST + b"\r\n")
    yield Trick("HEAD", b"HEAD /v1/models HTTP/1.1\r\n" + HOST + b"\r\n")
    yield Trick(
        "a websocket",
        get(
            b"/livez",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
    )
    yield Trick(
        "HTTP/2 by upgrade",
        get(
            b"/livez",
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMA",
        ),
    )
    for name in (
        b"X-Request-Id",
        b"X-Request-Timeout-Seconds",
        b"X-Request-Disconnect-Disabled",
        b"Serve-Multiplexed-Model-Id",
        b"X-Session-Id",
        b"Traceparent",
        b"X-Forwarded-For",
    ):
        for value in (b"\xff\xfe", b"0", b"-1", b"1e-9", b"<script>", b"a" * 8000, b"${jndi:x}"):
            yield Trick(
                f"{name.decode()}: {ascii(value)[:20]}", get(b"/v1/models", name + b": " + value)
            )
    for path in (
        b"/-/healthz",
        b"/-/routes",
        b"/metrics",
        b"/stats",
        b"/api/jobs/",
        b"/docs/../v1",
    ):
        yield Trick(path.decode(), get(path))


def framings() -> Iterator[Trick]:
    body = json.dumps({"input": "x"}).encode()
    yield Trick("two lengths", post(body, JSON.strip(), b"Content-Length: 3"))
    yield Trick("a negative length", post(b"", JSON.strip(), length=-5))
    yield Trick(
        "a length that is no number", post(b"", JSON.strip()).replace(b"Length: 0", b"Length: many")
    )
    yield Trick(
        "a length of 2^64",
        post(b"", JSON.strip()).replace(b"Length: 0", b"Length: 18446744073709551616"),
    )
    yield Trick("a length of 10 GB", post(body, JSON.strip(), length=10_000_000_000))
    yield Trick("less than was announced", post(body, JSON.strip(), length=1000))
    yield Trick(
        "more than was announced", post(body + b"GET /secret", JSON.strip(), length=len(body))
    )
    yield Trick(
        "length and chunks",
        chunked(b"c\r\n" + body + b"\r\n").replace(HOST, HOST + b"Content-Length: 4\r\n"),
    )
    yield Trick(
        "two transfer encodings",
        chunked(b"3\r\nabc\r\n").replace(
            b"chunked\r\n", b"chunked\r\nTransfer-Encoding: identity\r\n", 1
        ),
    )
    yield Trick("chunks spelt oddly", chunked(b"3\r\nabc\r\n").replace(b"chunked", b"xchunked"))
    yield Trick("a chunk size that is no number", chunked(b"zz\r\nabc\r\n"))
    yield Trick("a chunk size beyond 2^64", chunked(b"ffffffffffffffffff\r\nabc\r\n"))
    yield Trick("a negative chunk size", chunked(b"-3\r\nabc\r\n"))
    yield Trick("a chunk cut short", chunked(b"ff\r\nabc", end=b""))
    yield Trick("chunks without an end", chunked(b"3\r\nabc\r\n", end=b""))
    yield Trick("10,000 chunks of a byte", chunked(b"1\r\n{\r\n" * 10_000))
    yield Trick("70 MB in chunks", chunked(*[b"100000\r\n" + bytes(2**20) + b"\r\n"] * 70))
    yield Trick(
        "a header after the last chunk",
        chunked(b"d\r\n" + body + b"\r\n", end=b"0\r\nX-A: b\r\n\r\n"),
    )
    yield Trick("Expect: 100-continue", post(body, JSON.strip(), b"Expect: 100-continue"))
    yield Trick("Expect: 200-maybe", post(body, JSON.strip(), b"Expect: 200-maybe"))
    yield Trick("two requests in one", get(b"/livez") + get(b"/livez"))
    yield Trick("half a head", b"GET /livez HTTP/1.1\r\nHost: ray")
    yield Trick("half a body", post(body, JSON.strip(), length=1000))


def bodies() -> Iterator[Trick]:
    def trick(name: str, body: bytes, kind: str = "application/json") -> Trick:
        return Trick(name, post(body, b"Content-Type: " + kind.encode()))

    deep = 100_000
    yield trick("100,000 nested lists", b'{"input": ' + b"[" * deep + b"]" * deep + b"}")
    yield trick("100,000 nested objects", b'{"a":' * deep + b"1" + b"}" * deep)
    yield trick("a number of 100,000 digits", b'{"input": ' + b"9" * deep + b"}")
    yield trick("1e999999", b'{"input": ["x"], "dimensions": 1e999999}')
    yield trick("NaN", b'{"input": ["x"], "dimensions": NaN}')
    yield trick("a key twice", b'{"input": ["x"], "input": ["y"]}')
    yield trick(
        "10,000 keys", json.dumps({"input": "x", **{str(i): i for i in range(10_000)}}).encode()
    )
    yield trick("UTF-16", '{"input": "x"}'.encode("utf-16"))
    yield trick("not UTF-8", b'{"input": "\xff\xfe"}')
    yield trick("half a surrogate pair", b'{"input": "\\ud800"}')
    yield trick("a NUL", b'{"input": "a\0b"}')
    yield trick("trailing commas", b'{"input": ["x",],}')
    yield trick("two JSON documents", b'{"input": "x"}{"input": "x"}')
    yield trick("not JSON", b"input=x")
    yield trick("an empty body", b"")
    yield trick("null", b"null")
    yield trick("a list", b"[1, 2]")
    yield trick("100,000 items", json.dumps({"input": ["x"] * deep}).encode())
    yield trick("items of every type", b'{"input": [null, 1, true, [], {}, [[]], {"url": null}]}')
    yield trick("an item of two kinds", b'{"input": {"text": "a", "path": "b"}}')
    yield trick("a prototype", b'{"__proto__": {"input": "x"}, "constructor": {"a": 1}}')
    yield trick("dimensions of minus one", b'{"input": "x", "dimensions": -1}')
    yield trick("a model that is a path", b'{"input": "x", "model": "../../etc/passwd"}')
    yield trick("a megabyte of text", json.dumps({"input": {"text": "x" * 10**6}}).encode())
    yield trick("base64 that is not base64", b'{"input": {"base64": "####"}}')
    yield trick("base64 of 30 MB", b'{"input": {"base64": "' + b"A" * 40_000_000 + b'"}}')
    yield trick("a data URI without base64", b'{"input": "data:image/png,abc"}')
    yield trick("an unknown content type", b"x", "application/x-evil")
    yield trick("a garbled content type", b"x", "\x01/\x02")
    yield trick("JSON in UTF-7", b'{"input": "x"}', "application/json; charset=utf-7")
    yield trick("YAML", b"!!python/object/apply:os.system ['true']", "application/yaml")
    yield Trick("gzip", post(gzip.compress(bytes(10**8)), JSON.strip(), b"Content-Encoding: gzip"))
    keys = b",".join(b'"%d":{}' % i for i in range(900_000))
    yield trick("900,000 keys", b'{"input":"x",' + keys + b"}")
    yield trick("a megabyte of escapes", b'{"input":"\\ud800' + b"\\n" * 500_000 + b'"}')
    field = b'--b\r\nContent-Disposition: form-data; name="u"\r\n\r\n'
    wide = chr(0x10000).encode("punycode") + b"a" * 450_000
    for charset in ("punycode", "idna", "utf-7", "utf-16", "zlib", "rot13"):
        kind = f"multipart/form-data; boundary=b; charset={charset}"
        yield trick(f"a form in {charset}", field + wide + b"\r\n--b--\r\n", kind)
    form = "multipart/form-data"
    yield trick("a form without boundary", b"x", form)
    yield trick("an empty form", b"--b--\r\n", f"{form}; boundary=b")
    yield trick("a form without end", b"--b\r\n\r\nx", f"{form}; boundary=b")
    yield trick("a boundary of 10 KB", b"x", f"{form}; boundary={'b' * 10_000}")
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../x"\r\n\r\nx\r\n'
    yield trick("5,000 files", part * 5000 + b"--b--\r\n", f"{form}; boundary=b")
    field = b'--b\r\nContent-Disposition: form-data; name="x%d"\r\n\r\nx\r\n'
    fields = b"".join(field % i for i in range(5000))
    yield trick("5,000 fields", fields + b"--b--\r\n", f"{form}; boundary=b")
    head = b"--b\r\n" + b"X-A: b\r\n" * 5000 + b"\r\nx\r\n--b--\r\n"
    yield trick("a part with 5,000 headers", head, f"{form}; boundary=b")
