"""What open_clip does to a text before its tokenizer reads it: it undoes broken encodings and HTML,
and may drop case and punctuation.

The `tokenizers` library cannot express that, so a tokenizer's JSON may be wrapped in another that
says which of these comes first.
"""

import html
import json
import string
from collections.abc import Callable
from typing import NamedTuple

_KEY = "clean"
_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


class Wrapped(NamedTuple):
    clean: Callable[[str], str]
    tokenizer: str
    """The JSON of the tokenizer alone."""


def wrap(kind: str, tokenizer: str) -> str:
    """`kind`: a key of `_KINDS`, as open_clip calls it."""
    return json.dumps({_KEY: kind, "tokenizer": tokenizer})


def is_wrapped(text: str) -> bool:
    return text.startswith(f'{{"{_KEY}"')


def unwrap(text: str) -> Wrapped:
    """Raises RuntimeError if ftfy is not installed."""
    found = json.loads(text)
    try:
        import ftfy
    except ImportError as error:
        raise RuntimeError(
            "ftfy is not installed, without which this model's texts cannot be read; pip install "
            "'raylens[openclip]'"
        ) from error
    finish = _KINDS[found[_KEY]]

    def clean(text: str) -> str:
        return finish(html.unescape(html.unescape(ftfy.fix_text(text))))

    return Wrapped(clean, found["tokenizer"])


def _whitespace(text: str) -> str:
    return " ".join(text.split())


def _lower(text: str) -> str:
    return _whitespace(text).lower()


def _canonicalize(text: str) -> str:
    """As SigLIP was trained (big_vision, evaluators/proj/image_text/prompt_engineering.py)."""
    return _whitespace(text.translate(_PUNCTUATION).lower())


_KINDS = {"whitespace": _whitespace, "lower": _lower, "canonicalize": _canonicalize}
