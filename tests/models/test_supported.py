"""What raylens serves, on paper."""

import re
import subprocess
import sys
from typing import get_args

from deployments.checkpoints.checkpoint import Layout
from deployments.models import layouts, supported
from deployments.models.families import FAMILIES
from tests.servers import ROOT


def test_every_family_is_in_one_row() -> None:
    assert sorted(name for row in supported.families() for name in row.names) == sorted(FAMILIES)


def test_every_layout_has_a_row_and_extras_that_can_be_installed() -> None:
    assert [*supported.LAYOUTS] == [*get_args(Layout)]
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {row.extra for row in supported.LAYOUTS.values()} <= {"", *extras}


def test_what_refuses_a_layout_names_the_same_extra() -> None:
    named = {}
    for layout in supported.LAYOUTS:
        for path in ROOT.joinpath(*layouts.__name__.split(".")).glob(f"{layout}*.py"):
            for extra in re.findall(r"raylens\[(\w+)\]", path.read_text()):
                named[layout] = extra
    assert named == {name: row.extra for name, row in supported.LAYOUTS.items() if row.extra}


def test_listing_them_does_not_wait_for_torch() -> None:
    program = "import sys, deployments.models.supported; print('torch' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert process.stdout == "False\n", process.stderr
