"""Texts as open_clip cleans them, also those that its own cleaning fails on."""

import pytest

from deployments.texts.cleaning import unwrap, wrap


@pytest.mark.parametrize("number", ["&#" + "1" * 5000 + ";", "&amp;#" + "1" * 5000, "&#1114112;"])
def test_a_number_of_no_character_is_no_error_however_long(number: str) -> None:
    assert unwrap(wrap("{}", clean="whitespace")).prepare(f"a {number} cat") == "a \ufffd cat"
