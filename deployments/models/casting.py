"""Casts towers to the precision that torch runs them in, and makes CUDA graphs of them if asked to.

For GPUs, and for models on a CPU that cannot be exported. Knows nothing of checkpoints.
"""

import logging
import time
from collections.abc import Callable
from functools import partial

import torch

from deployments.checkpoints.checkpoint import first_line
from deployments.models.cpu import native_precisions
from deployments.models.graphs import GraphTower
from deployments.models.precision import NEEDED_COSINE, ImpossibleError, Settled, settle
from deployments.models.probes import least_cosine
from deployments.models.towers import Towers
from deployments.settings import ModelSettings
from deployments.wire import Pixels, Precision, Tokens, Vectors

logger = logging.getLogger("ray.serve")


def cast(
    towers: Towers,
    *,
    reload: Callable[[], Towers],
    settings: ModelSettings,
    device: str,
    pixels: Pixels,
    tokens: Tokens | None,
) -> tuple[Towers, Settled]:
    """The towers in the best precision that passes; on a GPU as CUDA graphs, if asked for.

    `towers` are in float32 on `device`, and are modified. `reload` loads them again for a further
    attempt, which is rare, whereas a second copy would always take its memory. Raises whatever the
    towers raise in float32.
    """

    def vectors(towers: Towers) -> Vectors:
        with torch.inference_mode():
            found = [towers.image(torch.from_numpy(pixels).to(device))]
            if towers.text is not None and tokens is not None:
                found.append(towers.text(torch.from_numpy(tokens).to(device)))
            return torch.cat([vectors.flatten(0, -2) for vectors in found]).cpu().numpy()

    native = _native(device)
    reference: Vectors | None = None
    dirty = False

    def attempt(precision: Precision) -> float:
        nonlocal towers, reference, dirty
        if precision == "int8":
            raise ImpossibleError("torch runs the model, and has no int8 for it")
        if dirty:
            towers = reload()
        if precision == "float32":
            return 1.0
        if reference is None:
            reference = vectors(towers)
        dirty = True
        for tower in (towers.image, towers.text):
            if tower is not None:
                tower.to(torch.bfloat16 if precision == "bfloat16" else torch.float16)
        try:
            found = vectors(towers)
        except RuntimeError as error:  # an operator without it, or a part that stays in float32
            raise ImpossibleError(first_line(error)) from error
        return least_cosine(found, reference)

    settled = settle(settings.precision, native, attempt)
    if device != "cpu" and settings.compile == "on":
        towers = _as_graphs(towers, settled.precision, vectors)
    return towers, settled


def _as_graphs(
    towers: Towers, precision: Precision, vectors: Callable[[Towers], Vectors]
) -> Towers:
    """With the image tower as CUDA graphs, if these are faster and give the same vectors."""
    graphs = Towers(GraphTower(torch.compile(towers.image)), towers.text)
    try:
        cosine = least_cosine(vectors(graphs), vectors(towers))
        eager_s, graphs_s = (_fastest(partial(vectors, some)) for some in (towers, graphs))
    except RuntimeError as error:  # no compiler, no memory, or a tower that waits for the GPU
        logger.warning(f"CUDA graphs are not used: {type(error).__name__}: {first_line(error)}.")
        return towers
    if cosine >= NEEDED_COSINE[precision] and graphs_s < eager_s:
        return graphs
    logger.warning(
        f"CUDA graphs are not used: a batch takes {graphs_s * 1e3:.0f} ms instead of "
        f"{eager_s * 1e3:.0f} ms, with a cosine of {cosine:.4f}."
    )
    return towers


def _fastest(run: Callable[[], object]) -> float:
    """Seconds, the best of three."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def _native(device: str) -> frozenset[str]:
    if device == "cpu":
        return native_precisions() - {"int8"}
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return frozenset({"bfloat16"})
    # Older ones than 7.0 have no tensor cores, and most of them next to no float16 at all (CUDA C++
    # Programming Guide, "Throughput of Native Arithmetic Instructions").
    return frozenset({"float16"}) if capability >= (7, 0) else frozenset()
