"""Triton's client over HTTP: https://github.com/triton-inference-server/client."""

import asyncio

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_async
from report import MODEL, Report, run
from tritonclient.utils import InferenceServerException


def tensor(name: str, elements: list[bytes] | list[str], binary: bool = True) -> triton.InferInput:
    array = np.array(elements, dtype=np.object_)
    made = triton.InferInput(name, [*array.shape], "BYTES")
    return made.set_data_from_numpy(array, binary_data=binary)


def main(report: Report) -> None:
    address = report.url.removeprefix("http://")
    client = triton.InferenceServerClient(address)
    texts = list(report.texts)
    encoded = [uri.partition(",")[2] for uri in report.data_uris]

    def embed(made: triton.InferInput, model: str = MODEL, **options: object) -> object:
        return client.infer(model, [made], **options).as_numpy("embedding")

    report.check("live", client.is_server_live)
    report.check("ready", client.is_server_ready)
    report.check("model ready", lambda: client.is_model_ready(MODEL))
    report.check("version 1", lambda: client.is_model_ready(MODEL, "1"))
    report.check("no such model", lambda: not client.is_model_ready("resnet50"))
    server = client.get_server_metadata()
    report.check("server", lambda: server["extensions"] == ["binary_tensor_data"])
    model = client.get_model_metadata(MODEL)
    report.check("inputs", lambda: [i["name"] for i in model["inputs"]] == ["image", "text"])

    report.same("texts", embed(tensor("text", texts)), texts)
    photos = [photo.read_bytes() for photo in report.photos]
    report.same("files", embed(tensor("image", photos)), report.photo_items)
    report.same("base64", embed(tensor("image", encoded)), report.photo_items)
    report.same("URLs", embed(tensor("image", report.photo_urls)), report.photo_items)
    column = np.array([[photo] for photo in photos], dtype=np.object_)
    batched = triton.InferInput("image", [len(photos), 1], "BYTES").set_data_from_numpy(column)
    report.same("a column", embed(batched, model_version="1"), report.photo_items)

    report.same("texts in JSON", embed(tensor("text", texts, binary=False)), texts)
    as_json = triton.InferRequestedOutput("embedding", binary_data=False)
    for binary in (True, False):
        made = tensor("image", encoded, binary=binary)
        report.same("base64 in JSON", embed(made, outputs=[as_json]), report.photo_items)
    as_bytes = triton.InferRequestedOutput("embedding", binary_data=True)
    report.same("an output", embed(tensor("text", texts), outputs=[as_bytes]), texts)
    answer = client.infer(MODEL, [tensor("text", texts)], request_id="42").get_response()
    report.check("id", lambda: (answer["id"], answer["model_name"]) == ("42", MODEL))
    pending = client.async_infer(MODEL, [tensor("text", texts)])
    report.same("async_infer", pending.get_result().as_numpy("embedding"), texts)

    async def embed_async() -> object:
        async with triton_async.InferenceServerClient(address) as client:
            return (await client.infer(MODEL, [tensor("text", texts)])).as_numpy("embedding")

    report.same("aio", asyncio.run(embed_async()), texts)

    def refused(what: str, sentence: str, *inputs: triton.InferInput, model: str = MODEL) -> None:
        report.refused(
            what, InferenceServerException, sentence, lambda: client.infer(model, [*inputs])
        )

    refused("an unknown model", "does not have that model", tensor("text", ["a"]), model="clip")
    refused("both", "one input", tensor("text", ["a"]), tensor("image", photos))
    refused("no image", "not an image in a format", tensor("image", [b"\0\1\2\xff"]))
    refused("a broken image", "broken or cut short", tensor("image", [photos[0][:500]]))
    floats = triton.InferInput("image", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
    refused("pixels", "datatype BYTES", floats)
    client.close()


if __name__ == "__main__":
    run("tritonclient", main)
