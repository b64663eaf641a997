"""Requests' bodies."""

import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from raylens.client.items import SentItem


class JsonBody:
    """A JSON body that is encoded as it is sent: at most one image's base64 is in memory."""

    def __init__(self, items: Sequence[SentItem], options: Mapping[str, Any]) -> None:
        self._items = [item if isinstance(item, bytes) else _json(item) for item in items]
        self._is_image = [isinstance(item, bytes) for item in items]
        pairs = [b",%b:%b" % (_json(name), _json(value)) for name, value in options.items()]
        self._end = b"".join((b"]", *pairs, b"}"))

    def __len__(self) -> int:
        pieces = zip(self._items, self._is_image, strict=True)
        lengths = [
            len(b'{"base64":""}') + 4 * -(-len(item) // 3) if is_image else len(item)
            for item, is_image in pieces
        ]
        return len(b'{"input":[') + sum(lengths) + max(0, len(lengths) - 1) + len(self._end)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        before = b'{"input":['
        for item, is_image in zip(self._items, self._is_image, strict=True):
            yield before + (b'{"base64":"%b"}' % base64.b64encode(item) if is_image else item)
            before = b","
        yield self._end if self._items else before + self._end


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
