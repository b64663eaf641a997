"""An image tower on a GPU as CUDA graphs: its kernels are recorded once, then launched all at once.

These are not torch.compile's own (`mode="reduce-overhead"`). Those belong to the thread that ran a
shape first, and torch 2.13 hands them to every other (`fn_cache` in `cudagraphify_impl`): two
threads would write into the same memory, and callers get each other's vectors.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Before it is recorded, as the example in torch's documentation of CUDA graphs does: libraries make
# their handles and workspaces, and torch.compile compiles.
_WARM_UPS = 3

# torch allows one recording at a time in a process, and waits for the whole GPU before each, which
# would spoil one that another thread has begun.
_RECORDING = threading.Lock()


class Recorder:
    """Records graphs for one thread, which share their memory, because only one runs at a time."""

    def __init__(self) -> None:
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool: Any = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """What launches the kernels of `run` on the caller's stream, and where they leave its
        result.

        `run` has to read and write the same memory each time, and not to wait for the GPU. Raises
        RuntimeError if it does, and torch.cuda.OutOfMemoryError.
        """
        with _RECORDING:
            caller = torch.cuda.current_stream()
            self._stream.wait_stream(caller)
            # Also restores the caller's stream where recording fails, which torch does not.
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UPS):
                    run()
                graph = torch.cuda.CUDAGraph()
                # Not "global": others may allocate memory meanwhile.
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
                ):
                    result = run()
            caller.wait_stream(self._stream)
        return graph.replay, result


class _Graph(NamedTuple):
    pixels: Tensor
    replay: Callable[[], None]
    vectors: Tensor


class GraphTower(nn.Module):
    """An image tower as CUDA graphs, one for each thread and power of two. Batches are padded."""

    def __init__(
        self,
        tower: Callable[[Tensor], Tensor],
        recorder: Callable[[], Recorder] = Recorder,
    ) -> None:
        """`tower` is any whose vectors do not depend on the rest of the batch."""
        super().__init__()
        self._tower = tower
        self._recorder = recorder
        self._thread = threading.local()

    def forward(self, pixels: Tensor) -> Tensor:
        """Call it in inference mode."""
        number = len(pixels)
        graph = self._graph(1 << (number - 1).bit_length(), pixels)
        graph.pixels[:number].copy_(pixels)  # behind them are older images
        graph.replay()
        # A copy, because the next run of the graph writes into the same memory.
        return graph.vectors[:number].clone()

    def _graph(self, size: int, like: Tensor) -> _Graph:
        thread = self._thread
        if not hasattr(thread, "graphs"):
            thread.graphs, thread.recorder = {}, self._recorder()
        if size not in thread.graphs:
            pixels = like.new_zeros((size, *like.shape[1:]))
            replay, vectors = thread.recorder.record(lambda: self._tower(pixels))
            thread.graphs[size] = _Graph(pixels, replay, vectors)
        graph: _Graph = thread.graphs[size]
        return graph
