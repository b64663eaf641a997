"""What crosses the handle between the ingress and a model: its card, stacks and their vectors.

Plain values only; knows neither Ray nor any engine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8 | np.float32]
"""(N, *shape) of an `ImageSpec`'s `shape` and `dtype`."""
Tokens = NDArray[np.int32]
"""(N, L) token ids, each row padded with -1 after its text's last token."""
Stack = NDArray[Any]
"""(N, …): Pixels or Tokens of one job that go to the model together."""
Vector = NDArray[np.float32]
"""(D,); or (P, D), of a model that gives several for each item"""
Vectors = NDArray[np.float32]
"""(N, D); or (N, P, D), of such a model"""
Precision = Literal["float32", "bfloat16", "float16", "int8"]
ImageFormat = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF"]


class ImageFacts(NamedTuple):
    """What an image is in its file, whatever the model makes of it."""

    width: int
    """In pixels, as `height`, and as stored: before EXIF turns the image."""
    height: int
    format: ImageFormat
    """A phone's MPO is a JPEG."""
    bit_depth: int
    """Bits of each channel; of a palette's colours, and not of the indices into it."""


class Decoded(NamedTuple):
    """An image ready for the model."""

    pixels: Pixels
    """Of the specification's `shape`, C-contiguous."""
    facts: ImageFacts


Resize = (
    tuple[Literal["shortest_edge"], int] | tuple[Literal["exact", "cover", "contain"], int, int]
)
"""How an image is resized: its short edge to n pixels; to (height, width) exactly; or, keeping its
aspect ratio, until it covers (height, width) or fits into that."""


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """The geometry a checkpoint expects: resize, then centre crop, all in uint8 RGB.

    `crop` is (height, width) in pixels, or None. `resample` is Pillow's filter number
    (0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming).
    Scaling and normalisation are not here: they happen inside the model's graph.
    """

    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.uint8)
    """Of the pixels that reach the model."""

    resize: Resize | None
    resample: int
    crop: tuple[int, int] | None
    centre: Literal["transformers", "torchvision"] = "transformers"
    """Whose rounding finds the centre, where half a pixel is left over."""
    fill: tuple[int, int, int] = (0, 0, 0)
    """The colour around an image that is smaller than the crop."""
    exact: bool = True
    """Whether pixels must equal Pillow's exactly. Otherwise torch may resize them, which is several
    times faster and sometimes one grey level off."""

    @property
    def height_width(self) -> tuple[int, int]:
        """(height, width) in pixels of every image that reaches the model."""
        if self.crop is not None:
            return self.crop
        if self.resize is not None and self.resize[0] == "exact":
            return self.resize[1], self.resize[2]
        raise ValueError("a pixel specification needs a crop or an exact size")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of every image that reaches the model."""
        return *self.height_width, 3


@dataclass(frozen=True, slots=True)
class ProcessorSpec:
    """The checkpoint's own image processor, for what a `PixelSpec` cannot say exactly.

    `name` is a PIL-backed class of transformers and `config` the JSON it is built from; its float32
    output goes into the model unchanged.
    """

    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    """Of the pixels that reach the model."""

    name: str
    config: str
    height_width: tuple[int, int]
    """(height, width) in pixels of every image that reaches the model."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of every image that reaches the model."""
        return *self.height_width, 3


@dataclass(frozen=True, slots=True)
class PatchSpec:
    """Patches of an image that keeps its own aspect ratio, as SigLIP 2 NaFlex takes them.

    An image becomes as many of them as its grid has cells, at most `max_patches`; what is left of
    the array is zero, so that images of all aspect ratios can be stacked.
    """

    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.uint8)
    """Of the patches that reach the model."""

    patch: int
    max_patches: int
    """Height and width of a patch in pixels, 2 or more; how many patches at most, 65535 or less."""
    resample: int
    exact: bool = True
    """These two as in `PixelSpec`."""

    @property
    def height_width(self) -> tuple[int, int]:
        """(height, width) in pixels of a square image that reaches the model."""
        edge = self.patch * math.isqrt(self.max_patches)
        return edge, edge

    @property
    def shape(self) -> tuple[int, int, int]:
        """(1 + P, patch * patch, 3): the first row holds the grid, each other row a patch."""
        return 1 + self.max_patches, self.patch * self.patch, 3

    def pack(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) of whole patches, at most `max_patches`, to an array of this `shape`.

        The first four bytes of the first row are the height and the width in patches, each a
        little-endian uint16. Patches are in reading order, and so are the pixels in each.
        """
        rows, columns = image.shape[0] // self.patch, image.shape[1] // self.patch
        packed = np.zeros(self.shape, np.uint8)
        packed[0].reshape(-1)[:4] = np.array([rows, columns], "<u2").view(np.uint8)
        cells = image.reshape(rows, self.patch, columns, self.patch, 3).swapaxes(1, 2)
        packed[1 : 1 + rows * columns] = cells.reshape(rows * columns, -1, 3)
        return packed

    def grids(self, stack: Pixels) -> NDArray[np.int64]:
        """(N, *shape) to (N, 2): each image's height and width in patches."""
        header = stack.reshape(len(stack), -1)[:, :4]
        return np.ascontiguousarray(header).view("<u2").astype(np.int64)


ImageSpec = PixelSpec | ProcessorSpec | PatchSpec
"""What becomes of an image before it reaches a model."""


@dataclass(frozen=True, slots=True)
class TextSpec:
    """What the ingress needs to know about a model's text tower, besides its tokenizer."""

    max_tokens: int
    """The longest text that the model reads, special tokens included."""
    score: Literal["softmax", "sigmoid", "maxsim"]
    """How cosines of an image with labels become probabilities:
    softmax or sigmoid of `logit_scale * cosine + logit_bias`. Or `maxsim`, where texts have a
    vector for each token as well: there are no probabilities, but late interaction."""
    logit_scale: float
    logit_bias: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an engine reports about its model. Reasons are for operators."""

    id: str
    revision: str | None
    identity: bytes
    """Vectors of models with different identities cannot be compared."""
    dimensions: int
    vectors_per_image: int | None
    """How many an image has, each of so many dimensions, if the model gives several; else None."""
    pixels: ImageSpec
    text: TextSpec | None
    """None for a model without a text tower in the image vectors' space."""
    precision: Precision
    precision_reason: str
    engine: Literal["openvino", "torch"]
    engine_reason: str
    device: str
    device_reason: str

    @property
    def vectors_bytes(self) -> int:
        """Of all vectors of an image, in float32."""
        return 4 * self.dimensions * (self.vectors_per_image or 1)

    @property
    def image_bytes(self) -> int:
        """Of an image's pixels or of its vectors, whichever are more."""
        pixels = math.prod(self.pixels.shape) * self.pixels.dtype.itemsize
        return max(pixels, self.vectors_bytes)

    @property
    def text_bytes(self) -> int:
        """Of the vectors of the longest text."""
        tokens = self.text.max_tokens if self.text is not None and self.vectors_per_image else 1
        return 4 * self.dimensions * tokens


@dataclass(frozen=True, slots=True)
class ModelCard(Loaded):
    """One served model, as `/v1/models` and the handle's `info()` show it."""

    aliases: tuple[str, ...]
    matryoshka: bool
    loaded_unix_s: int

    @property
    def modalities(self) -> tuple[str, ...]:
        return ("image",) if self.text is None else ("image", "text")

    @property
    def score(self) -> Literal["cosine", "maxsim"] | None:
        """How two items are compared; None if their several vectors are for no comparison."""
        if self.vectors_per_image is None:
            return "cosine"
        return "maxsim" if self.text is not None else None

    @property
    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) of an image's vectors, if they are of its patches, row by row. Patches
        are square, so their number tells; None where they do not fill the image."""
        if self.text is not None:  # the prompt has some as well
            return None
        height, width = self.pixels.height_width
        rows = math.isqrt((self.vectors_per_image or 0) * height // width)
        columns = rows * width // height
        fits = rows * columns == self.vectors_per_image and rows * width == columns * height
        return (rows, columns) if fits else None


class QueueState(NamedTuple):
    """How busy a model replica is with one modality."""

    replica: str = ""
    waiting: int = 0
    """Items that wait or are being computed."""
    item_s: float = 0.0
    """Seconds for each, in full batches and all lanes together; 0 before the first."""


class StackVectors(NamedTuple):
    """What the model deployment returns for one stack of N items."""

    vectors: Vectors
    """(N, D) or (N, P, D) float32, as the model computed them: not normalised."""
    queue_ms: float
    """From arrival to the moment the model took the first item."""
    model_ms: float
    """From that moment to the last vector."""
    queue: QueueState = QueueState()
    """Of the replica, when these were ready."""


class WrongModelError(Exception):
    """A stack was made for another model, which this one replaced or is about to replace."""

    identity: bytes
    """Of the model that received the stack."""

    def __init__(self, identity: bytes) -> None:
        super().__init__(identity)
        self.identity = identity


class NoMemoryError(Exception):
    """The model's device has no memory left, not even for one item."""


def pad_tokens(ids: Sequence[list[int]]) -> Tokens:
    """(N, L): a row for each text's token ids, see `Tokens`."""
    tokens = np.full((len(ids), max(map(len, ids), default=0)), -1, np.int32)
    for row, text in zip(tokens, ids, strict=True):
        row[: len(text)] = text
    return tokens


def join_tokens(stacks: Sequence[Tokens]) -> Tokens:
    """The rows of several stacks as one stack, as wide as the widest of them."""
    return pad_tokens([row[row >= 0].tolist() for part in stacks for row in part])
