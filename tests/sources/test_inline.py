"""Base64 and data URIs give their bytes, up to the cap; all else is refused."""

import base64
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.errors import BadBase64, ImageTooLarge
from deployments.sources.inline import decode_base64, decode_data_uri

MIB = 1024 * 1024


@given(st.binary(min_size=1, max_size=64), st.booleans(), st.booleans())
def test_every_spelling_of_base64_gives_back_the_bytes(
    data: bytes, url_safe: bool, padded: bool
) -> None:
    encode = base64.urlsafe_b64encode if url_safe else base64.standard_b64encode
    text = encode(data).decode()
    assert decode_base64(text if padded else text.rstrip("="), max_bytes=64) == data


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "====",
        "A",
        "AAAAA",
        "AA=",  # one padding character where two belong
        "AAA==",
        "AAAA=",
        "AAAA====",
        "AA==AA==",  # padding inside
        "A=AA",
        "=AAA",
        "AA= =A",
        " \n",
        "AA\xa0AA",
        "AA\0A",
        "AA.A",
        "AAAé",
        "\uff21" * 4,
        "AA\udcffA",
        "+-AA",  # both alphabets at once
        "/_AA",
        "data:image/png;base64,AAAA",
    ],
)
def test_anything_but_base64_is_refused(text: str) -> None:
    with pytest.raises(BadBase64) as caught:
        decode_base64(text, max_bytes=100)
    assert "base64" in caught.value.message


@given(st.text(max_size=12))
def test_any_text_is_decoded_or_refused_as_base64(text: str) -> None:
    with suppress(BadBase64):
        assert isinstance(decode_base64(text, max_bytes=100), bytes)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8])
def test_the_cap_is_exact_whatever_the_padding(size: int) -> None:
    text = base64.b64encode(b"x" * size).decode()
    for spelling in (text, text.rstrip("=")):
        assert len(decode_base64(spelling, max_bytes=size)) == size
        with pytest.raises(ImageTooLarge) as caught:
            decode_base64(spelling, max_bytes=size - 1)
        assert str(size - 1) in caught.value.message


def test_the_length_is_checked_before_anything_is_decoded() -> None:
    # Overlong garbage is refused as too large and not as garbage: nothing was decoded.
    with pytest.raises(ImageTooLarge):
        decode_base64("é" * 1000, max_bytes=100)


def test_twenty_megabytes_decode_in_a_moment() -> None:
    text = base64.urlsafe_b64encode(b"\xfb\xff" * (10 * MIB)).decode()
    started = time.process_time()
    decode_base64(text, max_bytes=20 * MIB)
    assert time.process_time() - started < 1.0  # about 0.1 s; a loop over characters takes 3 s


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "data:;base64,",
        "data:text/html;base64,",  # the bytes decide, not the label
        "data:image/svg+xml;charset=utf-8;base64,",
        "data:image/png; base64,",
        "data:image/png;base64 ,",
        "data:image/png;base64, ",
        "data:image/png;\nbase64,",
        "data:image/\r\npng;\tbase64\n,",
    ],
)
def test_a_data_uri_needs_base64_and_no_media_type(head: str) -> None:
    assert decode_data_uri(head + "aGk=", max_bytes=2) == b"hi"


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png,aGk=",
        "data:image/png;base64;x=y,aGk=",
        "data:image/png;base64",
        "data:base64,aGk=",
        "data:",
        "data:,",
        "data:;base64,",  # nothing in it
        "data:;base64,aGk%",
        "data:;base64,aGk%ff",
        "data:;base64,aGk%23",
        "data:image/png#;base64,aGk=",
        "data:;base64,#aGk=",
        " data:;base64,aGk=",
        "image/png;base64,aGk=",
        "aGk=",
        "",
    ],
)
def test_any_other_data_uri_is_bad_base64(uri: str) -> None:
    with pytest.raises(BadBase64):
        decode_data_uri(uri, max_bytes=100)


@pytest.mark.parametrize("text", ["+/+/", "aGk="])
def test_escapes_in_a_data_uri_are_undone(text: str) -> None:
    escaped = text.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D")
    expected = decode_base64(text, max_bytes=100)
    assert decode_data_uri(f"data:;base64,{escaped}", max_bytes=100) == expected


@pytest.mark.parametrize("body", ["aGk%", "aGk%3", "aG%6", "%g1Gk", "%%61Gk", "aGk%3D%"])
def test_what_is_no_escape_is_bad_base64(body: str) -> None:
    with pytest.raises(BadBase64):
        decode_data_uri(f"data:;base64,{body}", max_bytes=100)


def test_escapes_are_undone_wherever_a_piece_ends() -> None:
    text = base64.b64encode(bytes(range(256)) * 1200).decode()
    for shift in range(3):
        escaped = text[:shift] + "".join(f"%{ord(c):02X}" for c in text[shift:])
        found = decode_data_uri(f"data:;base64,{escaped}", max_bytes=len(text))
        assert found == base64.b64decode(text)


@pytest.mark.parametrize("ending", ["\n", "\r\n", " ", "\t", "\f"])
@pytest.mark.parametrize("line", [64, 76])
def test_lines_may_be_broken_as_in_mime_up_to_the_cap(line: int, ending: str) -> None:
    data = bytes(range(256)) * 40
    text = base64.b64encode(data).decode()
    lines = [text[i : i + line] for i in range(0, len(text), line)]
    assert decode_base64(ending.join(lines) + ending, max_bytes=len(data)) == data
    with pytest.raises(ImageTooLarge):
        decode_base64(ending.join(lines), max_bytes=len(data) - 1)


def test_the_fragment_of_a_data_uri_is_dropped() -> None:
    assert decode_data_uri("data:image/png;base64,aGk=#x,y", max_bytes=2) == b"hi"


@pytest.mark.parametrize("size", range(1, 9))
def test_a_data_uri_may_be_all_escapes_up_to_the_cap(size: int) -> None:
    text = base64.encodebytes(b"x" * size)[:-1]
    uri = "data:;base64," + "".join(f"%{byte:02x}" for byte in text)
    assert decode_data_uri(uri, max_bytes=size) == b"x" * size
    with pytest.raises(ImageTooLarge):
        decode_data_uri(uri, max_bytes=size - 1)


def test_lines_broken_by_escapes_are_no_part_of_the_cap() -> None:
    data = bytes(range(256)) * 40
    uri = "data:;base64," + "".join(f"%{byte:02x}" for byte in base64.encodebytes(data))
    assert decode_data_uri(uri, max_bytes=len(data)) == data


def test_a_data_uri_is_capped_too() -> None:
    with pytest.raises(ImageTooLarge):
        decode_data_uri("data:;base64,aGk=", max_bytes=1)
