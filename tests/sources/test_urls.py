"""A bad URL is refused without looking it up, and a good one is looked up."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.errors import BadUrl, UrlForbidden
from deployments.sources.fetch import Fetcher
from deployments.sources.urls import parse_url
from tests.sources.origins import Names, Origin, answer, fetching, redirect


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
        "http://h /x",
        "http:// h/x",
        "http://h\u3000/x",
        "http://h\t/x",
        "http://h/a\tb",
        "http://h/\r\nX: y",
        "http://h/\0",
        "http://h/\x7f",
        "http://h/\x85",
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
        "http://[localhost:6379]/",
        "http://[127.0.0.1:22]/",
        "http://[h:80]/",
        'http://[::1"]/',
        "http://[::1]@/",
        "http://[v1.x]/",
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
        "http://h/" + "x" * 7_992,
    ],
)
async def test_a_bad_url_is_refused_without_looking_it_up(url: str, origin: Origin) -> None:
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
        ("http://h/" + "x" * 7_991, "h"),
    ],
)
async def test_a_good_url_is_looked_up(url: str, host: str, origin: Origin) -> None:
    names = Names()
    names.answers[host] = [["10.0.0.1"]]
    async with fetching(origin, resolver=names) as fetcher:
        with pytest.raises(UrlForbidden):
            await fetcher.download(url)
    assert names.asked == [host]


GIVEN = [
    "/sig/a%2Cb%3Ac%28d%29%27e%40f%3Dg.png",
    "/fetch/https%3A%2F%2Fcdn.example%2Fa.jpg",
    "/?u=https%3A%2F%2Fcdn.example%3Fk%3Dv&s=ab%2Fcd%2Be%3D",
    "/caf%c3%a9",
    "/a%20b+c%2Bd",
    "/%7Euser/%41",
    "/x?empty=&&a;b=[1]|{2}^`'\"<>",
    "/a//b/./c/../d",
    "?q=1",
    "",
]


@pytest.mark.parametrize("target", GIVEN)
async def test_a_url_is_asked_for_exactly_as_given(
    target: str, fetcher: Fetcher, origin: Origin
) -> None:
    seen = target if target.startswith("/") else f"/{target}"
    origin.answers[seen] = answer()
    assert await fetcher.download(f"http://127.0.0.1:{origin.port}{target}#part") == b"pixels"


@pytest.mark.parametrize("target", [t for t in GIVEN if t.startswith("/") and "/./" not in t])
async def test_a_redirect_is_followed_exactly_as_given(
    target: str, fetcher: Fetcher, origin: Origin
) -> None:
    for location in (target, origin.url(target)):
        origin.answers["/from"] = redirect(location)
        origin.answers[target] = answer()
        assert await fetcher.download(origin.url("/from")) == b"pixels"


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        ("/café.jpg".encode(), "/caf%C3%A9.jpg"),
        ("/café.jpg".encode("latin-1"), "/caf%E9.jpg"),
        (b"/a photo.jpg?k=a b", "/a%20photo.jpg?k=a%20b"),
        (b"  /b.jpg ", "/b.jpg"),
        (b"//%(host)s/b.jpg", "/b.jpg"),
        (b"////%(host)s/b.jpg", "/b.jpg"),
        (b"http:///%(host)s/b.jpg", "/b.jpg"),
    ],
)
async def test_what_may_not_stand_in_a_redirect_is_escaped_as_browsers_do(
    location: bytes, asked: str, fetcher: Fetcher, origin: Origin
) -> None:
    head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "
    location = location.replace(b"%(host)s", b"127.0.0.1:%d" % origin.port)
    origin.answers["/from"] = head + location + b"\r\n\r\n"
    origin.answers[asked] = answer()
    assert await fetcher.download(origin.url("/from")) == b"pixels"


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/a photo.jpg?k=a b", "/a%20photo.jpg?k=a%20b"),
        ("/Screenshot 3.45\u202fPM.png", "/Screenshot%203.45%E2%80%AFPM.png"),
        ("/\u3000\xa0\u2028", "/%E3%80%80%C2%A0%E2%80%A8"),
    ],
)
async def test_spaces_in_a_url_are_escaped_as_browsers_do(
    path: str, asked: str, fetcher: Fetcher, origin: Origin
) -> None:
    origin.answers[asked] = answer()
    assert await fetcher.download(origin.url(path)) == b"pixels"


@given(
    st.text(alphabet='[]:@%/?#\\."01aß\uff21 localhost', max_size=25),
    st.sampled_from([(80, 443), (80, 6379)]),
)
def test_what_is_asked_for_is_what_was_judged(rest: str, ports: tuple[int, ...]) -> None:
    with suppress(BadUrl):
        url = parse_url(f"http://{rest}", allow_ports=ports)
        again = parse_url(str(url), allow_ports=ports)
        assert (again.raw_host, again.port) == (url.raw_host, url.port)
        assert url.port in ports


@given(st.text(max_size=40), st.sampled_from(["http://example.org", "http://example.org:80"]))
def test_no_path_moves_a_url_to_another_host(rest: str, origin_of: str) -> None:
    with suppress(BadUrl):
        url = parse_url(f"{origin_of}/{rest}", allow_ports=(80,))
        assert (url.raw_host, url.port) == ("example.org", 80)
        assert str(url).isascii()
