"""The allocator settings are taken where there is glibc, and the operator's own word wins."""

import os
import platform

import pytest

from deployments.models.allocator import keep_large_blocks


def test_glibc_takes_every_setting() -> None:
    assert keep_large_blocks() == (platform.libc_ver()[0] == "glibc")


def test_huge_pages_can_be_switched_off_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    keep_large_blocks()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
