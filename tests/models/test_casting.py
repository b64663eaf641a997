"""torch tries a precision on real photos before using it, and runs in float32 if it fails."""

import logging
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from deployments.models import casting
from deployments.models.casting import cast
from deployments.models.precision import Settled
from deployments.models.probes import photos
from deployments.models.towers import GraphTower, Towers
from deployments.settings import ModelSettings, WantedPrecision
from deployments.wire import PixelSpec

PIXELS = photos(PixelSpec(resize=("exact", 32, 48), resample=3, crop=None))


class Tower(nn.Module):
    """Mean colours through a linear layer; `fragile` makes it useless in 16 bits."""

    def __init__(self, *, fragile: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * 32 * 48, 16)
        self.offset = nn.Parameter(torch.full((1,), 2.0**16 if fragile else 0.0))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        values = (pixels.flatten(1).float() / 255).to(self.offset.dtype)
        values = (values + self.offset) - self.offset
        vectors: torch.Tensor = self.linear(values).float()
        return vectors


def chosen(
    wanted: WantedPrecision, make: Callable[[], nn.Module] = Tower
) -> tuple[Towers, Settled]:
    return cast(
        Towers(make(), None),
        reload=lambda: Towers(make(), None),
        settings=ModelSettings(precision=wanted),
        device="cpu",
        pixels=PIXELS,
        tokens=None,
    )


def run(tower: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        vectors: torch.Tensor = tower(torch.from_numpy(PIXELS))
        return vectors


@pytest.mark.parametrize("wanted", ["bfloat16", "float16"])
def test_a_precision_that_passes_is_used_and_its_cosine_reported(wanted: WantedPrecision) -> None:
    towers, settled = chosen(wanted)
    assert settled.precision == wanted
    assert "model.precision says so" in settled.reason
    assert "cosine" in settled.reason
    assert torch.cosine_similarity(run(towers.image), run(Tower())).min() > 0.995


@pytest.mark.parametrize("wanted", ["bfloat16", "float16"])
def test_a_precision_that_fails_gives_way_to_float32_with_its_figures(
    wanted: WantedPrecision, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    towers, settled = chosen(wanted, lambda: Tower(fragile=True))
    assert settled.precision == "float32"
    assert "0.999 is needed" in settled.reason
    assert f"Trying float32: {wanted}" in caplog.text
    assert torch.equal(run(towers.image), run(Tower(fragile=True)))


def test_torch_has_no_int8() -> None:
    _, settled = chosen("int8")
    assert settled.precision != "int8"
    assert "torch runs the model" in settled.reason


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float16"), ((9, 0), "bfloat16")])
def test_a_gpus_precision_goes_by_its_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert casting._native("cuda:0") == {expected}


class Slow(nn.Module):
    """Gives another tower's vectors after a delay, changed in proportion to `off`."""

    def __init__(self, tower: nn.Module, *, seconds: float, off: float = 0.0) -> None:
        super().__init__()
        self.tower, self.seconds, self.off = tower, seconds, off

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        vectors: torch.Tensor = self.tower(pixels)
        return vectors + self.off * vectors.flip(1)


@pytest.mark.parametrize(
    ("seconds", "off", "used"), [(0.0, 0.0, True), (0.06, 0.0, False), (0.0, 0.3, False)]
)
def test_graphs_are_used_where_they_are_faster_and_give_the_same_vectors(
    monkeypatch: pytest.MonkeyPatch, seconds: float, off: float, used: bool
) -> None:
    eager = Slow(Tower(), seconds=0.02)
    graphs = Slow(Tower(), seconds=seconds, off=off)
    monkeypatch.setattr(torch, "compile", lambda tower, mode: graphs)
    found = casting._as_graphs(
        Towers(eager, None), "float32", lambda towers: run(towers.image).numpy()
    )
    assert isinstance(found.image, GraphTower) == used
    assert (found.image is eager) == (not used)


@pytest.mark.parametrize(("images", "run"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8)])
def test_a_gpus_graphs_run_on_batches_of_powers_of_two(images: int, run: int) -> None:
    sizes = []

    def tower(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return pixels.flatten(1).float().sum(1, keepdim=True)

    pixels = torch.from_numpy(PIXELS[:images])
    found = GraphTower(tower)(pixels)
    assert sizes == [run]
    assert torch.equal(found, pixels.flatten(1).float().sum(1, keepdim=True))
