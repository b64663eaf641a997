"""A worker process that hostile bytes have taken over cannot harm the service by its replies."""

import pytest

from deployments.errors import Internal
from deployments.pixels import workers


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"[]",
        b"{",
        b'{"error": "overloaded", "message": "x"}',
        b'{"error": ["x"], "message": "x"}',
        b'{"shape": [9, 9, 3], "dtype": "|u1"}',
        b'{"shape": [-1, -1, 3], "dtype": "|u1"}',
        b'{"shape": [3], "dtype": "|u1"}',
        b'{"shape": [1, 1, 1], "dtype": "|O"}',
        b'{"shape": "x", "dtype": "u1,u1"}',
        b'{"shape": [1, 1, 3], "dtype": "|u1"}',
        b'{"shape": [1, 1, 3], "dtype": "|u1", "facts": [1, 1, "EXE", 8]}',
        b'{"shape": [1, 1, 3], "dtype": "|u1", "facts": [1, 1, "PNG", "8"]}',
        b'{"shape": [1, 1, 3], "dtype": "|u1", "facts": [1, 99999999999, "PNG", 8]}',
        b'{"shape": [1, 1, 3], "dtype": "|u1", "facts": [1, NaN, "PNG", 8]}',
    ],
)
def test_a_reply_that_no_worker_would_give_is_not_believed(reply: bytes) -> None:
    with pytest.raises(Internal):
        workers._decoded(reply, bytearray(3))
