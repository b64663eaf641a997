"""Coverage-guided fuzzing of what callers send: `make fuzz`, for as long as you like.

`python -m tests.hostile.fuzz decode|url CORPUS [libFuzzer's options]`. It ends at the first input
that raises what no caller may see, and leaves that input in a file.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "deployments", "yarl", "idna"]):
    from deployments.errors import BadUrl, RaylensError
    from deployments.pixels.decode import decode
    from deployments.sources.urls import MAX_URL_CHARS, parse_url
    from deployments.wire import PixelSpec

from tests.hostile.attack import LEAKS
from tests.hostile.pictures import good

SPEC = PixelSpec(resize=("shortest_edge", 32), resample=3, crop=(32, 32))


def look_at(error: RaylensError) -> None:
    assert not LEAKS.search(error.message.encode()), error.message


def decode_image(data: bytes) -> None:
    try:
        pixels = decode(data, SPEC, max_pixels=100_000).pixels
    except RaylensError as error:
        look_at(error)
        return
    assert pixels.shape == (32, 32, 3)


def parse_a_url(data: bytes) -> None:
    text = atheris.FuzzedDataProvider(data).ConsumeUnicode(MAX_URL_CHARS + 10)
    try:
        url = parse_url(text, allow_ports=(80, 443))
    except BadUrl as error:
        look_at(error)
        return
    assert url.scheme in ("http", "https")
    assert url.port in (80, 443)
    assert url.user is None
    assert url.password is None
    assert url.raw_host
    # The URL that is fetched is the same when it is parsed again.
    assert parse_url(str(url), allow_ports=(80, 443)) == url


def main() -> None:
    target, corpus, *options = sys.argv[1:]
    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    if target == "decode":
        for name, data in good().items():
            (folder / name.replace(" ", "-")).write_bytes(data)
    else:
        for number, url in enumerate(("http://example.org/a?b#c", "https://[2606:4700::1]:443/")):
            (folder / str(number)).write_text(url)
    test = {"decode": decode_image, "url": parse_a_url}[target]
    atheris.Setup([sys.argv[0], corpus, *options], test)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
