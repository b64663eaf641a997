"""The benchmark for GPUs runs on a CPU with tiny models, keeps its time, and survives its rows."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import decode
from benchmarks.gpu.__main__ import PHASES, main
from benchmarks.gpu.budget import Budget, OutOfTimeError
from benchmarks.gpu.device import Device
from benchmarks.gpu.report import Report, Row
from benchmarks.gpu.run import Phase, Run, run_phases
from benchmarks.gpu.timeline import Use, use
from benchmarks.photos import jpeg
from deployments.models import casting
from tests.models.gpu import fake_cuda
from tests.servers import ROOT


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def row(self, seconds: float) -> Row:
        """Takes so long."""
        self.now += seconds
        return {"images_per_s": 1.0}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run() -> Run:
    return Run(Device("cpu"), Report({"device": "a test"}), quick=True)


def names(run: Run, *, measured: bool) -> list[str]:
    return [row["mode"] for row in run.report.rows if ("without" not in row) == measured]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit")  # torch's own, when it forgets what it compiled
def test_every_phase_runs_on_a_cpu_at_tiny_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiling takes seconds, and far more where pytest keeps all that torch says meanwhile.
    monkeypatch.setattr(torch, "compile", lambda tower, backend=None: tower)
    path = tmp_path / "gpu.json"
    code = main(["--device", "cpu", "--quick", "--json", str(path)])
    found = json.loads(path.read_text())
    assert code == 0, found["rows"]
    assert found["complete"]
    assert found["facts"]["torch"] == torch.__version__
    rows = [row for row in found["rows"] if "without" not in row]
    assert {row["phase"] for row in rows} == {"encoder", "gate", "engine", "decode"}
    eager = [row for row in rows if row.get("mode") == "eager"]
    assert {(row["precision"], row["batch"]) for row in eager} == {
        (precision, batch) for precision in ("float32", "bfloat16", "float16") for batch in (1, 2)
    }
    assert {row["geometry"] for row in eager} == {"tiny-clip", "tiny-siglip"}
    assert any(row.get("mode") == "compiled" for row in rows)
    assert all(row["images_per_s"] > 0 for row in rows if "images_per_s" in row)
    gates = [row for row in rows if row["phase"] == "gate"]
    assert len(gates) == 6
    assert all(row["cosine"] >= 0.999 and row["chosen"] in row["reason"] for row in gates)
    assert {row["without"] for row in found["rows"] if "without" in row} == {
        "CUDA graphs need a GPU"
    }
    assert "tiny-clip    eager" in capsys.readouterr().out


class FakeGpu(Device):
    """A GPU by its own account, whose tensors are on the CPU."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.is_gpu = True


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit")  # torch's own, when it forgets what it compiled
def test_what_needs_a_gpu_runs_on_a_fake_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch)
    properties = SimpleNamespace(
        name="Fake", major=9, minor=0, total_memory=2e9, multi_processor_count=1
    )
    for name, fake in {
        "synchronize": lambda device: None,
        "reset_peak_memory_stats": lambda device: None,
        "max_memory_reserved": lambda device: 3_000_000,
        "get_device_properties": lambda device: properties,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch, "compile", lambda tower, backend=None: tower)
    # What a GPU has, whatever this processor has.
    monkeypatch.setattr(casting, "native_precisions", lambda: frozenset({"bfloat16"}))
    device = FakeGpu()
    run = Run(device, Report(device.facts()), quick=True)
    run_phases(run, PHASES, Budget(300))
    assert not run.failed, run.report.tables()
    assert [row for row in run.report.rows if "without" in row] == []
    assert run.report.facts["capability"] == "9.0"
    assert {row["peak_mb"] for row in run.report.rows} == {3}
    assert {"eager", "compiled", "graphs of eager", "graphs of compiled"} == {
        row["mode"] for row in run.report.rows if row["phase"] == "encoder"
    }
    (compiled,) = [row for row in run.report.rows if row["phase"] == "compile: on"]
    assert compiled["chosen"] == "bfloat16"
    engines = [row for row in run.report.rows if row.get("mode") == "load"]
    assert [row["lanes"] for row in engines] == [2, 2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "sees no GPU" in capsys.readouterr().err
    assert main(["--device", "cpu"]) == 2
    assert "needs --quick" in capsys.readouterr().err


def test_rows_that_do_not_fit_are_left_out_and_the_run_ends_in_time(run: Run, clock: Clock) -> None:
    def phase(run: Run, budget: Budget) -> None:
        for number in range(20):
            named = {"phase": "a", "mode": str(number)}
            run.row(named, lambda: clock.row(7), budget=budget, needs_s=7)

    run_phases(run, [Phase("a", 0.5, phase), Phase("b", 0.5, phase)], Budget(100, clock))
    assert clock.now <= 200
    assert names(run, measured=True) == [*map(str, range(7)), *map(str, range(7))]
    assert len(run.report.rows) == 40
    assert "it needs some 7.0 s, and 1.0 s are left" in run.report.tables()


def test_what_a_phase_saves_goes_to_those_after_it(run: Run, clock: Clock) -> None:
    lefts = []

    def phase(run: Run, budget: Budget) -> None:
        lefts.append(budget.left())
        clock.now += 10

    run_phases(
        run,
        [Phase("a", 0.5, phase), Phase("b", 0.25, phase), Phase("c", 0.25, phase)],
        Budget(100, clock),
    )
    assert lefts == [50, 45, 80]


def test_the_shares_of_the_phases_are_all_of_the_time() -> None:
    assert sum(phase.share for phase in PHASES) == pytest.approx(1)


def test_a_row_that_fails_leaves_the_others(run: Run, clock: Clock, tmp_path: Path) -> None:
    def out_of_memory() -> Row:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    def wrong() -> Row:
        raise ValueError("no such thing\nAdvice.")

    budget = Budget(100, clock)
    run.row({"phase": "a", "mode": "memory"}, out_of_memory, budget=budget)
    assert not run.failed
    run.row({"phase": "a", "mode": "fine"}, lambda: clock.row(1), budget=budget)
    run.row({"phase": "a", "mode": "wrong"}, wrong, budget=budget)
    assert run.failed
    assert names(run, measured=True) == ["fine"]
    assert [row["without"] for row in run.report.rows if "without" in row] == [
        "the GPU has no memory for it",
        "ValueError: no such thing",
    ]


STUBBORN = """
import time
from benchmarks.gpu.budget import OutOfTimeError, ended_after

def forever():
    while True:
        try:
            time.sleep(10)
        except Exception:  # as compilers do
            continue

try:
    with ended_after(0.1):
        forever()
except OutOfTimeError:
    print("ended")
"""


def test_what_takes_too_long_is_ended() -> None:
    # In a process of its own: pytest's timeouts use the same signal.
    ran = subprocess.run(
        [sys.executable, "-c", STUBBORN],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout == "ended\n", ran.stderr


def test_a_row_that_took_too_long_says_so(run: Run) -> None:
    def ended() -> Row:
        raise OutOfTimeError

    run.row({"phase": "a"}, ended, budget=Budget(100))
    assert "took longer" in run.report.rows[0]["without"]
    assert not run.failed


def test_every_row_is_on_disk_when_it_is_there(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "gpu.json"
    report = Report({"device": "a test"}, path)
    for number in range(3):
        found = json.loads(path.read_text())
        assert (len(found["rows"]), found["complete"]) == (number, False)
        report.add({"phase": "a", **clock.row(1)})
    report.finish()
    assert json.loads(path.read_text())["complete"]


def test_what_a_gpu_did_is_read_from_a_timeline() -> None:
    # Two kernels that overlap, and one later; a copy half behind the second, one while idle.
    kernels = [(0.0, 4.0), (2.0, 6.0), (8.0, 10.0)]
    assert use(kernels, [(5.0, 7.0)]) == Use(computing=0.8, copies_hidden=0.5)
    assert use(kernels, []) == Use(computing=0.8, copies_hidden=None)
    assert use([], [(0.0, 1.0)]) is None


def test_processes_decode_side_by_side() -> None:
    with decode._pool(2, in_threads=True) as pool:
        tasks = [pool.submit(decode._rate, jpeg(0), 32, 0.02) for _ in range(2)]
        assert all(task.result() > 0 for task in tasks)
