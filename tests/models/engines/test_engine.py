"""What all engines share: the identity of their vectors, and how exactly images are resized."""

import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.models.engines.engine import as_fast_as, check_pixels, identity_in
from deployments.wire import PatchSpec, PixelSpec, Precision, ProcessorSpec

SPEC = PixelSpec(resize=("exact", 4, 6), resample=3, crop=None)
OWN = ProcessorSpec("X", "{}", (4, 6))
PATCHES = PatchSpec(4, 9, 2)


@pytest.mark.parametrize("identity", [b"a", b"b"])
def test_another_precision_means_another_identity(identity: bytes) -> None:
    assert identity_in("float32", identity) != identity_in("bfloat16", identity)
    assert identity_in("float32", identity) != identity_in("float32", identity + b"x")


@pytest.mark.parametrize(
    ("precision", "tolerant", "exact"),
    [("float32", True, True), ("bfloat16", True, False), ("bfloat16", False, True)],
)
def test_resizing_is_inexact_where_the_precision_moves_vectors_more(
    precision: Precision, tolerant: bool, exact: bool
) -> None:
    for spec in (SPEC, PATCHES):
        found = as_fast_as(precision, spec, tolerant=tolerant)
        assert not isinstance(found, ProcessorSpec)
        assert found.exact == exact


def test_a_checkpoints_own_processor_stays_as_it_is() -> None:
    assert as_fast_as("bfloat16", OWN, tolerant=True) is OWN


@pytest.mark.parametrize("grid", [(1, 9), (9, 1), (3, 3), (1, 1)])
def test_patches_are_taken_with_any_grid_that_fits(grid: tuple[int, int]) -> None:
    check_pixels(packed((2, 3), grid), PATCHES)


@pytest.mark.parametrize("grid", [(0, 3), (3, 0), (2, 5), (256, 256), (65535, 65535)])
def test_patches_with_another_grid_are_an_error_for_all_of_their_stack(
    grid: tuple[int, int],
) -> None:
    with pytest.raises(ValueError, match="each image should have 1 to 9 patches"):
        check_pixels(packed((2, 3), grid), PATCHES)


def packed(*grids: tuple[int, int]) -> NDArray[np.uint8]:
    stack = np.zeros((len(grids), *PATCHES.shape), np.uint8)
    stack[:, 0].reshape(len(grids), -1)[:, :4] = np.array(grids, "<u2").view(np.uint8)
    return stack
