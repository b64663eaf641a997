"""What every layout's reader makes of a checkpoint's folder."""

from dataclasses import dataclass

from torch import nn

from deployments.models.spec import Preprocessing
from deployments.models.texts import CheckpointTokenizer
from deployments.wire import TextSpec


@dataclass(frozen=True, slots=True)
class TextHalf:
    """The half of a dual encoder that reads texts."""

    tower: nn.Module
    """int32 (N, L) tokens, each row padded with -1 after its text, to float32 (N, D); or to
    (N, L, D) if there are `several`, zeros where a text has ended."""
    spec: TextSpec
    tokenizer: CheckpointTokenizer


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A checkpoint's model, in float32 on the CPU, and all that is needed to feed it."""

    vision: nn.Module
    """Normalised (N, 3, H, W) to (N, D). For a `PatchSpec`, normalised (N, P, patch * patch * 3)
    and int64 (N, 2), each image's height and width in patches, to (N, D). Or, if there are
    `several`, to (N, P, D)."""
    preprocessing: Preprocessing
    text: TextHalf | None
    pooling: str
    """In one word, how an image's output becomes its vector, or its vectors."""
    tolerant: bool
    """Whether pixels off by one grey level here and there leave the vector as it is (a cosine of
    1.000000), so that images may be resized faster if the model is not in float32 anyway."""
    rules: str
    """How items become vectors, for the model's identity: the `repr` of what decided it."""
    several: bool = False
    """Whether an image has several vectors: (P, D), with one P for all images."""
