"""Content-Encoding undone as the bytes come, and bounded. Knows nothing of connections."""

import zlib
from collections.abc import Iterable

from deployments.errors import FetchBadGateway

# Proxies may pack what is packed already; more than this is a mistake or an attack.
_MOST_CODINGS = 3
# Each costs a copy of what follows it in its piece. Images have one; block-wise gzip has many.
_MOST_MEMBERS = 4096
_PIECE_BYTES = 64 * 1024
_UNREADABLE = frozenset({"br", "zstd", "compress", "x-compress"})


class TooManyBytesError(Exception):
    """The unpacked bytes exceed the limit."""


class Unpacker:
    """Undoes the Content-Encoding of a body; most have none.

    gzip, x-gzip and deflate are undone. Other words mean nothing (RFC 9110, 8.4.1): object stores
    keep them as metadata.
    """

    def __init__(self, headers: Iterable[str], *, most: int) -> None:
        """Raises FetchBadGateway for a coding that cannot be undone."""
        codings = [word.strip() for header in headers for word in header.lower().split(",")]
        unreadable = sorted(_UNREADABLE.intersection(codings))
        if unreadable:
            raise FetchBadGateway(
                f"The image's server sends it as {unreadable[0]}, which this service cannot read. "
                "Store it uncompressed."
            )
        steps = {"gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate}
        self._steps = [steps[coding](most) for coding in reversed(codings) if coding in steps]
        if len(self._steps) > _MOST_CODINGS:
            raise FetchBadGateway(
                f"The image's server compresses it more than {_MOST_CODINGS} times. Store it "
                "uncompressed."
            )

    def unpack(self, chunk: bytes) -> bytes:
        """The next bytes. Raises zlib.error, and TooManyBytesError beyond `most` in all."""
        for step in self._steps:
            pieces = range(0, len(chunk), _PIECE_BYTES)
            chunk = b"".join(step.unpack(chunk[at : at + _PIECE_BYTES]) for at in pieces)
        return chunk

    def end(self) -> None:
        """Raises zlib.error if the body was cut short."""
        for step in self._steps:
            step.end()


class _Deflate:
    def __init__(self, most: int) -> None:
        self._left = most
        self._stream = zlib.decompressobj()
        self._is_new = True

    def unpack(self, chunk: bytes) -> bytes:
        if self._is_new and chunk:
            self._is_new = False
            if chunk[0] & 0x0F != zlib.DEFLATED:  # without zlib's header, as some servers send it
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        # Behind its end, it would keep all that follows.
        return b"" if self._stream.eof else self._decompress(chunk)

    def _decompress(self, chunk: bytes) -> bytes:
        unpacked = self._stream.decompress(chunk, self._left + 1)
        self._left -= len(unpacked)
        if self._left < 0:
            raise TooManyBytesError
        return unpacked

    def end(self) -> None:
        if not self._is_new and not self._stream.eof:
            raise zlib.error("the stream is cut short")


class _Gzip(_Deflate):
    """Several members may follow each other (RFC 1952, 2.2), and then bytes without meaning."""

    _HEAD = b"\x1f\x8b"

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._rest = b""  # perhaps a member's first byte
        self._is_over = False
        self._members = 0

    def unpack(self, chunk: bytes) -> bytes:
        unpacked = b""
        chunk = self._rest + chunk
        self._rest = b""
        while chunk and not self._is_over:
            if self._is_new or self._stream.eof:
                if chunk == self._HEAD[:1]:
                    self._rest = chunk
                    break
                if self._stream.eof and not chunk.startswith(self._HEAD):
                    self._is_over = True
                    break
                self._members += 1
                if self._members > _MOST_MEMBERS:
                    raise zlib.error("too many members")
                self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
                self._is_new = False
            unpacked += self._decompress(chunk)
            chunk = self._stream.unused_data
        return unpacked

    def end(self) -> None:
        if not (self._is_over or self._rest):
            super().end()
