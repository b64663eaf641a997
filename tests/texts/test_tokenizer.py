"""Texts to ids, with a tokenizer of a few words."""

import os
import subprocess
import sys

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from deployments.texts.tokenizer import Encoded, TextTokenizer
from tests.servers import ROOT

START, END, UNKNOWN, A, CAT = range(5)


def words() -> str:
    """JSON of a tokenizer that knows two words, and puts 0 before and 1 after every text."""
    vocabulary = {"<start>": START, "<end>": END, "<unknown>": UNKNOWN, "a": A, "cat": CAT}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("<end>", END), ("<start>", START))
    return tokenizer.to_str()


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return TextTokenizer(words(), max_tokens=4)


def test_every_text_gets_its_special_tokens(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode(["a cat", "", "dog"]) == [
        Encoded([START, A, CAT, END], truncated=False),
        Encoded([START, END], truncated=False),
        Encoded([START, UNKNOWN, END], truncated=False),
    ]


def test_a_text_that_just_fits_is_not_truncated(tokenizer: TextTokenizer) -> None:
    (encoded,) = tokenizer.encode(["cat cat"])
    assert encoded == ([START, CAT, CAT, END], False)


def test_a_longer_text_keeps_its_end_token_and_is_reported(tokenizer: TextTokenizer) -> None:
    (encoded,) = tokenizer.encode(["a cat " * 500])
    assert encoded == ([START, A, CAT, END], True)


def test_no_texts_are_no_ids(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode([]) == []


@pytest.mark.parametrize("text", ["\ud800", "a \ud83d", "\ude00\ud83d cat", "\ud800\ud800"])
def test_a_lone_surrogate_is_read_as_the_replacement_character(text: str) -> None:
    vocabulary = {"\ufffd": 0, "a": 1, "cat": 2, "?": 3}
    json = Tokenizer(models.WordLevel(vocabulary, unk_token="?")).to_str()
    tokenizer = TextTokenizer(json, max_tokens=9)
    replaced = "".join("\ufffd" if 0xD800 <= ord(char) < 0xE000 else char for char in text)
    assert tokenizer.encode([text]) == tokenizer.encode([replaced])


def test_a_pair_of_surrogates_is_the_character_it_stands_for() -> None:
    json = Tokenizer(models.WordLevel({"😀": 0, "?": 1}, unk_token="?")).to_str()
    assert TextTokenizer(json, max_tokens=9).encode(["\ud83d\ude00"])[0].ids == [0]


def test_tokenizing_starts_no_threads_and_loads_neither_torch_nor_transformers() -> None:
    program = (
        "import psutil, sys; from tests.texts.test_tokenizer import *; "
        "before = psutil.Process().num_threads(); "
        "TextTokenizer(words(), max_tokens=4).encode(['a cat', 'a'] * 9); "
        "print(psutil.Process().num_threads() - before,"
        " sorted({'torch', 'transformers', 'deployments.models'} & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.stdout.strip() == "0 []", process.stderr
