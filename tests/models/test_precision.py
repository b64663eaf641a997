"""Every precision is tried on real photos, and given up where its vectors are not float32's."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deployments.card import PixelSpec, ProcessorSpec
from deployments.models import precision
from deployments.models.encoder import Encoder
from deployments.models.int8 import Int8Linear, quantise
from deployments.models.precision import Prepared, Towers, choose, photos, prepare
from deployments.settings import Model
from tests.models import families

SPEC = PixelSpec(resize=("exact", 32, 48), resample=3, crop=None)
PIXELS = photos(SPEC)


class Tower(nn.Module):
    """Mean colours through a linear layer; `fragile` makes it useless in 16 bits."""

    def __init__(self, *, fragile: bool = False, linear: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * 32 * 48, 16) if linear else None
        self.offset = nn.Parameter(torch.full((1,), 2.0**16 if fragile else 0.0))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        values = (pixels.flatten(1).float() / 255).to(self.offset.dtype)
        values = (values + self.offset) - self.offset
        return (values[:, :16] if self.linear is None else self.linear(values)).float()


def prepared(
    wanted: Any,
    make: Callable[[], nn.Module] = Tower,
    *,
    compiled: Callable[[nn.Module, str], nn.Module | None] | None = None,
) -> Prepared:
    return prepare(
        Towers(make(), None),
        reload=lambda: Towers(make(), None),
        wanted=wanted,
        compiled=compiled,
        device="cpu",
        pixels=PIXELS,
        tokens=None,
    )


def run(found: Prepared) -> torch.Tensor:
    with torch.inference_mode():
        vectors: torch.Tensor = found.towers.image(torch.from_numpy(PIXELS))
        return vectors


def is_eager(towers: Towers) -> bool:
    return isinstance(towers.image, Tower)


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cosine_similarity(a.double(), b.double())


def test_the_photos_are_real_and_differ() -> None:
    assert PIXELS.shape == (8, 32, 48, 3)
    assert PIXELS.dtype == np.uint8
    flat = PIXELS.reshape(8, -1).astype(float)
    assert np.corrcoef(flat)[~np.eye(8, dtype=bool)].max() < 0.9


def test_photos_for_a_checkpoints_own_processor_are_floats_about_zero() -> None:
    values = photos(ProcessorSpec("X", "{}", (32, 48)))
    assert (values.shape, values.dtype) == ((8, 32, 48, 3), np.float32)
    assert np.abs(values).max() <= 2


@pytest.mark.parametrize("wanted", ["bfloat16", "float16", "int8"])
def test_a_precision_that_passes_is_used_and_tells_its_cosine(wanted: str) -> None:
    found = prepared(wanted)
    assert found.precision == wanted
    assert "model.precision says so" in found.reason
    assert "cosine" in found.reason
    assert cosines(run(found), Tower()(torch.from_numpy(PIXELS))).min() > 0.995


@pytest.mark.parametrize("wanted", ["bfloat16", "float16"])
def test_a_precision_that_fails_gives_way_to_float32_with_its_figures(
    wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = prepared(wanted, lambda: Tower(fragile=True))
    assert found.precision == "float32"
    assert wanted in found.reason
    assert "0.999 is needed" in found.reason
    assert f"Trying float32 instead of {wanted}" in caplog.text
    expected = Tower(fragile=True)(torch.from_numpy(PIXELS))
    assert torch.equal(run(found), expected)


def test_int8_without_linear_layers_gives_way_to_what_auto_would_be() -> None:
    found = prepared("int8", lambda: Tower(linear=False))
    assert found.precision == choose("auto", "cpu")[0]


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"amx_bf16"}, "bfloat16"),
        ({"avx512_bf16", "avx2"}, "bfloat16"),
        ({"avx2"}, "float32"),
        (set(), "float32"),
    ],
)
def test_auto_on_a_cpu_is_what_the_processor_computes_in(
    monkeypatch: pytest.MonkeyPatch, features: set[str], expected: str
) -> None:
    monkeypatch.setattr(precision, "processor_features", lambda: features)
    assert choose("auto", "cpu")[0] == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float16"), ((9, 0), "bfloat16")])
def test_auto_on_a_gpu_goes_by_its_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose("auto", "cuda:0")[0] == expected
    assert choose("int8", "cuda:0") == (
        expected,
        f"{choose('auto', 'cuda:0')[1]}; int8 is for CPUs",
    )


def test_what_was_asked_for_is_tried_whatever_the_processor_has() -> None:
    assert choose("float16", "cpu") == ("float16", "model.precision says so")


def test_an_int8_layer_is_close_and_does_not_depend_on_the_other_rows() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 24)
    layer = Int8Linear(linear)
    x = torch.randn(3, 5, 64)
    with torch.inference_mode():
        found = layer(x)
        assert found.shape == (3, 5, 24)
        assert cosines(found.reshape(15, 24), linear(x).reshape(15, 24)).min() > 0.999
        beside_giants = layer(torch.cat([x, 1e4 * x]))[:3]
    assert torch.equal(found, beside_giants)


def test_an_int8_layer_takes_rows_of_zeros_and_no_bias() -> None:
    layer = Int8Linear(nn.Linear(16, 8, bias=False))
    assert torch.equal(layer(torch.zeros(2, 16)), torch.zeros(2, 8))


def test_all_linear_layers_within_a_module_are_quantised() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 8)))
    assert quantise(module) == 2
    assert not [m for m in module.modules() if type(m) is nn.Linear]


@pytest.mark.parametrize("wanted", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", ["CLIP", "SigLIP", "DINOv2"])
def test_a_checkpoint_is_served_in_the_precision_that_was_asked_for(
    tmp_path: Path, name: str, wanted: Any
) -> None:
    folder = families.write(name, tmp_path / "checkpoint")
    exact = Encoder.load(Model(id=str(folder), threads=1, precision="float32", compile="off"))
    found = Encoder.load(Model(id=str(folder), threads=1, precision=wanted, compile="off"))
    if found.precision != wanted:  # random weights are harder on it than trained ones
        assert wanted in found.precision_reason
        return
    pixels = photos(found.preprocessing.pixels)
    a, b = (torch.from_numpy(e.embed(pixels)) for e in (exact, found))
    assert cosines(a, b).min() >= precision.LEAST_COSINE[wanted]
    assert not torch.equal(a, b)


class FakeCompiled(nn.Module):
    """Gives the tower's vectors, perhaps after a while, perhaps moved by `off`."""

    def __init__(self, tower: nn.Module, *, seconds: float = 0.0, off: float = 0.0) -> None:
        super().__init__()
        self.tower = tower
        self.seconds = seconds
        self.off = off

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        vectors: torch.Tensor = self.tower(pixels)
        return vectors + self.off * vectors.flip(1)


class SlowTower(Tower):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return super().forward(pixels)


def test_a_compiled_tower_that_is_faster_and_the_same_is_used() -> None:
    asked: list[str] = []

    def compiled(tower: nn.Module, precision: str) -> nn.Module:
        asked.append(precision)
        return FakeCompiled(Tower())

    found = prepared("float32", SlowTower, compiled=compiled)
    assert found.compiled
    assert isinstance(found.towers.image, FakeCompiled)
    assert asked == ["float32"]


@pytest.mark.parametrize("flaw", [{"seconds": 0.05}, {"off": 0.1}])
def test_a_compiled_tower_that_is_slower_or_not_the_same_is_not_used(
    flaw: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    found = prepared("float32", SlowTower, compiled=lambda *_: FakeCompiled(Tower(), **flaw))
    assert not found.compiled
    assert is_eager(found.towers)
    assert "The compiled model is not used" in caplog.text


def test_a_tower_that_cannot_be_compiled_runs_as_it_is() -> None:
    found = prepared("float32", compiled=lambda *_: None)
    assert not found.compiled
    assert is_eager(found.towers)
