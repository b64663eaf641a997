"""The interface of every engine, and the checks they share. Imports neither torch nor OpenVINO."""

import hashlib
from dataclasses import replace
from typing import Protocol

import numpy as np

from deployments.wire import (
    Loaded,
    Pixels,
    PixelSpec,
    Precision,
    ProcessorSpec,
    TextSpec,
    Tokens,
    Vectors,
)

ON_CPU = "this process runs on the CPU"


class EngineError(Exception):
    """The engine does not work any more, or not as it should; the message says what is wrong."""


class Engine(Protocol):
    """A loaded model. Its methods are awaited on the replica's event loop, and do not block it."""

    loaded: Loaded
    tokenizer_json: str | None
    """For `tokenizers.Tokenizer.from_str`; None without a text tower."""
    slots: int
    """How many batches of images run side by side."""
    text_slots: int
    """The same for texts."""

    async def embed(self, pixels: Pixels) -> Vectors:
        """(N, H, W, 3), of `loaded.pixels`' dtype and size, to raw vectors, (N, D) float32.

        Raises ValueError for another shape or dtype.
        """

    async def embed_text(self, tokens: Tokens) -> Vectors:
        """int32 (N, L) to raw vectors, (N, D) float32; rows are filled up with -1.

        Raises ValueError for another dtype, for rows that are empty or too long, and without a
        text tower.
        """

    async def warm_up(self, *, images: int, texts: int) -> None:
        """Runs what would make the first callers wait, for batches of up to so many."""

    async def prove(self) -> None:
        """Runs an image, and a text if texts are read. Raises EngineError for wrong vectors."""

    async def check(self, *, stuck_after_s: float) -> None:
        """Raises EngineError if a batch has been running for longer than that."""


def check_pixels(pixels: Pixels, spec: PixelSpec | ProcessorSpec) -> None:
    """Raises ValueError for what is not a stack of such images."""
    shape = (*spec.size, 3)
    if pixels.dtype != spec.dtype or pixels.ndim != 4 or pixels.shape[1:] != shape:
        raise ValueError(
            f"pixels should be {spec.dtype} (N, {', '.join(map(str, shape))}), "
            f"not {pixels.dtype} {pixels.shape}"
        )


def check_tokens(tokens: Tokens, spec: TextSpec | None) -> None:
    """Raises ValueError for what is not a stack of texts that the model reads."""
    if spec is None:
        raise ValueError("the model has no text tower")
    most = spec.max_tokens
    if tokens.dtype != np.int32 or tokens.ndim != 2 or not 1 <= tokens.shape[1] <= most:
        raise ValueError(
            f"tokens should be int32 (N, 1 to {most}), not {tokens.dtype} {tokens.shape}"
        )
    if (tokens[:, 0] < 0).any():
        raise ValueError("every row of tokens should begin with a token")


def as_fast_as(
    precision: Precision, spec: PixelSpec | ProcessorSpec, *, tolerant: bool
) -> PixelSpec | ProcessorSpec:
    """`spec`, with inexact resizing where it moves vectors far less than the precision does."""
    if precision != "float32" and tolerant and isinstance(spec, PixelSpec):
        return replace(spec, exact=False)
    return spec


def identity_in(precision: Precision, identity: bytes) -> bytes:
    """A model's identity as its vectors have it: those of two precisions are told apart."""
    return hashlib.sha256(identity + precision.encode()).digest()
