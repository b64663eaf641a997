"""Spellings of addresses that may not be fetched from. None needs a name server, because for
a name that is not found the specified answer is a 502.
"""

from collections.abc import Iterator

Named = tuple[str, str]


def all_urls(port: int) -> Iterator[Named]:
    """Every way to spell this machine or a neighbour, where a secret listens at `port`."""
    for host in (*LOOPBACK, *PRIVATE, *METADATA, *EMBEDDED, *ODD):
        yield host, f"http://{host}:{port}/secret"
    for host in ("127.0.0.1", "[::1]", "localhost"):
        for url in (
            f"http://user:pass@{host}:{port}/secret",
            f"http://example.org@{host}:{port}/secret",
            f"http://{host}:{port}@example.org.invalid/secret",
            f"http://{host}:{port}#@example.org/secret",
            f"http://{host}:{port}\\@example.org/secret",
            f"http:\\\\{host}:{port}/secret",
            f"http:/{host}:{port}/secret",
            f"http:{host}:{port}/secret",
            f"//{host}:{port}/secret",
            f"https://{host}:{port}/secret",
            f"HTTP://{host}:{port}/secret",
            f" http://{host}:{port}/secret",
            f"http://{host}:{port}/secret\r\nX: y",
            f"http://{host}:{port}/\tsecret",
            f"http://{host}:{port}\x00.example.org/secret",
            f"http://{host}:0{port}/secret",
            f"http://{host}:22/secret",
            f"http://{host}:99999/secret",
            f"http://{host}:-1/secret",
        ):
            yield ascii(url), url
    for scheme in ("file", "ftp", "gopher", "dict", "ldap", "jar", "netdoc", "unix", "ws", "blob"):
        yield scheme, f"{scheme}://127.0.0.1:{port}/secret"
    yield "file without host", "file:///etc/passwd"
    yield "long", f"http://127.0.0.1:{port}/" + "a" * 5000


LOOPBACK = (
    "127.0.0.1",
    "127.0.0.2",
    "127.1.2.3",
    "127.255.255.254",
    "0.0.0.0",
    "0.0.0.1",
    "localhost",
    "LOCALHOST",
    "127.0.0.1.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::1%lo]",
    "[::1%25lo]",
)
PRIVATE = (
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.1.1",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "[fc00::1]",
    "[fd12:3456:789a::1]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "[100::1]",
    "[3fff::1]",
    "[5f00::1]",
)
METADATA = (
    "169.254.169.254",
    "169.254.170.2",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
)
EMBEDDED = (
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
    "[2002:c0a8:101::1]",
    "[2001:0:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[fe80::5efe:127.0.0.1]",
    "[2606:4700::5efe:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:192.168.0.1]",
)
ODD = (
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0000127.0.0.1",
    "127.0.0.01",
    "127.00.0.1",
    "3232235521",
    "4294967295",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "127。0。0。1",
    "127．0．0．1",  # noqa: RUF001
    "①②⑦.⓪.⓪.①",
    "⑯⑨。②⑤④。⑯⑨｡②⑤④",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "loc\u00adalhost",
    "[::ffff:①②⑦.0.0.1]",
    "",
    "[]",
    "[::1",
    "::1",
    "[::1]]",
    "[v1.127]",
    "*",
)
