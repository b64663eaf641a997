"""raylens's whole way from files and texts to vectors, compared with the authors' library's."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments.models.encoder import Encoder
from deployments.models.engines.openvino import OpenvinoEngine
from deployments.models.exported import Export
from deployments.models.precision import Settled
from deployments.pixels.decode import decode
from deployments.service.vectors import probabilities
from deployments.texts.tokenizer import TextTokenizer
from deployments.wire import ImageSpec, Pixels, TextSpec, Tokens, pad_tokens
from tests.models.reference import upright_rgb

TEXTS = (
    "",
    " ",
    "a photo of a cat",
    "A Photo of a CAT!!",
    "🎉🎉 👩‍👩‍👧 🏳️‍🌈",
    "word " * 500,
    "".join(f"n{i}, " for i in range(500)),
    "naïve café, über straße",
    "北京的一只猫。 東京タワー",
    "мир, привет; سلام",
    "line\none\ttwo  three\u00a0four",
    "https://example.org/?q=1&r=2 #tag @home 3.14",
)
LABELS = ("a photo of a cat.", "a photo of a dog.", "a house", "猫", "the quick brown fox")

Vectors = NDArray[np.float64]


class Reference(Protocol):
    """A checkpoint as the library it is made for reads it. Nothing in it may be raylens's."""

    reads_blanks: bool
    """Whether an empty text has tokens, and so a vector."""

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """RGB images to (N, D) or (N, P, D), not normalised."""

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D), not normalised; or those of all tokens of all texts."""

    def probabilities(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Any:
        """(images, texts), from the model's own logits."""


@dataclass(frozen=True)
class Comparison:
    """How far raylens is from the reference, over all images and texts."""

    image: float
    """The lowest cosine of an image's two vectors."""
    spread: float
    """The lowest cosine of two different images, in the reference alone. If it were near 1, no
    mistake with an image would show."""
    text: float | None = None
    text_spread: float | None = None
    probability: float | None = None
    """The largest difference of a label's two probabilities."""


@dataclass(frozen=True)
class Served:
    """A model as raylens serves it, whatever runs it. Both functions give raw vectors."""

    pixels: ImageSpec
    text: TextSpec | None
    tokenizer_json: str | None
    encode: Callable[[Pixels], NDArray[np.float32]]
    encode_text: Callable[[Tokens], NDArray[np.float32]]


def in_torch(encoder: Encoder) -> Served:
    return Served(
        encoder.preprocessing.pixels,
        encoder.text,
        encoder.tokenizer_json,
        encoder.encode,
        encoder.encode_text,
    )


def in_openvino(export: Export, settled: Settled) -> Served:
    engine = OpenvinoEngine(export, settled, threads=1)
    loaded = engine.loaded
    return Served(
        loaded.pixels,
        loaded.text,
        engine.tokenizer_json,
        lambda pixels: asyncio.run(engine.encode(pixels)),
        lambda tokens: asyncio.run(engine.encode_text(tokens)),
    )


def compare(
    model: Served,
    reference: Reference,
    files: Mapping[str, bytes],
    texts: Sequence[str] = TEXTS,
) -> Comparison:
    """Embeds `files`, `texts` and `LABELS` both ways."""
    images = [upright_rgb(data) for data in files.values()]
    ours, theirs = embed(model, files), unit(reference.images(images))
    image, image_spread = lowest(ours, theirs), spread(theirs)
    if model.text is None:
        return Comparison(image, image_spread)
    texts = [text for text in texts if text.strip() or reference.reads_blanks]
    our_texts, their_texts = embed_text(model, texts), unit(reference.texts(texts))
    text, text_spread = lowest(our_texts, their_texts), spread(their_texts)
    if model.text.score == "maxsim":
        return Comparison(image, image_spread, text, text_spread)
    cosines = ours @ embed_text(model, LABELS).T
    scores = probabilities(cosines.astype(np.float32), model.text)
    return Comparison(
        image,
        image_spread,
        text,
        text_spread,
        float(np.abs(scores - reference.probabilities(images, LABELS)).max()),
    )


def embed(model: Served, files: Mapping[str, bytes]) -> Vectors:
    """(N, D) of length 1; or (N * P, D)."""
    values = [decode(data, model.pixels, max_pixels=10**8).pixels for data in files.values()]
    halves = np.array_split(np.stack(values), 2)  # as if they came in batches
    return unit(np.concatenate([model.encode(half) for half in halves]))


def embed_text(model: Served, texts: Sequence[str]) -> Vectors:
    """(N, D) of length 1."""
    assert model.tokenizer_json is not None
    assert model.text is not None
    tokenizer = TextTokenizer(model.tokenizer_json, max_tokens=model.text.max_tokens)
    ids = [encoded.ids for encoded in tokenizer.encode(texts)]
    half = len(ids) // 2
    vectors = []
    for part in (ids[:half], ids[half:]):
        found = model.encode_text(pad_tokens(part))
        if found.ndim == 3:  # a vector for each token
            found = np.concatenate([v[: len(i)] for v, i in zip(found, part, strict=True)])
        vectors.append(found)
    return unit(np.concatenate(vectors))


def unit(vectors: NDArray[Any]) -> Vectors:
    # In float32, rounding here would hide what is to be measured.
    rows = vectors.astype(np.float64).reshape(-1, vectors.shape[-1])
    normalised: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalised


def lowest(ours: Vectors, theirs: Vectors) -> float:
    return float((ours * theirs).sum(axis=1).min())


def spread(vectors: Vectors) -> float:
    parts = np.array_split(vectors, 1 + len(vectors) // 1000)  # thousands of patches are too many
    return min(float((part @ vectors.T).min()) for part in parts)
