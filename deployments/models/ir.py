"""OpenVINO's intermediate representation (IR): towers on disk, compiled for this processor.

The one place that imports OpenVINO, which would send statistics of every conversion to its makers:
its telemetry package is hidden from it first. Knows nothing of checkpoints.
"""

import errno
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.wire import Precision

# As if it were not installed: OpenVINO and NNCF then use stubs that do nothing. Observed with
# OpenVINO 2026.4 and NNCF 3.4.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402
from openvino.tools.ovc import convert_impl, telemetry_stub  # noqa: E402

if convert_impl.tm is not telemetry_stub:
    raise RuntimeError(
        f"OpenVINO {ov.__version__} may send statistics to its makers in a way unknown to "
        "raylens; install the version that raylens names"
    )

VERSION: str = ov.__version__.partition("-")[0]

_HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


def convert(tower: Any, example: Any) -> Any:
    """A torch module in the IR, traced with `example`.

    Raises whatever the tracer and the converter raise.
    """
    return ov.convert_model(tower, example_input=example)


def read(path: Path) -> Any:
    """The model in `path`, an .xml with its .bin beside it, which is memory-mapped.

    Raises RuntimeError if the files are damaged.
    """
    return ov.Core().read_model(path)


def save(model: Any, path: Path) -> None:
    """Writes `path`, an .xml, and its .bin beside it, with unchanged weights. Raises OSError."""
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # of a full disk it says "iostream error"
        reason = " ".join(str(error).split())  # its first line is often but a place in its source
        free = shutil.disk_usage(path.parent).free // 1_000_000
        raise OSError(
            errno.EIO,
            f"OpenVINO cannot write it ({reason}); {free} MB are free there",
            str(path),
        ) from error


def compile(model: Any, precision: Precision, *, threads: int, streams: int = 1) -> Any:
    """A model from `read`, ready to run `streams` inferences in parallel, which share the threads.

    It computes in `float32` or `bfloat16`; `int8` is for a tower that has been quantised.
    """
    options = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],  # the default may be lower
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": threads,
        # Replicas on one machine would all be pinned to the same processors.
        "ENABLE_CPU_PINNING": False,
    }
    return ov.Core().compile_model(model, "CPU", options)


def run(compiled: Any, stack: NDArray[Any]) -> NDArray[np.float32]:
    """(N, …) to (N, D). Blocks."""
    vectors: NDArray[np.float32] = compiled([stack])[0]
    return vectors
