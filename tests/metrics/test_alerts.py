"""Each alert fires when it should and not for a healthy service, by Prometheus's own tool."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.metrics.dashboards import RULES, alert_expressions
from tests.servers import ROOT

CASES = ROOT / "tests" / "metrics" / "alerts.yml"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not there; apt-get install prometheus"
)


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [str(PROMTOOL), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rules by themselves, by the command that the file's first lines give."""
    (command,) = re.findall(r"^#   (sed .*)", RULES.read_text(), re.M)
    shutil.copy(RULES, tmp_path)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    return tmp_path / "raylens-rules.yml"


@needs_promtool
def test_prometheus_takes_the_rules(rules: Path) -> None:
    assert "SUCCESS" in run("check", "rules", rules)


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then(rules: Path, tmp_path: Path) -> None:
    cases = tmp_path / "alerts.yml"
    cases.write_text(CASES.read_text().replace("RULES", rules.name))
    assert "SUCCESS" in run("test", "rules", cases)


def test_each_alert_has_cases() -> None:
    cases = CASES.read_text()
    for name in alert_expressions():
        assert cases.count(f"alertname: {name}") >= 2, name
