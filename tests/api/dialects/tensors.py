"""Requests of the Open Inference Protocol with binary tensors, and their answers taken apart."""

import json
import struct
from typing import Any

import httpx
import numpy as np

URL = "/v2/models/fake/infer"
LENGTH = "Inference-Header-Content-Length"


def packed(*elements: bytes) -> bytes:
    """BYTES as the binary extension has them."""
    return b"".join(struct.pack("<I", len(e)) + e for e in elements)


def tensor(name: str, number: int, size: int | None = None, **more: Any) -> dict[str, Any]:
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": name, "shape": [number], "datatype": "BYTES", **parameters, **more}


async def send(
    client: httpx.AsyncClient, body: dict[str, Any], data: bytes, length: Any = None, url: str = URL
) -> httpx.Response:
    """JSON and the bytes behind it, as Triton's client sends them: without a media type."""
    head = json.dumps(body).encode()
    headers = {LENGTH: str(len(head)) if length is None else length}
    return await client.post(url, content=head + data, headers=headers)


def output(response: httpx.Response) -> np.ndarray[Any, Any]:
    """The output as an array, wherever it stands."""
    assert response.status_code == 200, response.text
    length = response.headers.get(LENGTH)
    content = json.loads(response.content[: int(length)] if length else response.content)
    (found,) = content["outputs"]
    assert (found["name"], found["datatype"]) == ("embedding", "FP32")
    if length is None:
        assert response.headers["content-type"] == "application/json"
        return np.array(found["data"], np.float32).reshape(found["shape"])
    assert response.headers["content-type"] == "application/octet-stream"
    data = response.content[int(length) :]
    assert found["parameters"] == {"binary_data_size": len(data)}
    assert "data" not in found
    return np.frombuffer(data, "<f4").reshape(found["shape"])
