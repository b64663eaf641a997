"""The allocator settings are taken where there is glibc."""

import platform

from deployments.api.allocator import give_large_blocks_back, trim


def test_glibc_takes_every_setting() -> None:
    assert give_large_blocks_back() == (platform.libc_ver()[0] == "glibc")
    trim()
