"""CPUs run exports; GPUs, and models that cannot be exported, use torch; the reason is told."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models import ir
from deployments.models.engines.choice import load_engine
from deployments.models.engines.torch import TorchEngine
from deployments.models.export import prepare
from deployments.models.exported import NotExportableError
from deployments.settings import ModelSettings
from tests.models.conftest import Tiny, in_float32

PROGRAM = """
import asyncio, json, sys
from deployments.models.engines.choice import load_engine
from deployments.settings import ModelSettings
engine = asyncio.run(load_engine(ModelSettings.model_validate_json(sys.argv[1]), has_gpu=False))
heavy = sorted({"torch", "transformers", "huggingface_hub", "nncf"} & set(sys.modules))
print(json.dumps([engine.loaded.engine, engine.loaded.engine_reason, heavy]))
"""


@pytest.mark.slow
def test_the_first_start_exports_and_no_start_imports_torch(home: Path, tiny: Tiny) -> None:
    for _ in range(2):
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM, in_float32(tiny("CLIP")).model_dump_json()],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert process.returncode == 0, process.stderr
        engine, reason, heavy = json.loads(process.stdout)
        assert engine == "openvino"
        assert reason.startswith("OpenVINO 20")
        assert heavy == []


async def test_with_compile_off_torch_runs_the_model(home: Path, tiny: Tiny) -> None:
    engine = await load_engine(in_float32(tiny("ViT"), compile="off"), has_gpu=False)
    assert engine.loaded.engine_reason == "torch, because model.compile is off"
    assert not home.exists()


async def test_on_a_gpu_torch_runs_the_model(
    home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def load(settings: ModelSettings, *, reason: str) -> str:
        asked.append((settings.device, reason))
        return "engine"

    monkeypatch.setattr(TorchEngine, "load", load)
    await load_engine(in_float32(tiny("ViT")), has_gpu=True)
    await load_engine(in_float32(tiny("ViT"), device="cuda"), has_gpu=False)
    assert asked == [("auto", "torch, as on every GPU"), ("cuda", "torch, as on every GPU")]


@pytest.fixture
def refused(home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint that was tried before and cannot be exported."""

    def convert(*_: object) -> None:
        raise TypeError("an operation")

    with monkeypatch.context() as patch:
        patch.setattr(ir, "convert", convert)
        with pytest.raises(NotExportableError):
            prepare(in_float32(tiny("ViT")))
    return tiny("ViT")


async def test_a_model_that_cannot_be_exported_runs_in_torch(
    refused: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    engine = await load_engine(in_float32(refused), has_gpu=False)
    reason = "OpenVINO cannot take it (TypeError: an operation)"
    assert engine.loaded.engine_reason == f"torch, because {reason}"
    assert f"runs in torch: {reason}" in caplog.text


async def test_compile_on_refuses_a_model_that_cannot_be_exported(refused: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be exported: OpenVINO .* to 'auto'"):
        await load_engine(in_float32(refused, compile="on"), has_gpu=False)


async def test_what_the_export_process_says_of_a_bad_checkpoint_is_passed_on(
    home: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"there is no such folder on this machine"):
        await load_engine(in_float32(tmp_path / "none"), has_gpu=False)


async def test_a_damaged_export_is_refused_naming_its_folder(home: Path, tiny: Tiny) -> None:
    export, _ = prepare(in_float32(tiny("ViT")))
    (export.folder / "image.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"delete {export.folder} to have it made again"):
        await load_engine(in_float32(tiny("ViT")), has_gpu=False)


@pytest.mark.slow
async def test_the_replicas_log_has_what_the_export_process_says(
    home: Path, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await load_engine(in_float32(tiny("ViT")), has_gpu=False)
    assert f"Exporting model {tiny('ViT').name} to OpenVINO, once." in caplog.text
    assert "raylens: " not in caplog.text


async def test_after_a_killed_export_process_the_model_runs_in_torch(
    home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    engine = await load_engine(in_float32(tiny("ViT")), has_gpu=False)
    assert "was killed by signal 9" in engine.loaded.engine_reason


async def test_an_export_process_that_fails_is_an_error_with_its_traceback_in_the_log(
    home: Path,
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho Traceback >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(CheckpointError, match="ended with 3; see the log"):
        await load_engine(in_float32(tiny("ViT")), has_gpu=False)
    assert "Traceback" in caplog.text


async def test_device_cpu_runs_the_export_even_beside_a_gpu(home: Path, tiny: Tiny) -> None:
    prepare(in_float32(tiny("ViT")))
    engine = await load_engine(in_float32(tiny("ViT"), device="cpu"), has_gpu=True)
    assert engine.loaded.engine == "openvino"


async def test_a_library_that_prints_without_line_ends_does_not_block_the_start(
    home: Path,
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' . >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(CheckpointError, match="ended with 3; see the log"):
        await load_engine(in_float32(tiny("ViT")), has_gpu=False)
