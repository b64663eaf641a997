"""Compiled towers: the same vectors, made once, kept safely, and run without the GIL."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deployments.models import compiled
from deployments.models.checkpoint import CheckpointError
from deployments.models.compiled import (
    CompiledTower,
    CompileError,
    GraphTower,
    compile_tower,
    library_path,
)

PIXELS = torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8)
COMPILES = [
    pytest.mark.timeout(280),
    pytest.mark.filterwarnings("ignore"),  # torch's own, of its inductor
]


class Tower(nn.Module):
    """Mean colours through linear layers; `repeat` makes it take its time."""

    def __init__(self, *, repeat: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(16 * 16 * 3, 512)
        self.linear = nn.Linear(512, 512)
        self.repeat = repeat

    def forward(self, pixels: Tensor) -> Tensor:
        values: Tensor = self.first(pixels.flatten(1).float() / 255)
        for _ in range(self.repeat):
            values = torch.tanh(self.linear(values))
        return values


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stands for $XDG_CACHE_HOME; one for all, because compiling takes a quarter of a minute."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


def build(tower: nn.Module, identity: str, *, must: bool = True) -> nn.Module | None:
    return compile_tower(tower, PIXELS, identity=identity, device="cpu", must=must)


@pytest.fixture(scope="module")
def library(cache: Path) -> Path:
    """A compiled Tower(repeat=40), made by a user whose files are their group's to write."""
    before = os.umask(0o002)
    try:
        assert build(Tower(repeat=40), "tower") is not None
    finally:
        os.umask(before)
    return library_path("tower")


class TestCompiled:
    pytestmark = COMPILES

    def test_it_gives_the_same_vectors_for_every_size_of_batch(self, library: Path) -> None:
        tower, found = Tower(repeat=40), CompiledTower(library)
        with torch.inference_mode():
            for size in (1, 2, 3, 8, 33):
                pixels = torch.randint(0, 256, (size, 16, 16, 3), dtype=torch.uint8)
                torch.testing.assert_close(found(pixels), tower(pixels), rtol=1e-4, atol=1e-5)

    def test_its_vectors_outlive_the_next_batch(self, library: Path) -> None:
        found = CompiledTower(library)
        first = found(PIXELS[:2]).numpy()
        kept = first.copy()
        for _ in range(20):
            found(PIXELS[2:])
        assert (first == kept).all()

    def test_what_was_compiled_before_is_loaded_at_once(
        self, library: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise AssertionError("compiled again")

        monkeypatch.setattr(compiled, "_build", fail)
        began = time.monotonic()
        assert isinstance(build(Tower(repeat=40), "tower"), CompiledTower)
        assert time.monotonic() - began < 5

    def test_nothing_else_is_left_in_the_folder(self, library: Path) -> None:
        assert list(library.parent.iterdir()) == [library]
        assert library.parent.stat().st_mode & 0o077 == 0
        assert library.stat().st_mode & 0o077 == 0

    def test_other_threads_of_python_go_on_while_it_computes(self, library: Path) -> None:
        found = CompiledTower(library)
        pixels = torch.randint(0, 256, (4096, 16, 16, 3), dtype=torch.uint8)
        ticks: list[float] = []
        done = threading.Event()

        def tick() -> None:
            while not done.is_set():
                ticks.append(time.perf_counter())
                time.sleep(0.001)

        thread = threading.Thread(target=tick)
        thread.start()
        time.sleep(0.05)
        began = time.perf_counter()
        found(pixels)
        ended = time.perf_counter()
        done.set()
        thread.join()
        assert ended - began > 0.1, "too short a run to tell anything"
        assert sum(began < t < ended for t in ticks) > 10

    def test_batches_of_several_threads_do_not_mix(self, library: Path) -> None:
        found = CompiledTower(library)
        stacks = [torch.full((4, 16, 16, 3), value, dtype=torch.uint8) for value in range(6)]
        expected = [found(stack) for stack in stacks]
        wrong = []

        def run(number: int) -> None:
            for _ in range(30):
                if not torch.equal(found(stacks[number]), expected[number]):
                    wrong.append(number)

        threads = [threading.Thread(target=run, args=(n,)) for n in range(len(stacks))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_what_others_may_have_written_is_not_run(self, library: Path) -> None:
        library.chmod(0o666)
        try:
            with pytest.raises(CompileError, match="not this user's alone"):
                CompiledTower(library)
        finally:
            library.chmod(0o700)


def test_a_broken_library_leaves_the_model_uncompiled(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = library_path("broken")
    broken.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    broken.write_bytes(b"no library")
    broken.chmod(0o700)
    try:
        assert build(Tower(), "broken", must=False) is None
    finally:
        broken.unlink()
    assert "runs without being compiled" in caplog.text


def test_without_a_compiler_the_model_runs_uncompiled_unless_it_must(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build(Tower(), "other", must=False) is None
    assert "there is no C++ compiler (no-such-compiler)" in caplog.text
    with pytest.raises(CheckpointError, match=r"set model\.compile to 'auto'"):
        build(Tower(), "other", must=True)


@pytest.mark.filterwarnings("ignore")
def test_what_the_compiler_cannot_take_leaves_the_model_uncompiled(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Fickle(Tower):
        def forward(self, pixels: Tensor) -> Tensor:
            return pixels.float() if pixels.sum().item() > 3 else pixels

    assert build(Fickle(), "fickle", must=False) is None
    assert "runs without being compiled" in caplog.text
    assert not library_path("fickle").exists()


def test_without_a_place_to_keep_it_the_model_runs_uncompiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def homeless() -> Path:
        raise CheckpointError("this user has no home folder")

    monkeypatch.setattr(compiled, "user_cache", homeless)
    assert build(Tower(), "homeless", must=False) is None
    assert "no home folder" in caplog.text


def test_another_model_is_another_library() -> None:
    assert library_path("a") != library_path("b")


@pytest.mark.parametrize(("images", "run"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8)])
def test_a_gpus_graphs_run_for_powers_of_two(images: int, run: int) -> None:
    sizes = []

    def tower(pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return pixels.flatten(1).float().sum(1, keepdim=True)

    found = GraphTower(tower)(PIXELS[:images])
    assert sizes == [run]
    assert torch.equal(found, PIXELS[:images].flatten(1).float().sum(1, keepdim=True))


def test_on_a_gpu_nothing_is_compiled_unless_asked_for() -> None:
    assert compile_tower(Tower(), PIXELS, identity="x", device="cuda:0", must=False) is None
