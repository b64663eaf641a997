"""Bodies that no client of another service sends: every key of every dialect with wrong values,
noise, and tensors whose sizes are lies."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

from deployments.api.dialects import DIALECTS
from tests.hostile.pictures import picture, saved
from tests.hostile.requests import Trick, post

TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]}
# What makes the other keys matter: with them alone, a request is fine.
FINE: dict[str, dict[str, Any]] = {
    "oip": {"inputs": [TENSOR]},
    "tei": {"inputs": "x"},
    "vllm": {"queries": "x", "documents": ["x"]},
}
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 2**63, "", "x", "\0", "data:,", [], [[]], [None], {}, {"a": {}}),
    *([1] * 3000, {"content": []}, {"content": [{"type": "video"}]}, {"text": 5}, "x" * 100_000),
)
DEEP = 100_000
FORM = "multipart/form-data"
# What Immich asks for, from the outside in.
ENTRIES = (
    "%s",
    '{"clip": %s}',
    '{"clip": {"visual": %s}}',
    '{"clip": {"visual": {"modelName": %s}}}',
)


@dataclass
class Odd:
    name: str
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def trick(self) -> Trick:
        headers = [f"{name}: {value}".encode() for name, value in self.headers.items()]
        sent = post(self.body, *headers, b"Connection: close", path=self.path.encode())
        return Trick(self.name, sent)


def all_odd(model: str) -> Iterator[Odd]:
    """For each endpoint that takes a body; `model` is one that is served."""
    noise = random.Random(5).randbytes
    for dialect in DIALECTS:
        for endpoint in dialect.endpoints:
            if endpoint.method != "POST":
                continue
            path = re.sub(r"{version}", "1", re.sub(r"{model[^}]*}", model, endpoint.path))
            if endpoint.media == FORM:
                yield from forms(path, model)
                continue
            fine = FINE.get(dialect.name, {})
            for key in keys(endpoint.body):
                for value in VALUES:
                    body = json.dumps({**fine, key: value}).encode()
                    yield Odd(f"{path}: {key} of {str(value)[:20]!r}", path, body, JSON)
            for size in (0, 1, 7, 1000):
                yield Odd(f"{path}: {size} bytes of noise", path, noise(size), JSON)
            nested = b'{"inputs":' * DEEP
            yield Odd(f"{path}: {DEEP:,} nested objects", path, nested + b"1" + b"}" * DEEP, JSON)
            yield Odd(f"{path}: 900 nested lists", path, b'{"inputs":' + b"[" * 900, JSON)
    yield from tensors(f"/v2/models/{model}/infer")


JSON = {"Content-Type": "application/json"}


def keys(body: Any) -> set[str]:
    """Of a body, or of those that it may be."""
    kinds = [kind for kind in get_args(body) or (body,) if kind is not None]
    return {key for kind in kinds for key in kind.model_fields}


def forms(path: str, model: str) -> Iterator[Odd]:
    """Immich's forms: a picture, and at each depth of what is to be done with it a wrong value."""
    image, noise = saved(picture(), "PNG"), random.Random(5).randbytes
    fine = ENTRIES[-1] % json.dumps(model)

    def odd(name: str, entries: str, image: bytes) -> Odd:
        part = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        file = part.replace(b'"%s"', b'"%s"; filename="blob"')
        body = part % (b"entries", entries.encode()) + file % (b"image", image) + b"--b--\r\n"
        return Odd(f"{path}: {name}", path, body, {"Content-Type": f"{FORM}; boundary=b"})

    for value in VALUES:
        for entries in ENTRIES:
            yield odd(f"{entries} of {str(value)[:20]!r}", entries % json.dumps(value), image)
    for size in (0, 1, 7, 1000):
        yield odd(f"{size} bytes of noise", fine, noise(size))
    yield odd(f"{DEEP:,} nested objects", '{"clip":' * DEEP + "1" + "}" * DEEP, image)
    yield odd("900 nested lists", '{"clip":' + "[" * 900, image)


def tensors(path: str) -> Iterator[Odd]:
    for key in TENSOR:
        for value in VALUES:
            body = json.dumps({"inputs": [{**TENSOR, key: value}]}).encode()
            yield Odd(f"a tensor's {key} of {str(value)[:20]!r}", path, body, JSON)
    for shape in ([2**64], [-1], [1, 2**63], [1] * 1000, [0.5], [[1]], [10**9, 10**9]):
        for name in ("image", "text"):
            body = json.dumps({"inputs": [{**TENSOR, "name": name, "shape": shape}]}).encode()
            yield Odd(f"the shape {str(shape)[:20]}", path, body, JSON)
    binary = {key: value for key, value in TENSOR.items() if key != "data"}
    for size in (0, 4, 5, -1, 2**31, 2**63, 2**70, 1e300, "5", None, [5]):
        for data in (b"", b"\1\0\0\0x", b"\xff" * 8, bytes(10_000)):
            for number in (0, 1, 2, 2048, 10**9):
                made = {**binary, "shape": [number], "parameters": {"binary_data_size": size}}
                head = json.dumps({"inputs": [made]}).encode()
                length = {"Inference-Header-Content-Length": str(len(head))}
                yield Odd(f"{number} elements, {size} bytes", path, head + data, length)
    for told in ("-1", "0", "1", "99999999999", "9" * 5000, "0x1", "1.0", "", "a"):
        length = {"Inference-Header-Content-Length": told}
        yield Odd(
            f"a header of {told[:20]!r}", path, json.dumps({"inputs": [TENSOR]}).encode(), length
        )
