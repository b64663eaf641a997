"""A GPU's graphs: one for each thread and power of two, recorded as torch asks for it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from deployments.models.graphs import GraphTower, Recorder
from tests.models.gpu import FakeRecorder, fake_cuda


def total(pixels: Tensor) -> Tensor:
    return pixels.flatten(1).float().sum(1, keepdim=True)


def images(number: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, 4, 6, 3), generator=random, dtype=torch.uint8)


@pytest.mark.parametrize(("number", "size"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8)])
def test_batches_are_run_in_powers_of_two(number: int, size: int) -> None:
    sizes = []

    def tower(pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return total(pixels)

    pixels = images(number)
    assert torch.equal(GraphTower(tower, FakeRecorder)(pixels), total(pixels))
    assert set(sizes) == {size}


def test_a_graph_is_recorded_once_and_its_last_vectors_stay_what_they_were() -> None:
    made: list[FakeRecorder] = []

    def recorder() -> FakeRecorder:
        made.append(FakeRecorder())
        return made[-1]

    graphs = GraphTower(total, recorder)
    stacks = [images(number, seed) for seed, number in enumerate((8, 7, 5, 8, 2, 6))]
    found = [graphs(stack) for stack in stacks]
    for stack, vectors in zip(stacks, found, strict=True):
        assert torch.equal(vectors, total(stack))
    assert len(made) == 1


def test_two_threads_never_write_into_the_same_memory() -> None:
    # Both have filled their pixels before either runs; in one memory, both would get the same.
    both = threading.Barrier(2, timeout=10)
    graphs = GraphTower(total, lambda: FakeRecorder(both.wait))
    stacks = [images(4, seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as threads:
        for stack, vectors in zip(stacks, threads.map(graphs, stacks), strict=True):
            assert torch.equal(vectors, total(stack))


def test_a_graph_is_recorded_after_warming_up_in_a_stream_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = fake_cuda(monkeypatch)
    recorder = Recorder()

    def run() -> Tensor:
        cuda.say(f"run in {cuda.current_stream().name}")
        return torch.ones(1)

    _, result = recorder.record(run)
    assert result.item() == 1
    assert cuda.said == [
        "stream 1 waits for default",
        *["run in stream 1"] * 3,
        "capture in stream 1, a pool, thread_local",
        "run in stream 1",
        "end of capture",
        "default waits for stream 1",
    ]


def test_after_a_failed_recording_the_thread_is_in_its_own_stream_and_others_may_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = fake_cuda(monkeypatch)
    recorder = Recorder()
    cuda.fails_at_end_of_capture = True
    with pytest.raises(RuntimeError, match="during capture"):
        recorder.record(lambda: torch.ones(1))
    assert cuda.current_stream() is cuda.default
    cuda.fails_at_end_of_capture = False
    recorder.record(lambda: torch.ones(1))


def test_one_graph_is_recorded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = fake_cuda(monkeypatch)

    def record(_: int) -> None:
        Recorder().record(lambda: torch.ones(1))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(record, range(16)))
    captures = [said for said in cuda.said if "capture" in said]
    assert len(captures) == 32
    assert all(said == "end of capture" for said in captures[1::2])
