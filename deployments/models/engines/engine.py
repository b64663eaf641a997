"""The interface of every engine, and the checks they share. Imports neither torch nor OpenVINO."""

import hashlib
from dataclasses import replace
from typing import Protocol

import numpy as np

from deployments.wire import (
    ImageSpec,
    Loaded,
    PatchSpec,
    Pixels,
    Precision,
    ProcessorSpec,
    TextSpec,
    Tokens,
    Vectors,
)

ON_CPU = "this process runs on the CPU"


class EngineError(Exception):
    """The engine has stopped working, or does not work as it should; the message says why."""


class Engine(Protocol):
    """A loaded model. Its methods run on the replica's event loop, and do not block it."""

    loaded: Loaded
    tokenizer_json: str | None
    """For `TextTokenizer`; None without a text tower."""
    lanes: int
    """How many batches of images run in parallel."""
    text_lanes: int
    """The same for texts."""

    async def encode(self, pixels: Pixels) -> Vectors:
        """(N, *shape), of `loaded.pixels`' shape and dtype, to raw float32 (N, D) or, of several
        `loaded.vectors_per_image`, (N, P, D).

        Raises ValueError for anything else.
        """

    async def encode_text(self, tokens: Tokens) -> Vectors:
        """int32 (N, L), with rows padded with -1, to raw (N, D) float32.

        Raises ValueError for another dtype, for rows that are empty or too long, and without a
        text tower.
        """

    async def warm_up(self, *, images: int, texts: int) -> None:
        """Does what would make the first requests wait, for batches of up to so many."""

    async def prove(self) -> None:
        """Embeds an image, and a text if it can. Raises EngineError for wrong vectors."""

    def check(self, *, stuck_after_s: float) -> None:
        """Raises EngineError if a batch has been running for longer than `stuck_after_s`."""


def check_pixels(pixels: Pixels, spec: ImageSpec) -> None:
    """Raises ValueError unless `pixels` is a stack of images that fit `spec`."""
    if pixels.dtype != spec.dtype or pixels.shape[1:] != spec.shape:
        raise ValueError(
            f"pixels should be {spec.dtype} (N, {', '.join(map(str, spec.shape))}), "
            f"not {pixels.dtype} {pixels.shape}"
        )
    if isinstance(spec, PatchSpec):
        grids = spec.grids(pixels)
        if (grids < 1).any() or (grids.prod(axis=1) > spec.max_patches).any():
            raise ValueError(f"each image should have 1 to {spec.max_patches} patches")


def check_tokens(tokens: Tokens, spec: TextSpec | None) -> None:
    """Raises ValueError unless `tokens` is a stack of texts that fit `spec`."""
    if spec is None:
        raise ValueError("the model has no text tower")
    most = spec.max_tokens
    if tokens.dtype != np.int32 or tokens.ndim != 2 or not 1 <= tokens.shape[1] <= most:
        raise ValueError(
            f"tokens should be int32 (N, 1 to {most}), not {tokens.dtype} {tokens.shape}"
        )
    if (tokens[:, 0] < 0).any():
        raise ValueError("every row of tokens should begin with a token")


def as_fast_as(precision: Precision, spec: ImageSpec, *, tolerant: bool) -> ImageSpec:
    """`spec`, with inexact resizing if it changes vectors far less than the precision does."""
    if precision != "float32" and tolerant and not isinstance(spec, ProcessorSpec):
        return replace(spec, exact=False)
    return spec


def identity_in(precision: Precision, identity: bytes) -> bytes:
    """The identity of a model's vectors, which differs between precisions."""
    return hashlib.sha256(identity + precision.encode()).digest()
