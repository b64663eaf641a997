"""Which engine runs the configured model; its export is found, or made in a process of its own."""

import asyncio
import logging
import os
import sys

from deployments.models import exported
from deployments.models.checkpoint import CheckpointError
from deployments.models.engines.engine import Engine, EngineError
from deployments.models.exported import Export, NotExportableError, Outcome, Request
from deployments.models.precision import Settled
from deployments.settings import Model
from deployments.threads import thread_count

logger = logging.getLogger("ray.serve")


async def load_engine(settings: Model, *, has_gpu: bool) -> Engine:
    """The configured model, loaded and proved; in tenths of seconds where it was exported before.

    `has_gpu` says whether this process was given one. Raises CheckpointError if the model cannot be
    served here.
    """
    # Imported here, because either library is needed by one of the engines alone.
    from deployments.models.engines.torch import TorchEngine

    if has_gpu or settings.device == "cuda":
        return await TorchEngine.load(settings, reason="torch, as on every GPU")
    settings = settings.model_copy(update={"device": "cpu"})
    if settings.compile == "off":
        return await TorchEngine.load(settings, reason="torch, because model.compile is off")
    try:
        export, settled = await _exported(settings)
    except NotExportableError as error:
        if settings.compile == "on":
            raise CheckpointError(
                f"model {settings.name!r} cannot be compiled: {error}; set model.compile to 'auto'"
            ) from error
        logger.warning(f"Model {settings.name} runs in torch: {error}.")
        return await TorchEngine.load(settings, reason=f"torch, because {error}")
    return await _compiled(export, settled, settings)


async def _compiled(export: Export, settled: Settled, settings: Model) -> Engine:
    from deployments.models.engines.openvino import OpenvinoEngine

    try:
        engine = await asyncio.to_thread(
            OpenvinoEngine,
            export,
            settled,
            threads=thread_count(settings.threads),
            device_reason="cpu, because this replica was given no GPU",
        )
        await engine.prove()
    except (OSError, RuntimeError, ValueError, EngineError) as error:
        raise CheckpointError(
            f"model {settings.name!r}: its export does not work ({str(error).strip()}); delete "
            f"{export.folder} to have it made again"
        ) from error
    return engine


async def _exported(settings: Model) -> tuple[Export, Settled]:
    """From disk, or else made in a process of its own, which takes torch with it when it ends."""
    found = await asyncio.to_thread(_ready_made, settings)
    if found is not None:
        return found
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "deployments.models.export"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    said, _ = await process.communicate(Request(model=settings).model_dump_json().encode())
    lines = said.decode(errors="replace").strip().splitlines()
    if process.returncode != 0 or not lines:
        raise CheckpointError(
            lines[-1] if lines else f"exporting the model ended with {process.returncode}"
        )
    outcome = Outcome.model_validate_json(lines[-1])
    export = exported.read(outcome.folder) if outcome.folder is not None else None
    if export is None or outcome.settled is None:
        raise NotExportableError(outcome.refusal or "its export vanished")
    return export, outcome.settled


def _ready_made(settings: Model) -> tuple[Export, Settled] | None:
    export = exported.find(settings)
    settled = export.settled(settings.precision) if export is not None else None
    return None if export is None or settled is None else (export, settled)
