"""The allocator settings take effect with glibc, and only there."""

import platform

from deployments.api.allocator import give_large_blocks_back, trim


def test_the_settings_take_effect_exactly_with_glibc() -> None:
    assert give_large_blocks_back() == (platform.libc_ver()[0] == "glibc")
    trim()
