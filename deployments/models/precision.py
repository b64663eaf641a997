"""In which numbers the towers compute, and whether compiled: faster, if the vectors stay the same.

Whatever is chosen is first tried on real photos and sentences, and given up if its vectors are
not like those of float32. Knows nothing of checkpoints or requests.
"""

import logging
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import nn

from deployments.card import Pixels, PixelSpec, ProcessorSpec, Tokens
from deployments.models.int8 import quantise

logger = logging.getLogger("ray.serve")

Precision = Literal["float32", "bfloat16", "float16", "int8"]

# The least cosine with the vector that float32 gives.
LEAST_COSINE: dict[Precision, float] = {"bfloat16": 0.999, "float16": 0.999, "int8": 0.995}
_COMPILED_FLOAT32 = 0.9999

SENTENCES = (
    "",
    "a photo of a cat.",
    "dogs",
    "A rocket on its launch pad at night",
    "two cups of coffee on a wooden table, seen from above",
    "portrait of an astronaut in an orange suit",
    "Galaxies, thousands of them, in a photograph of the Hubble telescope's deep field.",
    "receipt 14.90 EUR, paid in cash",
)


class Towers(NamedTuple):
    """Both halves of a model; `text` is None where it has no text tower."""

    image: nn.Module
    text: nn.Module | None


class Prepared(NamedTuple):
    """Towers as they will run, and what to tell of them."""

    towers: Towers
    precision: Precision
    reason: str
    compiled: bool


def choose(wanted: Literal["auto"] | Precision, device: str) -> tuple[Precision, str]:
    """The precision to try, and why as a clause."""
    if wanted == "int8" and device != "cpu":
        precision, why = choose("auto", device)
        return precision, f"{why}; int8 is for CPUs"
    if wanted != "auto":
        return wanted, "model.precision says so"
    if device != "cpu":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return "bfloat16", "the GPU computes in it natively"
        return "float16", "the GPU has no bfloat16"
    if {"amx_bf16", "avx512_bf16"} & processor_features():
        return "bfloat16", "the processor computes in it natively"
    return "float32", "the processor has no bfloat16"


def processor_features() -> set[str]:
    """What the processor has beyond its family's basics, as torch calls it."""
    if not hasattr(torch.cpu, "get_capabilities"):  # in older versions
        return set()
    return {name for name, has in torch.cpu.get_capabilities().items() if has is True}


def prepare(
    towers: Towers,
    *,
    reload: Callable[[], Towers],
    wanted: Literal["auto"] | Precision,
    compiled: Callable[[nn.Module, Precision], nn.Module | None] | None,
    device: str,
    pixels: Pixels,
    tokens: Tokens | None,
) -> Prepared:
    """The towers in the best precision that passes, the image tower compiled if that is faster.

    `towers` are in float32 on `device`, and changed; `reload` gives them anew for the next
    attempt, because keeping two copies would take their memory every time and help rarely. They
    are tried on `pixels` and `tokens` (see `photos` and SENTENCES). `compiled` makes an image tower
    of a precision into a compiled one, if it can.
    """
    precision, reason = choose(wanted, device)
    if precision == "float32" and compiled is None:
        return Prepared(towers, precision, reason, compiled=False)
    reference = _vectors(towers, device, pixels, tokens)
    while precision != "float32":
        next_best = choose("auto", device)[0] if precision == "int8" else "float32"
        if not _convert(towers, precision):
            reason = "int8 is for linear layers, and the model has none"
        else:
            cosine = _least_cosine(reference, _vectors(towers, device, pixels, tokens))
            if cosine >= LEAST_COSINE[precision]:
                reason += f"; on photos its vectors have a cosine of {cosine:.4f} with float32's"
                break
            reason = (
                f"{precision} gives vectors with a cosine of {cosine:.4f} with float32's, and "
                f"{LEAST_COSINE[precision]} is needed"
            )
            towers = reload()
        level = logging.INFO if wanted == "auto" else logging.WARNING
        logger.log(level, f"Trying {next_best} instead of {precision}: {reason}.")
        precision = next_best
    image = None if compiled is None else compiled(towers.image, precision)
    if image is None:
        return Prepared(towers, precision, reason, compiled=False)
    both = Towers(image, towers.text)
    cosine = _least_cosine(reference, _vectors(both, device, pixels, tokens))
    least = LEAST_COSINE.get(precision, _COMPILED_FLOAT32)
    eager_s, compiled_s = (_fastest(t, device, pixels) for t in (towers, both))
    if cosine >= least and compiled_s < eager_s:
        return Prepared(both, precision, reason, compiled=True)
    logger.warning(
        f"The compiled model is not used: a batch takes {compiled_s * 1e3:.0f} ms instead of "
        f"{eager_s * 1e3:.0f} ms, with a cosine of {cosine:.4f} with float32's."
    )
    return Prepared(towers, precision, reason, compiled=False)


def photos(spec: PixelSpec | ProcessorSpec) -> Pixels:
    """8 real photos, which come with raylens, in the size that the model wants.

    They are cut to it and not pre-processed as the checkpoint says: both precisions get the same.
    """
    height, width = spec.size
    images = []
    for file in sorted(files("deployments.models").joinpath("photos").iterdir(), key=str):
        if file.name.endswith(".jpg"):
            with file.open("rb") as opened, Image.open(opened) as image:
                images.append(np.asarray(ImageOps.fit(image.convert("RGB"), (width, height))))
    stack: NDArray[np.uint8] = np.stack(images)
    if isinstance(spec, ProcessorSpec):  # about what a processor gives
        return ((stack - np.float32(127.5)) / np.float32(64)).astype(np.float32)
    return stack


def _convert(towers: Towers, precision: Precision) -> bool:
    """False if there is nothing to convert."""
    both = [tower for tower in towers if tower is not None]
    if precision == "int8":
        return sum(quantise(tower) for tower in both) > 0
    for tower in both:
        tower.to(torch.bfloat16 if precision == "bfloat16" else torch.float16)
    return True


def _fastest(towers: Towers, device: str, pixels: Pixels) -> float:
    """Seconds for all photos, the best of three."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        _vectors(towers, device, pixels, None)
        times.append(time.perf_counter() - began)
    return min(times)


@torch.inference_mode()
def _vectors(
    towers: Towers, device: str, pixels: Pixels, tokens: Tokens | None
) -> NDArray[np.float64]:
    """Unit vectors of all photos and sentences, (N, D)."""
    vectors = [towers.image(torch.from_numpy(pixels).to(device))]
    if towers.text is not None and tokens is not None:
        vectors.append(towers.text(torch.from_numpy(tokens).to(device)))
    rows: NDArray[np.float64] = torch.cat(vectors).double().cpu().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _least_cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    least = float(np.sum(a * b, axis=1).min())
    return least if np.isfinite(least) else -1.0
