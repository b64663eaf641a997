"""The Open Inference Protocol, version 2, as clients of KServe and Triton speak it. Its
specification: github.com/kserve/open-inference-protocol.
"""

from importlib.metadata import version
from typing import Any

from starlette.responses import Response

from deployments.api.call import Call
from deployments.api.dialects import binary
from deployments.api.dialects.contents import StringError, string_error
from deployments.api.dialects.tensors import (
    OUTPUT,
    InferAnswer,
    InferBody,
    OipLive,
    OipModel,
    OipModelReady,
    OipReady,
    OipServer,
    OipTensor,
)
from deployments.api.endpoint import Dialect, Endpoint, get, post, probe
from deployments.api.fence import request_id
from deployments.api.schema import parse
from deployments.errors import BadRequest, InvalidItem, ModelNotFound
from deployments.items import BytesItem, Item, TextItem, parse_item, signature_of
from deployments.service.job import ItemGroup, ModelClient
from deployments.service.vectors import as_matrix

# Every model has one version, whatever its revision.
VERSION = "1"


async def live(call: Call) -> Response:
    return call.answer({"live": True})


async def ready(call: Call) -> Response:
    await call.service.ready()
    return call.answer({"ready": True})


async def server(call: Call) -> Response:
    extensions = ["binary_tensor_data"]
    return call.answer({"name": "raylens", "version": version("raylens"), "extensions": extensions})


async def metadata(call: Call) -> Response:
    card = _model(call).card
    return call.answer(
        {
            "name": card.id,
            "versions": [VERSION],
            "platform": f"raylens_{card.engine}",
            "inputs": [_tensor(name, "BYTES", -1) for name in card.modalities],
            "outputs": [_tensor(OUTPUT, "FP32", -1, card.dimensions)],
        }
    )


async def model_ready(call: Call) -> Response:
    card = await _model(call).ready()
    return call.answer({"name": card.id, "ready": True})


async def infer(call: Call) -> Response:
    model = call.request.path_params["model"]
    _model(call)  # a wrong name is refused before the body is parsed
    body, group = await _input(call)
    as_bytes = body.wants_binary()
    embedded = await call.embed([group], model)
    id = request_id(call.request) if body.id is None else body.id
    vectors = as_matrix(embedded.rows)
    return binary.answer(embedded.card.id, id, vectors, as_bytes=as_bytes)


async def _input(call: Call) -> tuple[InferBody, ItemGroup]:
    data = await call.raw()  # whatever its media type: Triton's clients send none
    head, behind = binary.split(data, call.request.headers.get(binary.JSON_LENGTH))
    body = parse(InferBody, await call.parsed(head))
    if len(body.inputs) != 1 or body.inputs[0].name not in READ:
        raise BadRequest(
            "Send one input, image or text. Images and texts are vectors of their own, so each "
            "kind is a request.",
            param="inputs",
        )
    tensor = body.inputs[0]
    found = binary.elements(tensor, behind, call.limits.max_items)
    return body, call.items(tensor.name, found, READ[tensor.name])


def _image(element: Any) -> Item:
    """A file's bytes; or a URL, a data URI or base64, as a string or encoded."""
    if isinstance(element, bytes):
        if signature_of(element) is not None:
            return BytesItem(element)
        try:
            element = element.decode()
        except UnicodeDecodeError:
            return BytesItem(element)
    return parse_item(_string(element), "image")


def _text(element: Any) -> Item:
    if isinstance(element, bytes):
        try:
            element = element.decode()
        except UnicodeDecodeError:
            raise InvalidItem("A text must be UTF-8.") from None
    return TextItem(_string(element))


def _string(element: Any) -> str:
    if not isinstance(element, str):
        raise InvalidItem("The elements of a tensor of BYTES are strings.")
    return element


READ = {"image": _image, "text": _text}
"""An element of each input as an item."""


def _model(call: Call) -> ModelClient:
    """The model of the path. Raises ModelNotFound, or Unavailable while it is being loaded."""
    asked = call.request.path_params
    if asked.get("version", VERSION) != VERSION:
        raise ModelNotFound(f"Every model has one version, {VERSION}.")
    return call.service.model(asked["model"])


def _tensor(name: str, datatype: str, *shape: int) -> OipTensor:
    return {"name": name, "datatype": datatype, "shape": [*shape]}


def _model_endpoints(base: str) -> tuple[Endpoint, ...]:
    return (
        post(
            f"{base}/infer",
            infer,
            "Embed a tensor, as JSON or binary data",
            InferAnswer,
            InferBody,
        ),
        get(f"{base}/ready", model_ready, "Is it ready?", OipModelReady, statuses=(404,)),
        get(base, metadata, "Its tensors", OipModel, statuses=(404,)),
    )


DIALECT = Dialect(
    "oip",
    error=string_error,
    error_answer=StringError,
    endpoints=(
        probe("/v2/health/live", live, "Is the process up?", OipLive),
        probe("/v2/health/ready", ready, "Are the models ready?", OipReady),
        get("/v2", server, "The server and its extensions", OipServer),
        # Before those without a version, whose `{model:path}` would match these as well.
        *_model_endpoints("/v2/models/{model:path}/versions/{version}"),
        *_model_endpoints("/v2/models/{model:path}"),
    ),
)
