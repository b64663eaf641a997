"""OpenVINO in a process of its own: it survives running out of memory and sends no telemetry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.models.exported import Export

# The real thing: memory runs out in the middle of an inference.
PROGRAM = """
import asyncio, os, resource, sys
from pathlib import Path
import numpy as np
from deployments.models import exported
from deployments.models.engines.openvino import OpenvinoEngine
from deployments.models.precision import Settled

async def main() -> None:
    export = exported.read(Path(sys.argv[1]))
    engine = OpenvinoEngine(export, Settled("float32", ""), threads=2)
    await engine.prove()
    height_width = engine.loaded.pixels.height_width
    pages = int(open("/proc/self/statm").read().split()[0])
    most = pages * resource.getpagesize() + 50 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    try:
        await engine.encode(np.zeros((64, *height_width, 3), np.uint8))
        print("no error")
    except RuntimeError as error:
        print("error", "memory" in str(error))
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    engine.check(stuck_after_s=0.01)
    await engine.prove()
    print("torch" in sys.modules, "transformers" in sys.modules, "huggingface_hub" in sys.modules)

asyncio.run(main())
sys.stdout.flush()
# Not a normal exit: OpenVINO's thread that called back last may still be in Python, which then
# aborts on its way out.
os._exit(0)
"""


@pytest.mark.slow
def test_a_call_that_runs_out_of_memory_raises_and_the_next_one_works_without_torch(
    bundled_export: Export,
) -> None:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(bundled_export.folder)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split("\n")[:2] == ["error True", "False False False"]


# In the place of OpenVINO's telemetry package: leaves a file behind if it is imported.
TELEMETRY = """
import os, pathlib
pathlib.Path(os.environ["TOLD"]).write_text("imported")
class Telemetry:
    def __init__(self, *args, **kwargs): pass
    def __getattr__(self, name): return lambda *args, **kwargs: None
"""
CONVERTS = """
import torch
from deployments.models import ir
ir.convert(torch.nn.Linear(2, 2), torch.zeros(1, 2))
"""


@pytest.mark.slow
def test_converting_a_model_does_not_import_openvinos_telemetry(tmp_path: Path) -> None:
    package = tmp_path / "path" / "openvino_telemetry"
    (package / "backend").mkdir(parents=True)
    (package / "__init__.py").write_text(TELEMETRY)
    (package / "backend" / "__init__.py").write_text("backend_ga4 = None")
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "path"),
        "TOLD": str(tmp_path / "told"),
    }

    def run(program: str) -> int:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode

    assert run(CONVERTS) == 0
    assert not (tmp_path / "told").exists()
    run("import openvino")
    assert (tmp_path / "told").exists(), "the trap does not work"
