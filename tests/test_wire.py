"""Stacks of token ids: how texts of different lengths travel together."""

import numpy as np

from deployments.wire import join_tokens, pad_tokens


def test_short_texts_are_padded_with_minus_one() -> None:
    tokens = pad_tokens([[7], [], [1, 2, 3]])
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [[7, -1, -1], [-1, -1, -1], [1, 2, 3]]


def test_a_stack_of_nothing_is_empty() -> None:
    assert pad_tokens([]).shape == (0, 0)


def test_stacks_of_several_callers_become_one_as_wide_as_the_widest_text() -> None:
    joined = join_tokens(
        [pad_tokens([[1], [2, 3]]), pad_tokens([[4, 5, 6]]), pad_tokens([[7, 8]])[:, :2]]
    )
    assert joined.tolist() == [[1, -1, -1], [2, 3, -1], [4, 5, 6], [7, 8, -1]]
    assert joined.dtype == np.int32
