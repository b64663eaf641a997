"""Image bytes from the request itself: base64 and data URIs. Leaves formats to `decode`."""

import binascii
import re

import numpy as np
import pybase64

from deployments.errors import BadBase64, ImageTooLarge

# What each character stands for in an escape, or 255.
_HEX_DIGITS = np.full(256, 255, np.uint8)
for _digits in (b"0123456789abcdef", b"0123456789ABCDEF"):
    _HEX_DIGITS[list(_digits)] = range(16)
_PIECE_BYTES = 256 * 1024
_URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
# MIME breaks lines after 76 characters with two (RFC 2045, 6.8), PEM after 64: less than this part.
_WHITE_SPACE = b" \t\r\n\f"
_WHITE_SPACE_PART = 1 / 16
_DATA_URI_HEAD = re.compile(r"data:[^,]*;[ \t\r\n]*base64[ \t\r\n]*", re.IGNORECASE)


def decode_base64(text: str, *, max_bytes: int) -> bytes:
    """Bytes of a base64 string in the standard or the URL-safe alphabet, padded or not, with white
    space anywhere.

    Other characters, padding before the end and a mix of both alphabets are refused (RFC 4648,
    sections 3 to 5). Raises ImageTooLarge, before decoding anything, if it holds more
    than `max_bytes` bytes, and BadBase64 for everything else.
    """
    # Four characters hold three bytes, of which at most two are padding: a lower bound, known
    # before the string is copied.
    if len(text) // 4 * 3 - 2 > max_bytes * (1 + _WHITE_SPACE_PART):
        raise _too_large(max_bytes)
    try:
        padded = text.encode("ascii")
    except UnicodeEncodeError:
        raise _bad_base64() from None
    if any(character in padded for character in _WHITE_SPACE):
        padded = padded.translate(None, _WHITE_SPACE)
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
    Escapes, white space and fragments are treated as browsers do
    (https://fetch.spec.whatwg.org/#data-url-processor).

    Raises BadBase64, also for a data URI without `;base64`, and ImageTooLarge.
    """
    head, comma, body = uri.partition("#")[0].partition(",")
    if not (comma and _DATA_URI_HEAD.fullmatch(head)):
        raise BadBase64("A data URI must read data:image/…;base64,… with the image as base64.")
    if "%" in body:
        # Four characters for each byte, each written as %XX; otherwise as in `decode_base64`.
        if len(body) // 4 - 2 > max_bytes * (1 + _WHITE_SPACE_PART):
            raise _too_large(max_bytes)
        body = _unescaped(body).decode("ascii", "replace")
    return decode_base64(body, max_bytes=max_bytes)


def _unescaped(text: str) -> bytes:
    """Without its percent-encoding. In pieces and without an object for each escape, which would
    take a hundred times the memory. Raises BadBase64 for a `%` that begins no escape."""
    data = text.encode("ascii", "replace")
    pieces = []
    start = 0
    while start < len(data):
        piece = data[start : start + _PIECE_BYTES]
        if start + len(piece) < len(data):
            cut = piece.rfind(b"%", len(piece) - 2)  # an escape stays in one piece
            piece = piece[: cut if cut > 0 else None]
        start += len(piece)
        codes = np.frombuffer(piece, np.uint8).copy()
        at = np.flatnonzero(codes == ord("%"))
        behind = np.add.outer(at, [1, 2])
        digits = _HEX_DIGITS[np.append(codes, [0, 0])[behind]]
        if np.any(digits > 15):
            raise _bad_base64()
        codes[at] = digits[:, 0] << 4 | digits[:, 1]
        pieces.append(np.delete(codes, behind.ravel()).tobytes())
    return b"".join(pieces)


def _bad_base64() -> BadBase64:
    return BadBase64(
        "That is not base64. Send the image's bytes in the standard or the URL-safe alphabet."
    )


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"The image is larger than {max_bytes} bytes. Send a smaller one.")
