"""The JSON of the Open Inference Protocol: tensors of strings in, of float32 out."""

from typing import Any, Literal, NotRequired

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from deployments.api.schema import Body, ListOf, WholeNumber
from deployments.errors import BadRequest

OUTPUT = "embedding"
# More than the one that may be sent, so that a second one is refused in a sentence of its own.
MOST_TENSORS = 16


class InputParameters(BaseModel):
    binary_data_size: WholeNumber | None = Field(None, ge=0)


class InputTensor(BaseModel):
    name: str
    shape: ListOf[WholeNumber]
    datatype: str
    parameters: InputParameters | None = None
    data: list[Any] | None = None


class OutputParameters(BaseModel):
    binary_data: bool | None = None
    classification: Any = None
    shared_memory_region: Any = None


class RequestedOutput(BaseModel):
    name: str
    parameters: OutputParameters | None = None


class InferParameters(BaseModel):
    binary_data_output: bool | None = None


class InferBody(Body):
    id: str | None = None
    inputs: ListOf[InputTensor] = Field(max_length=MOST_TENSORS)
    outputs: ListOf[RequestedOutput] | None = Field(None, max_length=MOST_TENSORS)
    parameters: InferParameters | None = None

    def wants_binary(self) -> bool:
        """Whether the output is to be bytes. Raises BadRequest for what is not to be had."""
        wanted = self.parameters is not None and self.parameters.binary_data_output is True
        for output in self.outputs or ():
            if output.name != OUTPUT:
                raise BadRequest(f"The only output is {OUTPUT}.", param="outputs")
            asked = output.parameters or OutputParameters()
            if asked.classification is not None or asked.shared_memory_region is not None:
                raise BadRequest(
                    "Outputs come in the answer, without classification.", param="outputs"
                )
            if asked.binary_data is not None:
                wanted = asked.binary_data
        return wanted


class OutputSize(TypedDict):
    binary_data_size: int


class OutputTensor(TypedDict):
    name: str
    datatype: Literal["FP32"]
    shape: list[int]
    data: NotRequired[list[float]]
    parameters: NotRequired[OutputSize]


class InferAnswer(TypedDict):
    model_name: str
    id: str
    outputs: list[OutputTensor]


class OipLive(TypedDict):
    live: bool


class OipReady(TypedDict):
    ready: bool


class OipServer(TypedDict):
    name: str
    version: str
    extensions: list[str]


class OipTensor(TypedDict):
    name: str
    datatype: str
    shape: list[int]


class OipModel(TypedDict):
    name: str
    versions: list[str]
    platform: str
    inputs: list[OipTensor]
    outputs: list[OipTensor]


class OipModelReady(TypedDict):
    name: str
    ready: bool
