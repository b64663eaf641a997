"""What a processor supports is read from the kernel."""

from pathlib import Path

import pytest

from deployments.models.cpu import cpu_key, features, native_precisions

X86 = "processor\t: 0\nvendor_id\t: X\nflags\t\t: fpu avx2 avx512_bf16 amx_int8\nbugs\t: spectre\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, {"fpu", "avx2", "avx512_bf16", "amx_int8"}),
        (ARM, {"fp", "asimd", "bf16"}),
        ("", set()),
    ],
)
def test_features_are_those_that_the_kernel_lists(
    tmp_path: Path, text: str, expected: set[str]
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert features(tmp_path / "cpuinfo") == expected


def test_without_cpuinfo_there_are_no_features(tmp_path: Path) -> None:
    assert features(tmp_path / "none") == frozenset()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"avx2"}, set()),
        ({"avx512f", "avx512_vnni"}, {"int8"}),
        ({"avx512_bf16"}, {"bfloat16"}),
        ({"amx_bf16", "amx_int8"}, {"bfloat16", "int8"}),
    ],
)
def test_a_precision_is_native_only_if_the_processor_has_its_instructions(
    found: set[str], expected: set[str]
) -> None:
    assert native_precisions(frozenset(found)) == expected


def test_processors_that_compute_alike_have_one_key() -> None:
    assert cpu_key(frozenset({"a", "b"})) == cpu_key(frozenset({"b", "a"}))
    assert cpu_key(frozenset({"a", "b"})) != cpu_key(frozenset({"a"}))
