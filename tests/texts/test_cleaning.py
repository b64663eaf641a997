"""Texts as open_clip cleans them, also those that its own cleaning fails on."""
# ruff: noqa: RUF001

import random

import pytest

from deployments.texts.cleaning import unwrap, wrap
from deployments.texts.mojibake import MOST_ROUNDS
from tests.models.comparison import TEXTS

PIECES = (
    *("a photo of a cat", "Cat's,", "it_is", "naïve café", "über", "“curly”", "‘one’", "ﬁne ﬂag"),
    *("ＬＯＵＤ　ＮＯＩＳＥ", "北京的猫", "мир", "سلام", "🎉👩‍👩‍👧", "e\u0301", "\u212b", "\u037e"),
    *(
        " ",
        "  ",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\x0b",
        "\x0c",
        "\x1c",
        "\x85",
        "\u2028",
        "\xa0",
    ),
    *("&amp;", "&amp;amp;", "&AMP;", "&lt;b&gt;", "<b>", "&eacute;", "&EACUTE;", "&#233", "&#x26;"),
    *("&NewLine;", "&am", "p;", "&", ";", "\x1b[1m", "\x1b", "\x00", "\x7f", "\ufeff", "\ufffd"),
    *(
        "âœ”",
        "Ã©",
        "ÃƒÂ©",
        "Ã la",
        "â€œ",
        "â€",
        "Â ",
        "Ã\xa0",
        "schÃ¶n",
        "\x93",
        "Ð¼Ð¸Ñ€",
        "ã\x83\x84",
    ),
)


@pytest.mark.parametrize("number", ["&#" + "1" * 5000 + ";", "&amp;#" + "1" * 5000, "&#1114112;"])
def test_a_number_of_no_character_is_no_error_however_long(number: str) -> None:
    assert unwrap(wrap("{}", clean="whitespace")).prepare(f"a {number} cat") == "a \ufffd cat"


@pytest.mark.parametrize("kind", ["whitespace", "lower", "canonicalize"])
def test_texts_are_cleaned_as_open_clip_cleans_them(kind: str) -> None:
    from open_clip.tokenizer import get_clean_fn

    theirs, ours = get_clean_fn(kind), unwrap(wrap("{}", clean=kind)).prepare
    chance = random.Random(0)
    odd = ["".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(400)]
    for text in (*TEXTS, *PIECES, *odd):
        assert ours(text) == theirs(text), ascii(text)


@pytest.mark.parametrize(
    ("hostile", "undone"),
    [
        ("é&" + "amp;" * 2000, 4 * (MOST_ROUNDS + 2)),
        ("Ã" + "ƒ" * 8191, MOST_ROUNDS),  # each round makes Ã of Ãƒ: 17 seconds, to the end
    ],
)
def test_a_text_that_takes_a_round_for_every_character_is_not_undone_to_its_end(
    hostile: str, undone: int
) -> None:
    cleaned = unwrap(wrap("{}", clean="whitespace")).prepare(hostile)
    assert len(hostile) - undone <= len(cleaned) < len(hostile)
