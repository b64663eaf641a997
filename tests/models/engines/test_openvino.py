"""An exported model gives its vectors on the event loop, and whatever goes wrong is noticed."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.models.encoder import Encoder
from deployments.models.engines import openvino
from deployments.models.engines.engine import EngineError
from deployments.models.engines.openvino import ImageLanes, Inferences, OpenvinoEngine
from deployments.models.exported import Export, read
from deployments.models.precision import Settled
from deployments.models.probes import least_cosine
from deployments.settings import ModelSettings
from tests.models.conftest import Exported, Tiny

FLOAT32 = Settled("float32", "float32, because a test says so")


def load(export: Export, *, threads: int = 2) -> OpenvinoEngine:
    return OpenvinoEngine(export, FLOAT32, threads=threads)


@pytest.fixture(scope="module")
def clip(exported: Exported) -> Export:
    return exported("CLIP")


def pixels(engine: OpenvinoEngine, number: int, seed: int = 0) -> np.ndarray:
    shape = (number, *engine.loaded.pixels.height_width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


async def test_the_vectors_equal_torchs(clip: Export, tiny: Tiny) -> None:
    engine = load(clip)
    encoder = Encoder.load(
        ModelSettings(id=str(tiny("CLIP")), precision="float32", device="cpu", threads=1)
    )
    for number in (1, 3, 8):
        images = pixels(engine, number, seed=number)
        assert least_cosine(await engine.encode(images), encoder.encode(images)) > 0.99999
    for texts in (["a cat"], ["", "two dogs on a sofa", "x " * 100]):
        tokens = encoder.tokenize(texts)
        found = await engine.encode_text(tokens)
        assert least_cosine(found, encoder.encode_text(tokens)) > 0.99999
    assert engine.loaded.dimensions == encoder.dimensions
    assert engine.loaded.text == encoder.text
    assert engine.tokenizer_json == encoder.tokenizer_json


async def test_batches_side_by_side_do_not_mix_nor_block_the_event_loop(clip: Export) -> None:
    engine = load(clip)
    stacks = [pixels(engine, 2, seed=seed) for seed in range(8)]
    alone = [await engine.encode(stack) for stack in stacks]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    for _ in range(5):
        together = await asyncio.gather(*(engine.encode(stack) for stack in stacks))
        for found, expected in zip(together, alone, strict=True):
            assert least_cosine(found, expected) > 0.99999
    ticking.cancel()
    assert ticks > 20


async def test_vectors_outlive_the_next_batch(clip: Export) -> None:
    engine = load(clip)
    first = await engine.encode(pixels(engine, 2))
    kept = first.copy()
    for seed in range(1, 10):
        await engine.encode(pixels(engine, 2, seed=seed))
    assert (first == kept).all()


async def test_input_that_does_not_fit_the_model_is_an_error(clip: Export) -> None:
    engine = load(clip)
    for wrong in (pixels(engine, 1).astype(np.float32), pixels(engine, 1)[:, 1:]):
        with pytest.raises(ValueError, match="pixels should be uint8"):
            await engine.encode(wrong)
    for wrong in (
        np.ones((1, 9000), np.int32),
        np.ones((1, 3), np.int64),
        -np.ones((1, 3), np.int32),
    ):
        with pytest.raises(ValueError, match="token"):
            await engine.encode_text(wrong)  # type: ignore[arg-type]


async def test_texts_for_a_model_that_reads_none_are_an_error(exported: Exported) -> None:
    with pytest.raises(ValueError, match="no text tower"):
        await load(exported("ViT")).encode_text(np.ones((1, 3), np.int32))


async def test_read_only_pixels_are_taken(clip: Export) -> None:
    engine = load(clip)
    images = pixels(engine, 2)
    expected = await engine.encode(images)
    read_only = np.frombuffer(images.tobytes(), np.uint8).reshape(images.shape)
    assert not read_only.flags.writeable
    assert (await engine.encode(read_only) == expected).all()


async def test_proving_notices_a_model_that_gives_different_vectors(
    clip: Export, tmp_path: Path
) -> None:
    await load(clip).prove()
    folder = tmp_path / clip.key
    shutil.copytree(clip.folder, folder)
    with np.load(clip.folder / "probes.npz") as arrays:
        np.savez(folder / "probes.npz", **{**arrays, "image_vectors": -arrays["image_vectors"]})
    copy = read(folder)
    assert copy is not None
    with pytest.raises(EngineError, match=r"cosine of -1\.0000"):
        await load(copy).prove()


def test_a_file_that_was_cut_short_is_noticed(clip: Export, tmp_path: Path) -> None:
    folder = tmp_path / clip.key
    shutil.copytree(clip.folder, folder)
    weights = (folder / "image.bin").read_bytes()
    (folder / "image.bin").write_bytes(weights[: len(weights) // 2])
    copy = read(folder)
    assert copy is not None
    with pytest.raises(RuntimeError):
        load(copy)


class FakeRequest:
    """Like OpenVINO's inference request: it fails without calling back, or ends when told to."""

    def __init__(self, compiled: "FakeCompiled") -> None:
        self._compiled = compiled
        self.callback: Any = None

    def set_callback(self, callback: Any, userdata: Any) -> None:
        self.callback = callback

    def start_async(self, inputs: Any, *, share_inputs: bool) -> None:
        self._compiled.started.append(self)

    def wait_for(self, milliseconds: int) -> bool:
        if self._compiled.fails:
            raise RuntimeError("no memory")
        return False

    def get_output_tensor(self, index: int) -> Any:
        return type("Tensor", (), {"data": np.zeros((1, 3), np.float32)})


class FakeCompiled:
    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.started: list[FakeRequest] = []
        self.made = 0

    def create_infer_request(self) -> FakeRequest:
        self.made += 1
        return FakeRequest(self)


async def test_an_inference_that_fails_without_a_callback_raises_and_drops_its_request() -> None:
    compiled = FakeCompiled(fails=True)
    inferences = Inferences(compiled)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no memory"):
            await asyncio.wait_for(inferences.run(np.zeros((1, 1))), 5)
    assert compiled.made == 2
    assert inferences.in_flight == 0


async def test_a_request_whose_caller_left_is_reused_only_once_it_is_done() -> None:
    compiled = FakeCompiled()
    inferences = Inferences(compiled)
    leaver = asyncio.create_task(inferences.run(np.zeros((1, 1))))
    await asyncio.sleep(0.01)
    leaver.cancel()
    other = asyncio.create_task(inferences.run(np.zeros((1, 1))))
    await asyncio.sleep(0.01)
    assert compiled.made == inferences.in_flight == 2
    for request in compiled.started:
        request.callback(None)
    await other
    assert inferences.in_flight == 0
    third = asyncio.create_task(inferences.run(np.zeros((1, 1))))
    await asyncio.sleep(0.01)
    compiled.started[-1].callback(None)
    await third
    assert compiled.made == 2


async def test_a_stuck_inference_is_found(clip: Export) -> None:
    engine = load(clip)
    engine.check(stuck_after_s=0.05)
    engine._image = ImageLanes(stuck := Inferences(FakeCompiled()), stuck, lanes=1)
    task = asyncio.create_task(engine.encode(pixels(engine, 2)))
    await asyncio.sleep(0.1)
    engine.check(stuck_after_s=60)
    with pytest.raises(EngineError, match="stuck for 0 s"):
        engine.check(stuck_after_s=0.05)
    task.cancel()


class Counting(Inferences):
    def __init__(self) -> None:
        super().__init__(None)
        self.sizes: list[int] = []

    async def _run(self, stack: np.ndarray) -> np.ndarray:
        self.sizes.append(len(stack))
        await asyncio.sleep(0.01)
        return np.zeros((len(stack), 3), np.float32)


async def test_a_single_image_gets_all_processors_when_nothing_else_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino, "QUIET_S", 0.1)
    streams, whole = Counting(), Counting()
    tower = ImageLanes(streams, whole, lanes=2)
    one, four = np.zeros((1, 1), np.float32), np.zeros((4, 1), np.float32)
    await tower.run(one)
    await tower.run(four)
    assert (whole.sizes, streams.sizes) == ([1], [4])
    await asyncio.gather(tower.run(four), tower.run(four))
    await tower.run(one)  # others were there just before
    assert (whole.sizes, streams.sizes) == ([1], [4, 4, 4, 1])
    await asyncio.sleep(0.15)
    await tower.run(one)
    assert whole.sizes == [1, 1]


def test_one_thread_needs_no_second_copy(clip: Export) -> None:
    tower = ImageLanes.load(clip.tower("image", "float32"), "float32", threads=1)
    assert tower.lanes == 1
    assert tower._whole is tower._streams
