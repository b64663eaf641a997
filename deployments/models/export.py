"""The process that exports a model to OpenVINO and settles its precision on this processor.

`python -m deployments.models.export`, with an `ExportRequest` as JSON on standard input: torch
and transformers are loaded here, and their memory is freed when the process ends. An `Outcome` in
JSON goes to standard output with exit code 0, or a sentence that says what is wrong with the model
with exit code 1. The log goes to standard error.
"""

import logging
import os
import sys
import time
import warnings
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ImageOps

from deployments.checkpoints import open_clip
from deployments.checkpoints.checkpoint import CheckpointError, first_line
from deployments.checkpoints.storage import locked, written_aside
from deployments.models import exported, stores
from deployments.models.cpu import native_precisions
from deployments.models.exported import (
    Export,
    ExportRequest,
    Manifest,
    NotExportableError,
    Outcome,
)
from deployments.models.precision import NEEDED_COSINE, ImpossibleError, Settled, settle
from deployments.models.probes import SENTENCES, least_cosine, photos
from deployments.settings import ModelSettings
from deployments.threads import thread_count
from deployments.wire import Precision

if TYPE_CHECKING:
    from deployments.models.encoder import Encoder

logger = logging.getLogger("ray.serve")


def main() -> int:
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{exported.LOG_PREFIX}%(message)s"))
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    request = ExportRequest.model_validate_json(sys.stdin.read())
    try:
        export, settled = prepare(request.model)
        outcome = Outcome(folder=export.folder, settled=settled)
        if request.to is not None:
            outcome.copied_to = stores.push(export.folder, request.to)
    except NotExportableError as error:
        outcome = Outcome(refusal=str(error))
    except CheckpointError as error:
        print(error, file=output, flush=True)
        return 1
    print(outcome.model_dump_json(), file=output, flush=True)
    return 0


def prepare(settings: ModelSettings) -> tuple[Export, Settled]:
    """The configured model's export, and the precision it runs in on this processor.

    Makes what is missing, in one process at a time; others wait and then find it. Raises
    CheckpointError if the model cannot be served, NotExportableError if only torch can run it.
    """
    root = exported.cache_root()
    key = exported.export_key(settings)
    with ExitStack() as held:
        with suppress(OSError):  # the cache is not writable, so nothing is made there either
            held.enter_context(locked(root / f"{key}.lock"))
        export = exported.find(settings, key) or pulled(settings, root / key)
        if export is None:
            export = _made(settings, root / key)
        if settings.precision in ("int8", "fastest"):
            _add_int8(export, must=settings.precision == "int8")
        settled = export.settled(settings.precision)
        if settled is None:
            settled = _settle(export, settings)
    return export, settled


def pulled(settings: ModelSettings, folder: Path) -> Export | None:
    """The export in the configured object store, if there is one; `find` has looked in folders."""
    store = settings.exports
    if store is None:
        return None
    try:
        if "://" in store and stores.pull(store, folder.name, folder):
            logger.info(f"Took model {settings.name} from {stores.shown(store)}.")
            return exported.read(folder)
        logger.warning(
            f"{stores.shown(store)} has no export of model {settings.name} for these versions."
        )
    except CheckpointError as error:
        logger.warning(f"The model is exported here: {error}.")
    return None


def _made(settings: ModelSettings, folder: Path) -> Export:
    from deployments.models.encoder import Encoder  # imports torch, which takes seconds

    logger.info(f"Exporting model {settings.name} to OpenVINO, once.")
    began = time.monotonic()
    torch_settings = {"precision": "float32", "device": "cpu"}
    encoder = Encoder.load(settings.model_copy(update=torch_settings))
    try:
        with written_aside(folder) as aside:
            try:
                _write(encoder, aside, threads=thread_count(settings.threads))
            except ImpossibleError as error:
                logger.warning(f"The model cannot be exported, which is recorded in {folder}.")
                for file in aside.iterdir():
                    file.unlink()
                (aside / exported.REFUSAL).write_text(str(error))
    except OSError as error:
        logger.warning(f"The export cannot be written to {folder.parent}: {error}.")
    except (RuntimeError, MemoryError) as error:  # torch's or OpenVINO's: tried again next time
        logger.exception("The export failed.")
        raise NotExportableError(f"exporting it failed ({type(error).__name__})") from error
    made = exported.read(folder)  # or another machine's, if the cache is shared without locks
    if made is None:
        raise NotExportableError("its export cannot be kept here; the log says why")
    logger.info(f"Exported in {time.monotonic() - began:.0f} s, and kept as {folder}.")
    return made


def _write(encoder: "Encoder", folder: Path, *, threads: int) -> None:
    """Writes all files of an export. Raises ImpossibleError if OpenVINO cannot convert the model,
    or gives other vectors than torch."""
    pixels = photos(encoder.preprocessing.pixels)
    tokens = np.zeros((0, 1), np.int32)
    image_vectors = encoder.encode(pixels)
    text_vectors = image_vectors[:0]
    _write_tower(encoder.image_tower, pixels, folder / "image.xml", free=1)
    _compare(folder / "image.xml", pixels, image_vectors, threads)
    if encoder.text is not None and encoder.tokenizer_json is not None:
        tokens = encoder.tokenize(SENTENCES)
        text_vectors = encoder.encode_text(tokens)
        _write_tower(encoder.text_tower, tokens, folder / "text.xml", free=2)
        _compare(folder / "text.xml", tokens, text_vectors, threads)
        (folder / exported.TOKENIZER).write_text(encoder.tokenizer_json)
    np.savez(
        folder / exported.PROBES,
        pixels=pixels,
        image_vectors=image_vectors,
        tokens=tokens,
        text_vectors=text_vectors,
    )
    manifest = Manifest(
        id=encoder.checkpoint.id,
        revision=encoder.checkpoint.revision,
        identity=encoder.identity().hex(),
        dimensions=encoder.dimensions,
        vectors_per_image=encoder.vectors_per_image,
        pixels=encoder.preprocessing.pixels,
        tolerant=encoder.tolerant,
        text=encoder.text,
        borrowed=open_clip.borrowed(encoder.checkpoint),
    )
    exported.write_manifest(folder, manifest)


def _write_tower(tower: Any, stack: Any, path: Path, *, free: int) -> None:
    """`free`: how many of the input's leading dimensions differ from batch to batch."""
    import torch

    from deployments.models import ir

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every branch in a model
        try:
            model = ir.convert(tower.eval(), torch.from_numpy(stack[:2]))
        except MemoryError:
            raise
        except Exception as error:  # the tracer and the converter may raise anything
            raise ImpossibleError(
                f"OpenVINO cannot take it ({type(error).__name__}: {first_line(error)})"
            ) from error
    model.reshape([-1] * free + list(stack.shape[free:]))
    ir.save(model, path)


def _compare(path: Path, stack: Any, vectors: Any, threads: int) -> None:
    """Raises ImpossibleError if what was traced with one batch is wrong for others."""
    from deployments.models import ir

    compiled = ir.compile(ir.read(path), "float32", threads=threads)
    for part in (slice(0, 1), slice(1, 4), slice(0, len(stack))):
        some, expected = stack[part], vectors[part]
        if path.stem == "text":
            some = some[:, : max(1, (some >= 0).sum(axis=1).max())]
            if expected.ndim == 3:  # a vector for each token
                expected = expected[:, : some.shape[1]]
        cosine = least_cosine(ir.run(compiled, some), expected)
        if cosine < NEEDED_COSINE["float32"]:
            raise ImpossibleError(
                f"OpenVINO gives {path.stem} vectors with a cosine of {cosine:.4f} with torch's"
            )


def _add_int8(export: Export, *, must: bool) -> None:
    """Quantises the image tower to 8-bit integers, unless that has been done.

    Raises CheckpointError if it cannot be done.
    """
    path = export.tower("image", "int8")
    if path.exists():
        return
    if not must and "int8" not in native_precisions():
        return
    # First, because it disables OpenVINO's telemetry, which NNCF would import.
    from deployments.models import ir

    try:
        import nncf
    except ModuleNotFoundError as error:
        raise CheckpointError(
            "model.precision int8 or fastest quantises the model with NNCF: pip install "
            "'raylens[int8]', or choose another precision"
        ) from error
    logger.info("Quantising the model to int8, once.")
    model = ir.read(export.tower("image", "float32"))
    attention = {"ScaledDotProductAttention", "Softmax"}
    kinds = {operation.get_type_name() for operation in model.get_ops()}
    # Turned, because the result is tested on the photos themselves.
    turns = (ImageOps.flip, ImageOps.mirror)
    samples = np.concatenate([photos(export.manifest.pixels, turn) for turn in turns])
    nncf.set_log_level(logging.ERROR)
    quantised = nncf.quantize(
        model,
        nncf.Dataset([samples[i : i + 1] for i in range(len(samples))]),
        subset_size=len(samples),
        model_type=nncf.ModelType.TRANSFORMER if attention & kinds else None,
    )
    aside = path.with_name(f".{path.name}")
    try:
        ir.save(quantised, aside)
        for suffix in (".bin", ".xml"):  # an .xml is never without its .bin
            aside.with_suffix(suffix).replace(path.with_suffix(suffix))
    except OSError as error:
        for suffix in (".bin", ".xml"):
            aside.with_suffix(suffix).unlink(missing_ok=True)
        raise CheckpointError(
            f"{path.parent}: the int8 model cannot be written there ({error.strerror}); export it "
            "with --precision int8"
        ) from error


def _settle(export: Export, settings: ModelSettings) -> Settled:
    """Tries precisions on this processor, and stores the result."""
    from deployments.models import ir

    probes = export.probes()
    native = native_precisions()
    threads = thread_count(settings.threads)

    def attempt(precision: Precision) -> float:
        if precision == "float16":
            raise ImpossibleError("it is for GPUs")
        if precision == "bfloat16" and precision not in native:
            raise ImpossibleError("the processor has no instructions for it")
        pairs: list[tuple[str, Any, Any]] = [("image", probes.pixels, probes.image_vectors)]
        if len(probes.tokens):
            pairs.append(("text", probes.tokens, probes.text_vectors))
        cosines = []
        for name, stack, vectors in pairs:
            try:
                model = ir.read(export.tower(name, precision))
                compiled = ir.compile(model, precision, threads=threads)
                cosines.append(least_cosine(ir.run(compiled, stack), vectors))
            except RuntimeError as error:  # OpenVINO raises nothing else
                raise ImpossibleError(f"OpenVINO says: {first_line(error)}") from error
        return min(cosines)

    found: Settled | str
    try:
        found = settle(settings.precision, native, attempt)
    except ImpossibleError as error:
        found = f"OpenVINO does not compute it right on this processor: {error}"
    with suppress(OSError):  # not writable: precisions are tried again at every start
        exported.keep_settled(export, settings.precision, found)
    if isinstance(found, str):
        raise NotExportableError(found)
    return found


if __name__ == "__main__":
    sys.exit(main())
