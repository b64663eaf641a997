"""Texts to token ids, with the served checkpoint's own tokenizer. Needs no model."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from deployments.texts import cleaning
from deployments.texts.own_tokenizer import OwnTokenizer, is_packed

logger = logging.getLogger("ray.serve")

# The library would start a useless thread per processor beside the decode threads.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Encoded(NamedTuple):
    """One text as the model reads it."""

    ids: list[int]
    """With special tokens, without padding."""
    truncated: bool
    """Whether the text was cut to fit."""


class TextTokenizer:
    """A checkpoint's tokenizer, from the JSON that `models/texts.py` makes of it."""

    def __init__(self, json: str, *, max_tokens: int) -> None:
        """`max_tokens`: the most ids per text, special tokens included.

        Takes seconds where the checkpoint's own tokenizer reads the texts.
        """
        self._prepare: Callable[[str], str] = str
        if cleaning.is_wrapped(json):
            self._prepare, json = cleaning.unwrap(json)
        if is_packed(json):
            logger.info("The checkpoint's own tokenizer reads texts, in a process of its own.")
            self._encode = OwnTokenizer(json, max_tokens=max_tokens).encode
        else:
            self._encode = _Converted(json, max_tokens=max_tokens).encode

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The ids of each text. A longer text is truncated, but keeps the special token at its end.

        A lone surrogate, half of a character, is read as U+FFFD, as browsers do.
        """
        encoded = self._encode([self._prepare(_without_lone_surrogates(text)) for text in texts])
        return [Encoded(ids, truncated) for ids, truncated in encoded]


class _Converted:
    def __init__(self, json: str, *, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_str(json)
        self._tokenizer.enable_truncation(max_tokens)

    def encode(self, texts: Sequence[str]) -> list[tuple[list[int], bool]]:
        # The library's batch method releases the GIL. Batches of one, because it keeps all that it
        # cuts off: megabytes, for a hostile text.
        encodings = (self._tokenizer.encode_batch_fast([text])[0] for text in texts)
        return [(encoding.ids, bool(encoding.overflowing)) for encoding in encodings]


def _without_lone_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
