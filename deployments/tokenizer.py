"""Texts to token ids, as the served checkpoint's own tokenizer makes them. Knows no model."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

# The library would start a thread per processor beside the decoding threads, for nothing.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Encoded(NamedTuple):
    """One text as the model reads it."""

    ids: list[int]
    """Special tokens included, not filled up."""
    truncated: bool
    """Whether the text goes on behind what fits."""


class TextTokenizer:
    """A checkpoint's tokenizer, from the JSON that `models/texts.py` makes of it."""

    def __init__(self, json: str, *, max_tokens: int) -> None:
        """`max_tokens`: the most ids that a text gets, special tokens included."""
        self._tokenizer = Tokenizer.from_str(json)
        self._tokenizer.enable_truncation(max_tokens)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The ids of each text; of a longer one the first, and the special token that ends it.

        A lone surrogate, half of a character, is read as U+FFFD, as browsers do.
        """
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Encoded:
        # In batches, the library lets other threads run meanwhile. In batches of one, because
        # it also keeps all of what is cut off: megabytes, for a text that is out to harm.
        (encoding,) = self._tokenizer.encode_batch_fast([_without_lone_surrogates(text)])
        return Encoded(encoding.ids, truncated=bool(encoding.overflowing))


def _without_lone_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
