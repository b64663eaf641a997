"""Tensors as bytes behind the JSON: Triton's binary tensor data extension, as it stands in
github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md.

Nothing is allocated before the bytes for it are known to be there.
"""

from typing import Any

import orjson
from starlette.responses import Response

from deployments.api.dialects.tensors import OUTPUT, InputTensor
from deployments.api.render import Answer, json_response
from deployments.errors import BadRequest
from deployments.service.options import too_many_items
from deployments.wire import Vectors

JSON_LENGTH = "Inference-Header-Content-Length"
"""The header with the length of the JSON, if bytes follow."""


def split(body: bytes, json_length: str | None) -> tuple[bytes, memoryview | None]:
    """The JSON of a body and the bytes behind it, which are None without the header.

    Raises BadRequest for a length that is no number, or more than there is.
    """
    if json_length is None:
        return body, None
    # Not thousands of digits either, which int() refuses.
    is_number = json_length.isascii() and json_length.isdigit() and len(json_length) < 20
    if not is_number or (length := int(json_length)) > len(body):
        raise BadRequest(f"{JSON_LENGTH} must be the length of the JSON in the body, in bytes.")
    return body[:length], memoryview(body)[length:]


def elements(tensor: InputTensor, behind: memoryview | None, limit: int) -> list[Any]:
    """The n elements of a tensor of shape [n] or [n, 1]: bytes of `behind`, or whatever stands in
    its `data`.

    Raises BadRequest, or TooManyItems beyond `limit`: before anything is made of them.
    """
    param = f"inputs.{tensor.name}"
    if tensor.datatype != "BYTES":
        raise BadRequest(f"{tensor.name} must have the datatype BYTES.", param=param)
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]) or tensor.shape[0] < 0:
        raise BadRequest(f"{tensor.name} must have the shape [n] or [n, 1].", param=param)
    number = tensor.shape[0]
    if number > limit:
        raise too_many_items(number, limit, param=param)
    size = tensor.parameters.binary_data_size if tensor.parameters is not None else None
    if (size is None) == (tensor.data is None):
        raise BadRequest(
            f"{tensor.name} must have either data, or binary_data_size in its parameters and the "
            f"bytes behind the JSON.",
            param=param,
        )
    if tensor.data is None:
        if behind is None:
            raise BadRequest(f"binary_data_size needs the header {JSON_LENGTH}.", param=param)
        if size != len(behind):
            raise BadRequest(
                f"binary_data_size is {size}, but {len(behind)} bytes follow the JSON.", param=param
            )
        return _unpacked(behind, number, tensor.name)
    if behind:
        raise BadRequest("Bytes follow the JSON that no input has a binary_data_size for.")
    found = [e for row in tensor.data for e in (row if isinstance(row, list) else [row])]
    if len(found) != number:
        raise BadRequest(
            f"{tensor.name} has {len(found)} elements, and by its shape {number}.", param=param
        )
    return found


def _unpacked(data: memoryview, number: int, name: str) -> list[bytes]:
    """BYTES elements: each the length as four bytes, little-endian, and so many bytes."""
    found: list[bytes] = []
    end = 0
    for index in range(number):
        start = end + 4
        length = int.from_bytes(data[end:start], "little")
        end = start + length
        if end > len(data):  # also if the length itself is cut short
            raise BadRequest(f"The bytes of {name} end within its element {index}.")
        found.append(bytes(data[start:end]))
    if end < len(data):
        raise BadRequest(f"{len(data) - end} bytes follow the last element of {name}.")
    return found


def answer(model: str, id: str, vectors: Vectors, *, as_bytes: bool) -> Response:
    """(N, D) vectors as the output, in the JSON or as little-endian float32 behind it."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": vectors.shape}
    content = {"model_name": model, "id": id, "outputs": [output]}
    if not as_bytes:
        output["data"] = vectors.ravel()
        return json_response(content)
    data = vectors.astype("<f4", copy=False).tobytes()
    output["parameters"] = {"binary_data_size": len(data)}
    head = orjson.dumps(content)
    headers = {JSON_LENGTH: str(len(head))}
    return Answer(head + data, headers=headers, media_type="application/octet-stream")
