"""What is done to a text before its tokenizer reads it.

open_clip undoes broken encodings and HTML, and may drop case and punctuation; ColPali puts a prompt
before it. The `tokenizers` library cannot express that, so a tokenizer's JSON may be wrapped in
another that says which of these comes first.
"""

import html
import json
import re
import string
from collections.abc import Callable
from typing import NamedTuple

from deployments.texts.mojibake import repairer

_KEY = "first"
_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))
# Numbers of no character, which Python does not read at all if they have thousands of digits.
_BEYOND_UNICODE = re.compile(r"&#[0-9]{4000,};?")


class Wrapped(NamedTuple):
    prepare: Callable[[str], str]
    tokenizer: str
    """The JSON of the tokenizer alone."""


def wrap(tokenizer: str, *, clean: str | None = None, prefix: str = "") -> str:
    """The JSON for `TextTokenizer` that cleans each text, then puts `prefix` before it.

    `clean`: a key of `_KINDS`, as open_clip calls it; None leaves the text as it is.
    """
    return json.dumps({_KEY: {"clean": clean, "prefix": prefix}, "tokenizer": tokenizer})


def is_wrapped(text: str) -> bool:
    return text.startswith(f'{{"{_KEY}"')


def unwrap(text: str) -> Wrapped:
    """Raises RuntimeError if texts have to be cleaned and ftfy is not installed."""
    found = json.loads(text)
    kind, prefix = found[_KEY]["clean"], found[_KEY]["prefix"]
    clean = _cleaner(kind) if kind is not None else str
    return Wrapped(lambda text: prefix + clean(text), found["tokenizer"])


def _cleaner(kind: str) -> Callable[[str], str]:
    try:
        repair = repairer()
    except ImportError as error:
        raise RuntimeError(
            "ftfy 6.3 is not installed, without which this model's texts cannot be read; pip "
            "install 'raylens[openclip]'"
        ) from error
    finish = _KINDS[kind]

    def clean(text: str) -> str:
        return finish(_unescape(_unescape(repair(text))))

    return clean


def _unescape(text: str) -> str:
    return html.unescape(_BEYOND_UNICODE.sub("\ufffd", text))


def _whitespace(text: str) -> str:
    return " ".join(text.split())


def _lower(text: str) -> str:
    return _whitespace(text).lower()


def _canonicalize(text: str) -> str:
    """As SigLIP was trained (big_vision, evaluators/proj/image_text/prompt_engineering.py)."""
    return _whitespace(text.translate(_PUNCTUATION).lower())


_KINDS = {"whitespace": _whitespace, "lower": _lower, "canonicalize": _canonicalize}
