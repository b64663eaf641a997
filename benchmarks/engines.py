"""The engines that could run a model on a CPU, bare: pixels or tokens in, vectors out.

Each for a process of its own. Those that raylens does not use are here alone.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Tower = Literal["image", "text"]
Stack = NDArray[Any]
Vectors = NDArray[np.float32]


class Bare(Protocol):
    """A tower in an engine. Both methods block."""

    def run(self, stack: Stack) -> Vectors:
        """With all threads."""

    def streams(self, stack: Stack, seconds: float) -> float:
        """Batches a second, run side by side in one stream for each thread."""


class Settings(NamedTuple):
    """What to load, where, and with how much of the machine."""

    folder: Path
    tower: Tower
    threads: int
    scratch: Path
    """Kept between two loads, so that the second one finds what the first has made."""


class Torch:
    """As transformers runs it."""

    def __init__(self, settings: Settings, precision: str, *, compiled: bool = False) -> None:
        import torch

        from deployments.models.encoder import Encoder
        from deployments.settings import ModelSettings

        self._torch = torch
        self._threads = settings.threads
        model = ModelSettings(
            id=str(settings.folder), precision="float32", threads=settings.threads
        )
        encoder = Encoder.load(model.model_copy(update={"device": "cpu"}))
        tower: Any = encoder.image_tower if settings.tower == "image" else encoder.text_tower
        if precision == "bfloat16":
            tower.to(torch.bfloat16)
        tower.requires_grad_(False)
        if compiled:  # ahead of time, with constant weights
            package = settings.scratch / f"{settings.tower}-{precision}.pt2"
            if not package.exists():
                _compile(tower, probe(encoder, settings.tower)[:2], package)
            tower = torch._inductor.aoti_load_package(str(package))
        self._tower = tower

    def run(self, stack: Stack) -> Vectors:
        with self._torch.inference_mode():
            vectors: Vectors = self._tower(self._torch.from_numpy(stack)).numpy()
        return vectors

    def streams(self, stack: Stack, seconds: float) -> float:
        def start() -> None:
            self._torch.set_num_threads(1)

        return _in_threads(lambda: self.run(stack), self._threads, seconds, start)


def _compile(tower: Any, stack: Stack, package: Path) -> None:
    import torch
    import torch._inductor

    number = torch.export.Dim("number", min=1, max=4096)
    with torch.no_grad():
        program = torch.export.export(
            tower, (torch.from_numpy(stack),), dynamic_shapes=({0: number},)
        )
        torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(package),
            inductor_configs={"freezing": True, "cpp.dynamic_threads": True},
        )


class Openvino:
    """As raylens runs it."""

    def __init__(self, settings: Settings, precision: Any) -> None:
        from deployments.models import ir
        from deployments.models.export import prepare
        from deployments.settings import ModelSettings

        model = ModelSettings(
            id=str(settings.folder), threads=settings.threads, precision=precision
        )
        export, _ = prepare(model)
        model = ir.read(export.tower(settings.tower, precision))
        threads = settings.threads
        self._run = ir.run
        self._whole = ir.compile(model, precision, threads=threads)
        self._streams = ir.compile(model, precision, threads=threads, streams=threads)
        self._threads = threads

    def run(self, stack: Stack) -> Vectors:
        return self._run(self._whole, stack)

    def streams(self, stack: Stack, seconds: float) -> float:
        from deployments.models.engines.openvino import Inferences

        async def main() -> float:
            inferences = Inferences(self._streams)
            until = time.perf_counter() + seconds

            async def stream() -> int:
                number = 0
                while time.perf_counter() < until:
                    await inferences.run(stack)
                    number += 1
                return number

            began = time.perf_counter()
            numbers = await asyncio.gather(*(stream() for _ in range(self._threads)))
            return sum(numbers) / (time.perf_counter() - began)

        return asyncio.run(main())


class OnnxRuntime:
    """As infinity's `optimum` engine and many others run it."""

    def __init__(self, settings: Settings) -> None:
        import onnxruntime

        path = settings.scratch / f"{settings.tower}.onnx"
        if not path.exists():
            import torch

            from deployments.models.encoder import Encoder
            from deployments.settings import ModelSettings

            model = ModelSettings(id=str(settings.folder), precision="float32", device="cpu")
            encoder = Encoder.load(model)
            tower: Any = encoder.image_tower if settings.tower == "image" else encoder.text_tower
            stack = probe(encoder, settings.tower)[:2]
            free = {0: "number"} if settings.tower == "image" else {0: "number", 1: "length"}
            with torch.no_grad():
                torch.onnx.export(
                    tower,
                    (torch.from_numpy(stack),),
                    str(path),
                    input_names=["stack"],
                    output_names=["vectors"],
                    dynamic_axes={"stack": free, "vectors": {0: "number"}},
                    dynamo=False,
                )

        def session(threads: int) -> Any:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

        self._threads = settings.threads
        self._whole, self._single = session(settings.threads), session(1)

    def run(self, stack: Stack) -> Vectors:
        vectors: Vectors = self._whole.run(None, {"stack": stack})[0]
        return vectors

    def streams(self, stack: Stack, seconds: float) -> float:
        def run() -> None:
            self._single.run(None, {"stack": stack})

        return _in_threads(run, self._threads, seconds)


ENGINES: dict[str, Callable[[Settings], Bare]] = {
    "torch float32": lambda settings: Torch(settings, "float32"),
    "torch float32 compiled": lambda settings: Torch(settings, "float32", compiled=True),
    "torch bfloat16 compiled": lambda settings: Torch(settings, "bfloat16", compiled=True),
    "ONNX Runtime float32": OnnxRuntime,
    "OpenVINO float32": lambda settings: Openvino(settings, "float32"),
    "OpenVINO bfloat16": lambda settings: Openvino(settings, "bfloat16"),
    "OpenVINO int8": lambda settings: Openvino(settings, "int8"),
}


def probe(encoder: Any, tower: Tower) -> Stack:
    """What the race is run with: 8 photos, or 8 sentences."""
    from deployments.models.probes import SENTENCES, photos

    stack: Stack
    if tower == "image":
        stack = photos(encoder.preprocessing.pixels)
    else:
        stack = encoder.tokenize(SENTENCES)
    return stack


def _in_threads(
    run: Callable[[], object],
    threads: int,
    seconds: float,
    start: Callable[[], None] | None = None,
) -> float:
    """Calls of `run` a second, from so many threads."""
    until = time.perf_counter() + seconds

    def stream() -> int:
        number = 0
        while time.perf_counter() < until:
            run()
            number += 1
        return number

    with ThreadPoolExecutor(threads, initializer=start) as pool:
        began = time.perf_counter()
        numbers = [future.result() for future in [pool.submit(stream) for _ in range(threads)]]
        return sum(numbers) / (time.perf_counter() - began)
