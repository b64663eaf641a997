"""torch tries a precision on real photos before using it, and runs in float32 if it fails."""

import logging
import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from deployments.models import casting
from deployments.models.casting import cast
from deployments.models.graphs import GraphTower
from deployments.models.precision import Settled
from deployments.models.probes import photos
from deployments.models.towers import Towers
from deployments.settings import ModelSettings, WantedPrecision
from deployments.wire import PixelSpec
from tests.models.gpu import FakeRecorder, fake_cuda

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


def test_a_model_that_does_not_run_in_a_precision_runs_in_float32() -> None:
    class Stubborn(Tower):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.linear(pixels.flatten(1).float())  # type: ignore[no-any-return]

    towers, settled = chosen("bfloat16", Stubborn)
    assert settled.precision == "float32"
    assert "bfloat16 is not possible: mat1 and mat2 must have the same dtype" in settled.reason
    assert torch.equal(run(towers.image), run(Stubborn()))


def test_torch_has_no_int8() -> None:
    _, settled = chosen("int8")
    assert settled.precision != "int8"
    assert "torch runs the model" in settled.reason


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), set()), ((7, 0), {"float16"}), ((7, 5), {"float16"}), ((8, 0), {"bfloat16"})],
)
def test_a_gpus_precision_goes_by_its_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: set[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert casting._native("cuda:0") == expected


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
    monkeypatch.setattr(torch, "compile", lambda tower: graphs)
    monkeypatch.setattr(casting, "GraphTower", partial(GraphTower, recorder=FakeRecorder))
    found = casting._as_graphs(
        Towers(eager, None), "float32", lambda towers: run(towers.image).numpy()
    )
    assert (type(found.image) is GraphTower) == used
    assert (found.image is eager) == (not used)


def test_a_tower_that_cannot_be_recorded_runs_without_graphs_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Waiting(Tower):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            if cuda.said and cuda.said[-1].startswith("capture"):
                raise RuntimeError("operation not permitted when stream is capturing\nAdvice.")
            return super().forward(pixels)

    monkeypatch.setattr(torch, "compile", lambda tower: tower)
    cuda = fake_cuda(monkeypatch)
    tower = Waiting()
    found = casting._as_graphs(
        Towers(tower, None), "float32", lambda towers: run(towers.image).numpy()
    )
    assert found.image is tower
    assert (
        "not used: RuntimeError: operation not permitted when stream is capturing." in caplog.text
    )


def test_on_a_gpu_a_model_is_cast_as_its_capability_says_and_recorded_if_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = []

    def as_graphs(towers: Towers, *arguments: object) -> Towers:
        recorded.append(towers)
        return towers

    fake_cuda(monkeypatch)
    monkeypatch.setattr(casting, "_as_graphs", as_graphs)
    for compile in ("auto", "on"):
        _, settled = cast(
            Towers(Tower(), None),
            reload=lambda: Towers(Tower(), None),
            settings=ModelSettings(compile=compile),
            device="cuda:0",
            pixels=PIXELS,
            tokens=None,
        )
        assert settled.precision == "bfloat16"
    assert len(recorded) == 1
