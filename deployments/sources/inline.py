"""Image bytes from the request itself: base64 and data URIs. Leaves formats to `decode`."""

import binascii

import pybase64

from deployments.errors import BadBase64, ImageTooLarge

_URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str, *, max_bytes: int) -> bytes:
    """Bytes of a base64 string in the standard or the URL-safe alphabet, padded or not.

    White space, other characters, padding before the end and a mix of both alphabets are refused
    (RFC 4648, sections 3 to 5). Raises ImageTooLarge, before decoding anything, if it holds more
    than `max_bytes` bytes, and BadBase64 for everything else.
    """
    # Four characters hold three bytes, of which at most two are padding: a lower bound, known
    # before the string is copied.
    if len(text) // 4 * 3 - 2 > max_bytes:
        raise _too_large(max_bytes)
    try:
        padded = text.encode("ascii")
    except UnicodeEncodeError:
        raise _bad_base64() from None
    data = padded.rstrip(b"=")
    padding = len(padded) - len(data)
    if not data or len(data) % 4 == 1 or (padding and (padding > 2 or len(padded) % 4)):
        raise _bad_base64()
    if len(data) * 3 // 4 > max_bytes:
        raise _too_large(max_bytes)
    if b"-" in data or b"_" in data:
        if b"+" in data or b"/" in data:
            raise _bad_base64()
        data = data.translate(_URL_SAFE_TO_STANDARD)
    try:
        return pybase64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error:
        raise _bad_base64() from None


def decode_data_uri(uri: str, *, max_bytes: int) -> bytes:
    """Bytes of a `data:…;base64,…` URI (RFC 2397), whose media type is ignored.

    Raises BadBase64, also for a data URI without `;base64`, and ImageTooLarge.
    """
    comma = uri.find(",")
    head = uri[: max(comma, 0)].lower()
    if not (head.startswith("data:") and head.endswith(";base64")):
        raise BadBase64("A data URI must read data:image/…;base64,… with the image as base64.")
    return decode_base64(uri[comma + 1 :], max_bytes=max_bytes)


def _bad_base64() -> BadBase64:
    return BadBase64(
        "That is not base64. Send the image's bytes in the standard or the URL-safe alphabet, "
        "without white space."
    )


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"The image is larger than {max_bytes} bytes. Send a smaller one.")
