"""A bad URL is refused without looking it up, and a good one is looked up."""

import pytest

from deployments.errors import BadUrl, UrlForbidden
from tests.sources.origins import Names, Origin, fetching


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
