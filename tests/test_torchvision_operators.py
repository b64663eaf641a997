"""torchvision beside a torch that it was not built for, in processes that have imported neither."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.models.families import write
from tests.servers import ROOT

pytestmark = pytest.mark.slow

DECLARE = "from deployments import torchvision_operators; torchvision_operators.declare(); "
# Prints a line for each package that is installed and cannot be imported.
IMPORT = """
from importlib import import_module, util
for package in filter(util.find_spec, ("transformers.image_utils", "timm", "open_clip")):
    try:
        import_module(package)
    except Exception as error:
        print(package, error)
"""
LOAD = """
from deployments.models.encoder import Encoder
from deployments.settings import ModelSettings
encoder = Encoder.load(ModelSettings(id={!r}, device="cpu", precision="float32"))
print(encoder.dimensions, *encoder.encode_text(encoder.tokenize(["a cat"])).shape)
"""


def python(code: str, *packages: Path) -> tuple[str, str]:
    """What the code prints, and the last line of its traceback; its folder has no packages."""
    path = os.pathsep.join(map(str, (*packages, ROOT)))
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    return process.stdout, process.stderr.strip().rpartition("\n")[2]


def torchvision(folder: Path, code: str) -> Path:
    """A package of that name which runs `code` when it is imported."""
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    return package


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
def test_what_needs_torchvision_works_beside_another_torchs(tmp_path: Path) -> None:
    failures, _ = python(IMPORT)
    if "torchvision::nms does not exist" not in failures:
        pytest.skip("torchvision was built for the torch beside it")
    packages = filter(find_spec, ("transformers", "timm", "open_clip"))
    assert len(failures.splitlines()) == len([*packages])
    folder = str(write("CLIP", tmp_path / "clip"))
    assert python(LOAD.format(folder) + IMPORT) == ("24 1 24\n", "")


def test_operators_are_declared_where_there_is_no_compiled_part(tmp_path: Path) -> None:
    torchvision(tmp_path, "import torch; print(torch.ops.torchvision.nms)")
    assert python(DECLARE, tmp_path) == ("torchvision.nms\n", "")


def test_operators_are_left_to_a_compiled_part_that_can_be_loaded(tmp_path: Path) -> None:
    """On a Mac and with CUDA, PyPI's torch and torchvision belong together."""
    package = torchvision(tmp_path, "import torch; print(hasattr(torch.ops.torchvision, 'nms'))")
    some = next(iter(Path(os.__file__).parent.glob("lib-dynload/_json.*")))  # any library
    shutil.copy(some, package / f"_C{some.suffix}")
    assert python(DECLARE, tmp_path) == ("False\n", "")


def test_another_damage_is_a_sentence_that_says_what_to_install(tmp_path: Path) -> None:
    torchvision(tmp_path, "raise RuntimeError('compiled with another CUDA')")
    _, error = python(LOAD.format("efficientnet-lite0"), tmp_path)
    assert (
        "CheckpointError: torchvision cannot be imported (RuntimeError: compiled with another "
        "CUDA); install the build that belongs to this torch"
    ) in error
    wanted = re.findall(r'"(torchvision>.*?)"', (ROOT / "pyproject.toml").read_text())
    assert re.findall("'(torchvision>.*?)'", error) == wanted


def test_without_torchvision_nothing_is_imported() -> None:
    hide = "import sys; sys.modules['torchvision'] = None; "
    assert python(f"{hide}{DECLARE}print('torch' in sys.modules)") == ("False\n", "")
