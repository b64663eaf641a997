"""Chooses the engine of the configured model, whose export is found or made in another process.

Leaves exporting to `export` and running to the engines.
"""

import asyncio
import logging
import os
import sys
from collections import deque

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models import exported
from deployments.models.engines.engine import Engine, EngineError
from deployments.models.engines.torch import TorchEngine
from deployments.models.exported import Export, ExportRequest, NotExportableError, Outcome
from deployments.models.precision import Settled
from deployments.settings import ModelSettings
from deployments.threads import thread_count

logger = logging.getLogger("ray.serve")

# For the exporting process's log: libraries write a whole progress bar as one line.
_MAX_LINE_BYTES = 64 * 1024 * 1024


async def load_engine(settings: ModelSettings, *, has_gpu: bool) -> Engine:
    """The configured model, loaded and tested; in tenths of a second if it was exported before.

    `has_gpu` says whether this process was given a GPU. Raises CheckpointError if the model cannot
    be served here.
    """
    if settings.device != "cpu" and (has_gpu or settings.device == "cuda"):
        return await TorchEngine.load(settings, reason="torch, as on every GPU")
    settings = settings.model_copy(update={"device": "cpu"})
    if settings.compile == "off":
        return await TorchEngine.load(settings, reason="torch, because model.compile is off")
    try:
        export, settled = await _exported(settings)
    except NotExportableError as error:
        if settings.compile == "on":
            raise CheckpointError(
                f"model {settings.name!r} cannot be exported: {error}; set model.compile to 'auto'"
            ) from error
        logger.warning(f"Model {settings.name} runs in torch: {error}.")
        return await TorchEngine.load(settings, reason=f"torch, because {error}")
    return await _in_openvino(export, settled, settings)


async def _in_openvino(export: Export, settled: Settled, settings: ModelSettings) -> Engine:
    from deployments.models.engines.openvino import OpenvinoEngine

    try:
        engine = await asyncio.to_thread(
            OpenvinoEngine,
            export,
            settled,
            threads=thread_count(settings.threads),
        )
        await engine.prove()
    except (OSError, RuntimeError, ValueError, EngineError) as error:
        raise CheckpointError(
            f"model {settings.name!r}: its export does not work ({str(error).strip()}); delete "
            f"{export.folder} to have it made again"
        ) from error
    return engine


async def _exported(settings: ModelSettings) -> tuple[Export, Settled]:
    """From disk, or else made in a process of its own, whose memory is freed when it ends."""
    found = await asyncio.to_thread(_ready_made, settings)
    if found is not None:
        return found
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "deployments.models.export"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    log = asyncio.create_task(_log(process.stderr))
    process.stdin.write(ExportRequest(model=settings).model_dump_json().encode())
    process.stdin.close()
    output = (await process.stdout.read()).decode(errors="replace").strip()
    status, other = await process.wait(), await log
    if status < 0:
        raise NotExportableError(
            f"the process that exports it was killed by signal {-status}, perhaps out of memory"
        )
    if status != 0 or not output:
        if not output:
            logger.error("Exporting the model failed:\n" + "\n".join(other))
        raise CheckpointError(output or f"exporting the model ended with {status}; see the log")
    outcome = Outcome.model_validate_json(output)
    export = exported.read(outcome.folder) if outcome.folder is not None else None
    if export is None or outcome.settled is None:
        raise NotExportableError(outcome.refusal or "its export vanished")
    return export, outcome.settled


async def _log(stream: asyncio.StreamReader) -> list[str]:
    """Copies the process's log to this one's; returns the last of its other lines."""
    other: deque[str] = deque(maxlen=40)
    async for raw in stream:
        line = raw.decode(errors="replace").rstrip()
        if line.startswith(exported.LOG_PREFIX):
            logger.info(line.removeprefix(exported.LOG_PREFIX))
        else:
            other.append(line)
    return list(other)


def _ready_made(settings: ModelSettings) -> tuple[Export, Settled] | None:
    export = exported.find(settings)
    settled = export.settled(settings.precision) if export is not None else None
    return None if export is None or settled is None else (export, settled)
