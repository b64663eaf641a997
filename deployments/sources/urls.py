"""Which URLs may be fetched, judged by their text alone. Dials nothing and looks up no names."""

import re
import string
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import quote

from yarl import URL

from deployments.errors import BadUrl, FetchFailed

MAX_URL_CHARS = 8000  # signed URLs have thousands; RFC 9110, 4.1, asks for this many

# Control characters, backslashes and lone surrogates: URL parsers disagree on these. Spaces after
# the host are escaped, as browsers do: file names have them, those of macOS even U+202F.
_ODD_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]|^[^/]*//[^/?#]*\s")
# Bytes beyond ASCII, which aiohttp gives as surrogates, are escaped too.
_ODD_IN_LOCATIONS = re.compile(r"[\x00-\x1f\x7f\\]")
# Browsers read any number of slashes as two.
_SLASHES = re.compile(r"^((?:https?:)?)///+", re.IGNORECASE)
_UP_TO_HOST = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*")
# What browsers parse as an IPv4 address, such as 127.1, 0x7f.1 or 2130706433
# (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")


def parse_url(text: str, *, allow_ports: tuple[int, ...]) -> URL:
    """A URL, parsed, with its path and query as they are. Raises BadUrl."""
    if not text[:8].lower().startswith(("http://", "https://")):
        raise BadUrl(
            "Only http:// and https:// URLs are fetched; a data URI belongs in base64, image or "
            "image_url."
        )
    if len(text) > MAX_URL_CHARS:
        raise BadUrl(f"The URL has more than {MAX_URL_CHARS} characters. Use a shorter one.")
    if _ODD_CHARACTERS.search(text):
        raise BadUrl(
            "The URL holds control characters or backslashes, or a space in its host. "
            "Percent-encode it."
        )
    authority = re.split("[/?#]", text.partition("://")[2], maxsplit=1)[0]
    try:
        url = URL(text)
        host, port = url.raw_host, url.port
        given = _as_given(url, text) if host else url
        # yarl takes the brackets off what is no IPv6 address, such as http://[localhost:22]/.
        is_same = (given.raw_host, given.port) == (host, port)
        is_same = is_same and ("[" in authority) == (":" in (host or ""))
    except (ValueError, IndexError):  # yarl raises the second for http://[::1]@/
        is_same = False
    if not is_same:
        raise BadUrl("That is not a URL. Send a complete http(s) address.")
    if url.scheme not in ("http", "https") or not host:
        raise BadUrl("Only http:// and https:// URLs with a host name are fetched.")
    if "@" in authority:
        raise BadUrl("The URL holds a user name or password. Leave them out.")
    if "%" in host:
        raise BadUrl("The URL's host holds a zone id or an escape. Write it plainly.")
    if port not in allow_ports:
        allowed = ", ".join(map(str, allow_ports))
        raise BadUrl(f"The URL's port is not allowed. Use one of these: {allowed}.")
    if _ENDS_IN_A_NUMBER.fullmatch(host):
        try:
            IPv4Address(host)
        except AddressValueError:
            raise BadUrl("Write an IPv4 address as four decimal numbers.") from None
    return given


def _as_given(url: URL, text: str) -> URL:
    """`url`, with the path and query exactly as in `text`: signatures cover escapes, some of which
    yarl writes anew (RFC 3986, 2.2). The origin stays that of `url`, which has been checked.
    """
    after_scheme = text.partition("://")[2].partition("#")[0]
    begin = re.search(r"[/?]|$", after_scheme)
    target = after_scheme[begin.start() :] if begin else ""
    slash = "" if target.startswith("/") else "/"
    return URL(f"{url.origin()}{slash}{_escaped(target)}", encoded=True)


def _escaped(text: str) -> str:
    """As browsers escape what may not stand in a URL; what is ASCII otherwise stays."""
    return quote(text.encode("utf-8", "surrogateescape"), safe=string.punctuation)


def redirected(url: URL, location: str, *, allow_ports: tuple[int, ...]) -> URL:
    """The URL that `url` redirects to. Raises FetchFailed if that may not be fetched."""
    try:
        # Checked before joining, which would silently repair some of them.
        if _ODD_IN_LOCATIONS.search(location):
            raise BadUrl("odd characters")
        location = _SLASHES.sub(r"\1//", location.strip(" "))
        host = _UP_TO_HOST.match(location)
        end = host.end() if host else 0
        escaped = location[:end] + _escaped(location[end:])
        return parse_url(str(url.join(URL(escaped, encoded=True))), allow_ports=allow_ports)
    except (BadUrl, ValueError, IndexError):
        raise FetchFailed(
            "The URL redirects to one that may not be fetched. Use the image's own URL.",
            cause=f"redirected: from {url.origin()} to {location.partition('?')[0]}",
        ) from None
