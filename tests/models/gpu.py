"""A `torch.cuda` that computes on the CPU and remembers what was asked of it, in order."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from deployments.models.graphs import Recorder


class FakeRecorder(Recorder):
    """Replays by calling, into the same memory each time."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        """`before` is called before each replay."""
        self._before = before

    def record(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        result = run()

        def replay() -> None:
            self._before()
            result.copy_(run())

        return replay, result


class FakeStream:
    def __init__(self, cuda: "FakeCuda", name: str) -> None:
        self._cuda = cuda
        self.name = name

    def wait_stream(self, other: "FakeStream") -> None:
        self._cuda.say(f"{self.name} waits for {other.name}")


class FakeCuda:
    """Stands in for the parts of `torch.cuda` that raylens uses. `said` is what was asked."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.default = FakeStream(self, "default")
        self.fails_at_end_of_capture = False
        self._made = 0
        self._thread = threading.local()

    def say(self, what: str) -> None:
        self.said.append(what)

    def stream_name(self) -> str:
        self._made += 1
        return f"stream {self._made}"

    def current_stream(self, device: str | None = None) -> FakeStream:
        current: FakeStream = getattr(self._thread, "current", self.default)
        return current

    def stream(self, stream: FakeStream) -> "_Current":
        return _Current(self, stream)

    def make_current(self, stream: FakeStream) -> None:
        self._thread.current = stream

    def graph(
        self, graph: object, *, pool: Any, stream: FakeStream, capture_error_mode: str
    ) -> Any:
        return _Capture(self, stream, f"capture in {stream.name}, {pool}, {capture_error_mode}")


class _Current:
    def __init__(self, cuda: FakeCuda, stream: FakeStream) -> None:
        self._cuda, self._stream = cuda, stream

    def __enter__(self) -> None:
        self._before = self._cuda.current_stream()
        self._cuda.make_current(self._stream)

    def __exit__(self, *error: object) -> None:
        self._cuda.make_current(self._before)


class _Capture:
    """As torch's, which leaves its stream the current one if ending the capture fails."""

    def __init__(self, cuda: FakeCuda, stream: FakeStream, what: str) -> None:
        self._cuda, self._what = cuda, what
        self._stream = cuda.stream(stream)

    def __enter__(self) -> None:
        self._stream.__enter__()
        self._cuda.say(self._what)

    def __exit__(self, *error: Any) -> None:
        self._cuda.say("end of capture")
        if self._cuda.fails_at_end_of_capture:
            raise RuntimeError("operation failed due to a previous error during capture")
        self._stream.__exit__(*error)


class _Graph:
    def replay(self) -> None:
        pass


def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Until the test ends. Tensors stay on the CPU, whatever they are told."""
    cuda = FakeCuda()

    class Stream(FakeStream):  # a class, because others have it in their annotations
        def __init__(self, device: str | None = None) -> None:
            super().__init__(cuda, cuda.stream_name())

    for name, fake in {
        "is_available": lambda: True,
        "get_device_name": lambda device: "Fake GPU",
        "get_device_capability": lambda device: (9, 0),
        "empty_cache": lambda: cuda.say("empty the cache"),
        "Stream": Stream,
        "stream": cuda.stream,
        "current_stream": cuda.current_stream,
        "default_stream": lambda device: cuda.default,
        "graph_pool_handle": lambda: "a pool",
        "CUDAGraph": _Graph,
        "graph": cuda.graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)

    def moved(real: Callable[..., torch.Tensor], what: str) -> Callable[..., torch.Tensor]:
        def move(values: Any, *arguments: Any, **options: Any) -> Any:
            if what != "to" or str(arguments[:1]).find("cuda") >= 0:
                asynchronous = ", not waiting" if options.pop("non_blocking", False) else ""
                if isinstance(values, torch.Tensor):
                    cuda.say(f"{what} in {cuda.current_stream().name}{asynchronous}")
                arguments = arguments[1:]
            return real(values, *arguments, **options) if arguments or options else values

        return move

    monkeypatch.setattr(torch.Tensor, "pin_memory", moved(torch.Tensor.pin_memory, "pin"))
    monkeypatch.setattr(torch.Tensor, "to", moved(torch.Tensor.to, "to"))
    monkeypatch.setattr(torch.Tensor, "cpu", moved(torch.Tensor.cpu, "cpu"))
    monkeypatch.setattr(torch.nn.Module, "to", moved(torch.nn.Module.to, "to"))
    return cuda
