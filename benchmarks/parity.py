"""raylens beside the authors' own libraries, family by family: `make parity`.

For each family a tiny checkpoint with random weights, as there may be no model hub, and for the
bundled model its own: odd images and texts go through raylens's whole way, in the engine that
serves the model on a CPU, and through the library that the checkpoint is made for. Each row is
printed as soon as it is measured, and the run ends with 1 if one falls short. Names of checkpoints
or of libraries may follow, to compare these alone: `python -m benchmarks.parity timm`.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track

from deployments.models.encoder import Encoder
from deployments.models.export import prepare
from deployments.models.exported import NotExportableError
from deployments.settings import ModelSettings
from deployments.wire import TextSpec
from tests.models import late_interaction, sentence_transformers_checkpoints
from tests.models import open_clip_checkpoints as open_clip
from tests.models.comparison import (
    TEXTS,
    Comparison,
    Reference,
    compare,
    in_openvino,
    in_torch,
)
from tests.models.families import TINY, write
from tests.models.odd_images import odd_images
from tests.models.reference import TransformersReference
from tests.models.sentence_transformers_reference import SentenceTransformersReference
from tests.models.timm_checkpoints import TIMM, TimmReference
from tests.models.timm_checkpoints import write as write_timm

LEAST_COSINE = 0.9999
MOST_DIFFERENCE = 1e-3  # of a probability
MOST_SPREAD = 0.99  # lowest cosine of two images, or texts, in the reference: it tells them apart


class Group(NamedTuple):
    """Checkpoints of one library."""

    library: str
    names: Iterable[str]
    write: Callable[[str, Path], object]
    """Writes the tiny checkpoint of a name into a folder."""
    reference: Callable[[Path], Reference]
    """That folder as the library itself reads it."""
    options: Callable[[Path], dict[str, Any]] = lambda folder: {}
    """Settings of that folder, besides its id."""
    texts: Sequence[str] = TEXTS


# Class and register tokens before the patches, none, and a feature map.
DENSE = ("DINOv2", "DINOv2, registers", "DINOv3", "SigLIP, vision alone", "ConvNeXt")

GROUPS = (
    Group("transformers", TINY, write, TransformersReference),
    # Longer texts are truncated here, and read to their end there.
    Group(
        "transformers",
        ("ColPali",),
        lambda name, folder: late_interaction.write(folder),
        late_interaction.ColPaliReference,
        texts=[text for text in TEXTS if len(text) < 500],
    ),
    Group(
        "transformers",
        DENSE,
        write,
        partial(TransformersReference, patches=True),
        lambda folder: {"pooling": "patches"},
    ),
    Group(
        "sentence-transformers",
        sentence_transformers_checkpoints.WRITERS,
        sentence_transformers_checkpoints.write_named,
        SentenceTransformersReference,
        sentence_transformers_checkpoints.options,
    ),
    Group("timm", TIMM, write_timm, TimmReference),
    Group("open_clip", open_clip.TINY, open_clip.write, open_clip.OpenClipReference),
)


LONGEST = max(len(name) for group in GROUPS for name in group.names)
LINE = f"{{:{LONGEST}}} {{:21}} {{:8}} {{:10}} {{:7}} {{:>8}} {{:>6}} {{:>8}} {{:>8}}"
HEAD = LINE.format(
    *("checkpoint", "library", "engine", "pooling", "score", "image", "spread", "text", "classify")
)


class Row(NamedTuple):
    library: str
    name: str
    pooling: str
    text: TextSpec | None
    engine: str
    refusal: str
    """Why the model cannot be exported."""
    found: Comparison


def main() -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    began = time.monotonic()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        wanted = set(sys.argv[1:])
        rows: list[Row] = []

        def add(row: Row) -> None:
            rows.append(row)
            style = None if passes(row.found) else "red"
            console.out(line(row), style=style, highlight=False)

        console.print(
            f"raylens and the authors' libraries: worst of {len(odd_images())} images and "
            f"{len(TEXTS)} texts\n"
        )
        console.out(HEAD, style="bold", highlight=False)
        if not wanted:
            add(measure_bundled())
        for group in GROUPS:
            described = f"Comparing with {group.library}"
            names = [n for n in group.names if not wanted or n in wanted or group.library in wanted]
            hidden = not console.is_terminal
            for name in track(names, described, console=console, transient=True, disable=hidden):
                add(measure(group, name, Path(folder) / group.library / str(len(rows))))
    console.print()
    for row in rows:
        if row.refusal:
            console.print(f"{row.name} runs in torch: {row.refusal}.", markup=False)
    failed = [row.name for row in rows if not passes(row.found)]
    console.print(
        f"[red]Not every row holds: {', '.join(failed)}."
        if failed
        else f"[green]All {len(rows)} rows hold."
    )
    console.print(
        "image, text: lowest cosine of raylens's vector and the library's; spread: of two images; "
        "classify: largest difference of a probability."
    )
    console.print(
        f"[dim]Least cosine allowed {LEAST_COSINE}, largest difference of a probability "
        f"{MOST_DIFFERENCE:g}. Float32, torch {torch.__version__}, transformers "
        f"{version('transformers')}; {time.monotonic() - began:.0f} s."
    )
    return 1 if failed else 0


def measure_bundled() -> Row:
    name = "EfficientNet-Lite0, bundled"
    return compared("transformers", name, TransformersReference)


def measure(group: Group, name: str, folder: Path) -> Row:
    folder.mkdir(parents=True)
    group.write(name, folder)
    options = {"id": str(folder), **group.options(folder)}
    return compared(group.library, name, group.reference, group.texts, **options)


def compared(
    library: str,
    name: str,
    reference: Callable[[Path], Reference],
    texts: Sequence[str] = TEXTS,
    **options: Any,
) -> Row:
    settings = ModelSettings(precision="float32", device="cpu", threads=1, **options)
    encoder = Encoder.load(settings)
    served, engine, refusal = in_torch(encoder), "torch", ""
    try:
        served, engine = in_openvino(*prepare(settings)), "openvino"
    except NotExportableError as error:
        refusal = str(error)
    found = compare(served, reference(encoder.checkpoint.folder), odd_images(), texts)
    return Row(library, name, encoder.pooling, encoder.text, engine, refusal, found)


def passes(found: Comparison) -> bool:
    """Cosines and probabilities are near enough, and the vectors are not all alike."""
    cosines = [found.image, *([] if found.text is None else [found.text])]
    spreads = [found.spread, *([] if found.text_spread is None else [found.text_spread])]
    return (
        min(cosines) >= LEAST_COSINE
        and max(spreads) < MOST_SPREAD
        and (found.probability is None or found.probability <= MOST_DIFFERENCE)
    )


def line(row: Row) -> str:
    """A row under `HEAD`."""
    found = row.found
    text = "" if found.text is None else f"{found.text:.6f}"
    probability = "" if found.probability is None else f"{found.probability:.0e}"
    score = row.text.score if row.text else ""
    return LINE.format(
        *(row.name, row.library, row.engine, row.pooling, score),
        *(f"{found.image:.6f}", f"{found.spread:.2f}", text, probability),
    ).rstrip()


if __name__ == "__main__":
    sys.exit(main())
