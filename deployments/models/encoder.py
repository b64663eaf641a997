"""Pixels and tokens to vectors in torch: one loaded model, its device and its forward passes.

Knows nothing of requests, batching, Ray or the threads that it runs in (see `engines.torch`).
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deployments import torchvision_operators
from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, first_line
from deployments.checkpoints.finding import find_checkpoint, find_text_checkpoint
from deployments.checkpoints.integrity import identity
from deployments.models.casting import cast
from deployments.models.engines.engine import ON_CPU, as_fast_as, check_pixels, check_tokens
from deployments.models.layouts import choice
from deployments.models.layouts.layout import LoadedCheckpoint
from deployments.models.precision import Settled
from deployments.models.probes import SENTENCES, photos
from deployments.models.spec import Preprocessing
from deployments.models.towers import Towers, image_tower
from deployments.settings import ModelSettings
from deployments.texts.tokenizer import TextTokenizer
from deployments.threads import thread_count
from deployments.wire import (
    NoMemoryError,
    Pixels,
    ProcessorSpec,
    TextSpec,
    Tokens,
    Vectors,
    pad_tokens,
)

# About a caption's length. Warming up with the longest texts of a BERT would take minutes.
_WARM_TOKENS = 16

UNSETTLED = Settled("float32", "float32, because nothing else was asked for")


class Encoder:
    """Turns images and texts, preprocessed as the checkpoint wants them, into its vectors."""

    def __init__(
        self,
        image_tower: nn.Module,
        text_tower: nn.Module | None,
        *,
        checkpoint: Checkpoint,
        preprocessing: Preprocessing,
        pooling: str = "",
        tolerant: bool = False,
        rules: str = "",
        several: bool = False,
        text: TextSpec | None = None,
        tokenizer_json: str | None = None,
        device: str = "cpu",
        device_reason: str = "cpu, because nothing else was asked for",
        settled: Settled = UNSETTLED,
    ) -> None:
        """Takes over the towers, which are on `device`, and runs them once to learn D.

        `pooling`, `tolerant`, `rules` and `several` are as in `LoadedCheckpoint`; `text` and
        `tokenizer_json` belong to `text_tower`. Raises CheckpointError if the model does not give
        one vector for each image and each text, or as many as it should, all of one length.
        """
        self.checkpoint = checkpoint
        self.pooling = pooling
        self.tolerant = tolerant
        self._rules = rules
        self.preprocessing = preprocessing
        self.text = text
        self.tokenizer_json = tokenizer_json
        self.device = device
        self.device_reason = device_reason
        self.precision, self.precision_reason = settled
        self.image_tower = image_tower
        self.text_tower = text_tower
        self._cuda = threading.local()
        self._photos = photos(preprocessing.pixels)
        height, width = preprocessing.pixels.height_width
        what = f"an image of {height} x {width} pixels"
        self._of_image = self._shape_of(
            what, lambda: self.encode(self._some_pixels(2)), several=several
        )
        self.dimensions = self._of_image[-1]
        self.vectors_per_image = self._of_image[0] if several else None
        if text_tower is not None:
            self._of_text = self._shape_of(
                "a text", lambda: self.encode_text(self._some_tokens(2)), several=several
            )
            if self._of_text[-1] != self.dimensions:
                raise CheckpointError(
                    f"model {checkpoint.id!r} gives {self.dimensions} numbers for an image and "
                    f"{self._of_text[-1]} for a text, which cannot be compared; correct "
                    "model.text_id, or download the model again"
                )

    @classmethod
    def load(cls, settings: ModelSettings) -> Self:
        """Finds, checks and loads the configured checkpoint. Blocks, for seconds to minutes.

        Call it in the thread that will run the model: it sets torch's number of threads, which
        applies per calling thread. Raises CheckpointError if the model cannot be served here.
        """
        try:
            torchvision_operators.declare()
        except ImportError as error:
            raise CheckpointError(str(error)) from error
        device, device_reason = _choose_device(settings.device)
        torch.set_num_threads(thread_count(settings.threads))
        # Otherwise GPUs round the input of convolutions to 10 bits, and float32 is not float32.
        torch.backends.cudnn.allow_tf32 = False
        checkpoint = find_checkpoint(settings)
        text_checkpoint = find_text_checkpoint(settings)
        loaded = choice.load(checkpoint, settings, text_checkpoint)
        preprocessing, text = loaded.preprocessing, loaded.text

        def towers(loaded: LoadedCheckpoint) -> Towers:
            # Pixels arrive with channels last, and convolutions are faster that way.
            image = image_tower(loaded.vision, loaded.preprocessing).to(device)
            image.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return Towers(image, loaded.text.tower.to(device) if loaded.text is not None else None)

        tokens = None
        if text is not None:
            tokens = _tokenize(SENTENCES, text.tokenizer.json, text.spec)

        encoder = partial(
            cls,
            checkpoint=checkpoint,
            pooling=loaded.pooling,
            tolerant=loaded.tolerant,
            rules=loaded.rules,
            several=loaded.several,
            text=text.spec if text is not None else None,
            tokenizer_json=text.tokenizer.json if text is not None else None,
            device=device,
            device_reason=device_reason,
        )
        first = towers(loaded)
        try:
            chosen, settled = cast(
                first,
                reload=lambda: towers(choice.load(checkpoint, settings, text_checkpoint)),
                settings=settings,
                device=device,
                pixels=photos(preprocessing.pixels),
                tokens=tokens,
            )
        except CheckpointError:
            raise
        except Exception as error:  # it fails in float32, and an encoder's checks say at what
            encoder(first.image, first.text, preprocessing=preprocessing)
            why = f"cannot embed some photo or sentence ({type(error).__name__})"
            raise CheckpointError(f"model {checkpoint.id!r} {why}") from error
        if device != "cpu":
            # Unused memory belongs to the stream that it was last used in, and batches have others.
            torch.cuda.empty_cache()
        pixels = as_fast_as(settled.precision, preprocessing.pixels, tolerant=loaded.tolerant)
        preprocessing = replace(preprocessing, pixels=pixels)
        return encoder(chosen.image, chosen.text, preprocessing=preprocessing, settled=settled)

    def identity(self) -> bytes:
        """A hash of the model's weights and of how items become vectors with them.

        Excludes the precision that it runs in (see `engines.engine.identity_in`).
        """
        pixels = self.preprocessing.pixels
        if not isinstance(pixels, ProcessorSpec):
            pixels = replace(pixels, exact=True)
        preprocessing = replace(self.preprocessing, pixels=pixels)
        parts = (identity(self.checkpoint), self._rules, preprocessing, self.text)
        return hashlib.sha256(repr(parts).encode()).digest()

    def encode(self, pixels: Pixels) -> Vectors:
        """(N, *shape) to float32 (N, D), or (N, P, D): the model's own vectors, not normalised.

        Shape and dtype are those of `preprocessing.pixels`. Raises ValueError for anything else,
        and NoMemoryError if the GPU has no memory left for so many.
        """
        check_pixels(pixels, self.preprocessing.pixels)
        return self._run(self.image_tower, pixels)

    def encode_text(self, tokens: Tokens) -> Vectors:
        """int32 (N, L) to float32 (N, D) in the space of the images' vectors, not normalised; or
        to (N, L, D), zeros where a text has ended, of a model with several `vectors_per_image`.

        Rows are padded with -1 after their tokens. Raises ValueError for anything else, for rows
        that are empty or longer than `text.max_tokens`, and without a text tower.
        """
        check_tokens(tokens, self.text)
        assert self.text_tower is not None  # noqa: S101  (it comes with `text`)
        return self._run(self.text_tower, tokens)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Texts as `encode_text` takes them. Raises ValueError without a text tower."""
        if self.tokenizer_json is None or self.text is None:
            raise ValueError("the model has no text tower")
        return _tokenize(texts, self.tokenizer_json, self.text)

    def warm_up(self, images: int) -> None:
        """Runs one batch of `images` images, so that no request waits for the first of that size.

        Raises CheckpointError if the vectors are not finite, or of another shape than before.
        """
        self._check(self.encode(self._some_pixels(images)), (images, *self._of_image))

    def warm_up_text(self, texts: int) -> None:
        """The same for a batch of `texts`."""
        self._check(self.encode_text(self._some_tokens(texts)), (texts, *self._of_text))

    def _run(self, tower: nn.Module, stack: NDArray[Any]) -> Vectors:
        try:
            return self._forward(tower, stack)
        except torch.cuda.OutOfMemoryError:
            pass  # until here, its traceback holds what was computed so far
        torch.cuda.empty_cache()  # what is free is in blocks of the wrong sizes
        raise NoMemoryError(f"the GPU has no memory left for a batch of {len(stack)}")

    @torch.inference_mode()
    def _forward(self, tower: nn.Module, stack: NDArray[Any]) -> Vectors:
        # Copies only what Ray hands over read-only, which torch would warn about.
        values = torch.from_numpy(np.require(stack, requirements=["C", "W"]))
        if self.device == "cpu":
            return tower(values).numpy()  # type: ignore[no-any-return]
        # A stream for each thread: one batch is copied while another is computed.
        if not hasattr(self._cuda, "stream"):
            self._cuda.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            # In which the weights may still be on their way.
            self._cuda.stream.wait_stream(torch.cuda.default_stream(self.device))
        with torch.cuda.stream(self._cuda.stream):
            values = values.pin_memory().to(self.device, non_blocking=True)
            return tower(values).cpu().numpy()  # type: ignore[no-any-return]

    def _check(self, vectors: Vectors, shape: tuple[int, ...]) -> None:
        if vectors.shape != shape or not np.isfinite(vectors).all():
            raise CheckpointError(
                f"model {self.checkpoint.id!r} gives vectors that are not finite, or not one "
                f"for each item of a batch of {shape[0]}; its weights may be damaged"
            )

    def _shape_of(
        self, what: str, vectors: Callable[[], Vectors], *, several: bool = False
    ) -> tuple[int, ...]:
        """(D,), or (P, D) of `several`: what each item of a batch of 2 has."""
        try:
            found = vectors()
        except Exception as error:  # a model class may raise anything about its input
            raise CheckpointError(
                f"model {self.checkpoint.id!r} cannot embed {what} "
                f"({type(error).__name__}: {first_line(error)})"
            ) from error
        if found.ndim != (3 if several else 2) or len(found) != 2:
            number = "several vectors" if several else "one vector"
            raise CheckpointError(
                f"model {self.checkpoint.id!r} does not give {number} for {what}, so it cannot "
                "be served"
            )
        shape: tuple[int, ...] = found.shape[1:]
        return shape

    def _some_pixels(self, size: int) -> Pixels:
        return np.resize(self._photos, (size, *self._photos.shape[1:]))

    def _some_tokens(self, size: int) -> Tokens:
        length = min(_WARM_TOKENS, self.text.max_tokens) if self.text else 1
        return np.ones((size, length), np.int32)


def _tokenize(texts: Sequence[str], json: str, text: TextSpec) -> Tokens:
    encoded = TextTokenizer(json, max_tokens=text.max_tokens).encode(texts)
    return pad_tokens([ids for ids, _ in encoded if ids])  # some make none of an empty text


def _choose_device(wanted: str) -> tuple[str, str]:
    """The device and the reason for it, as `/v1/models` shows them."""
    if wanted == "cpu":
        return "cpu", ON_CPU
    if torch.cuda.is_available():
        return "cuda:0", f"cuda:0, because this process sees a {torch.cuda.get_device_name(0)}"
    built = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
    why = "this process sees no GPU" if built else "this PyTorch is built without CUDA"
    if wanted == "cuda":
        raise CheckpointError(
            f"model.device is 'cuda', but {why}; give the replica a GPU and a CUDA build of "
            "PyTorch, or set model.device to 'auto'"
        )
    return "cpu", f"cpu, because {why}"
