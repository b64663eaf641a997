"""Forward passes alone, with pixels that are on the GPU already: eager, compiled, as CUDA graphs.
And the precision gate, which decides which of them is used."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu import models
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.device import Device
from benchmarks.gpu.models import Geometry
from benchmarks.gpu.report import Row
from benchmarks.gpu.run import Run
from deployments.models.casting import cast
from deployments.models.graphs import GraphTower
from deployments.models.probes import least_cosine, photos
from deployments.models.towers import Towers
from deployments.settings import ModelSettings, WantedPrecision

# A tower of 27 layers, by torch.compile with nothing in its cache: a guess until it is measured.
_COMPILING_S = 40.0
_BUILDING_S = 2.0
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Image = Callable[[Tensor], Tensor]


class Built:
    """A geometry's tower, built when it is needed, in one precision at a time."""

    def __init__(self, geometry: Geometry, device: Device) -> None:
        self._geometry, self._device = geometry, device
        self._tower: nn.Module | None = None

    def tower(self, precision: str) -> nn.Module:
        if self._tower is None:
            self._tower = models.tower(self._geometry, self._device.name)
        return self._tower.to(_DTYPES[precision])

    def pixels(self, number: int) -> Tensor:
        shape = (number, self._geometry.side, self._geometry.side, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=self._device.name)


def eager(run: Run, budget: Budget) -> None:
    """Every geometry in every precision, as it is. float32 first: casting back would not undo."""
    for geometry, part in shares(run, budget):
        built = Built(geometry, run.device)
        for number, precision in enumerate(_DTYPES):
            third = part.part(1 / (len(_DTYPES) - number))
            named = {"phase": "encoder", "geometry": geometry.name, "mode": "eager"}
            named |= {"precision": precision}
            _batches(run, third, named, built, _as_is, _BUILDING_S, run.batches)


def compiled(run: Run, budget: Budget) -> None:
    """Every geometry in the precision that passed: graphs, compiled, and graphs of the latter."""
    for geometry, part in shares(run, budget, run.geometries[: 1 if run.quick else None]):
        built = Built(geometry, run.device)
        precision = run.chosen.get(geometry.name, "bfloat16")
        named = {"phase": "encoder", "geometry": geometry.name, "precision": precision}
        # The same object for both, so that it is compiled once.
        compiled: dict[str, Image] = {}

        def compile(tower: nn.Module, compiled: dict[str, Image] = compiled) -> Image:
            backend = "eager" if run.quick else "inductor"
            return compiled.setdefault("", torch.compile(tower, backend=backend))

        def graphs(tower: nn.Module) -> Image:
            return GraphTower(compile(tower))

        modes: list[tuple[str, Callable[[nn.Module], Image], float]] = [
            ("graphs of eager", GraphTower, _BUILDING_S),
            ("compiled", compile, _COMPILING_S),
            ("graphs of compiled", graphs, _BUILDING_S),
        ]
        for mode, make, first_s in modes:
            if "graphs" in mode and not run.device.is_gpu:
                run.without({**named, "mode": mode}, "CUDA graphs need a GPU")
                continue
            if mode == "graphs of compiled" and not compiled:
                run.without({**named, "mode": mode}, "it was not compiled")
                continue
            sizes = run.batches[:1] if run.quick else run.batches  # each size may be compiled anew
            _batches(run, part, {**named, "mode": mode}, built, make, first_s, sizes)
        torch.compiler.reset()


def _as_is(tower: nn.Module) -> Image:
    return tower


def _batches(
    run: Run,
    budget: Budget,
    named: Row,
    built: Built,
    make: Callable[[nn.Module], Image],
    first_s: float,
    sizes: Sequence[int],
) -> None:
    """A row for each size of batch, up to the first that has no time or no memory."""
    made: list[Image] = []
    batch_s, extra_s = 0.0, 0.0 if run.quick else first_s
    for number, size in enumerate(sizes):

        def measure(size: int = size) -> Row:
            if not made:  # not in inference mode, in which raylens does not load either
                made.append(make(built.tower(named["precision"])))
            with torch.inference_mode():
                image, pixels = made[0], built.pixels(size)
                return rate(lambda: image(pixels), size, run.device, run.row_s)

        # Three times twice the last, since a batch twice as large takes up to twice as long.
        needs_s = (run.row_s + 6 * batch_s) * (not run.quick) + extra_s
        figures = run.row({**named, "batch": size}, measure, budget=budget, needs_s=needs_s)
        if figures is None:
            if sizes[number + 1 :]:
                run.without({**named, "batch": f"{sizes[number + 1]} and more"}, "as above")
            return
        batch_s, extra_s = figures["batch_ms"] / 1e3, 0.0


def rate(call: Callable[[], object], size: int, device: Device, seconds: float) -> Row:
    """Images/s over about so many seconds, after one call that does not count."""
    call()
    device.wait()
    began = time.perf_counter()
    call()
    device.wait()
    number = max(1, min(int(seconds / (time.perf_counter() - began)), 2000))
    began = time.perf_counter()
    for _ in range(number):
        call()
    device.wait()
    batch_s = (time.perf_counter() - began) / number
    return {"images_per_s": round(size / batch_s, 1), "batch_ms": round(batch_s * 1e3, 3)}


def gate(run: Run, budget: Budget) -> None:
    """What `casting.cast` chooses, of itself and told to, and the cosines with float32."""
    for geometry, part in shares(run, budget):
        wishes: tuple[WantedPrecision, ...] = ("auto", "bfloat16", "float16")
        for wanted in wishes:

            def measure(geometry: Geometry = geometry, wanted: WantedPrecision = wanted) -> Row:
                return _settle(run, geometry, ModelSettings(precision=wanted))

            named = {"phase": "gate", "geometry": geometry.name, "mode": wanted}
            found = run.row(named, measure, budget=part)
            if found is not None and wanted == "auto":
                run.chosen[geometry.name] = found["chosen"]


def graphs_of_cast(run: Run, budget: Budget) -> None:
    """Whether `model.compile: on` ends in graphs, for the smallest geometry."""
    geometry = run.geometries[0]
    named = {"phase": "compile: on", "geometry": geometry.name, "mode": "auto"}
    if not run.device.is_gpu:
        run.without(named, "CUDA graphs need a GPU")
        return
    run.row(
        named,
        lambda: _settle(run, geometry, ModelSettings(compile="on")),
        budget=budget,
        needs_s=_COMPILING_S,
    )
    torch.compiler.reset()


def _settle(run: Run, geometry: Geometry, settings: ModelSettings) -> Row:
    name = run.device.name
    pixels = photos(geometry.preprocessing.pixels)

    def vectors(tower: nn.Module) -> Any:
        with torch.inference_mode():
            return tower(torch.from_numpy(pixels).to(name)).cpu().numpy()

    reference = vectors(models.tower(geometry, name))
    towers, settled = cast(
        Towers(models.tower(geometry, name), None),
        reload=lambda: Towers(models.tower(geometry, name), None),
        settings=settings,
        device=name,
        pixels=pixels,
        tokens=None,
    )
    found = vectors(towers.image)
    return {
        "chosen": settled.precision,
        "graphs": isinstance(towers.image, GraphTower),
        "cosine": round(least_cosine(found, np.asarray(reference)), 6),
        "reason": settled.reason,
    }


def shares(
    run: Run, budget: Budget, geometries: Sequence[Geometry] = ()
) -> Iterable[tuple[Geometry, Budget]]:
    """All or these geometries, each with an equal share of what is left."""
    geometries = geometries or run.geometries
    for number, geometry in enumerate(geometries):
        yield geometry, budget.part(1 / (len(geometries) - number))
