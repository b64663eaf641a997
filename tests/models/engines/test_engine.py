"""What all engines share: the identity of their vectors, and how exactly images are resized."""

import pytest

from deployments.models.engines.engine import as_fast_as, identity_in
from deployments.wire import PixelSpec, Precision, ProcessorSpec

SPEC = PixelSpec(resize=("exact", 4, 6), resample=3, crop=None)
OWN = ProcessorSpec("X", "{}", (4, 6))


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
    found = as_fast_as(precision, SPEC, tolerant=tolerant)
    assert isinstance(found, PixelSpec)
    assert found.exact == exact


def test_a_checkpoints_own_processor_stays_as_it_is() -> None:
    assert as_fast_as("bfloat16", OWN, tolerant=True) is OWN
