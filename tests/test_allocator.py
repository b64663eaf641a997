"""The allocator settings are taken where there is glibc, and the operator's own word wins."""

import os
import platform

import pytest

from deployments.allocator import give_large_blocks_back, keep_large_blocks, trim


def test_glibc_takes_every_setting() -> None:
    glibc = platform.libc_ver()[0] == "glibc"
    assert keep_large_blocks() == glibc
    assert give_large_blocks_back() == glibc
    trim()


def test_huge_pages_can_be_switched_off_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    keep_large_blocks()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
