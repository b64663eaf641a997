"""Decode workers as the service uses them: real processes, and images that bring them down."""

import signal
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from deployments.errors import CorruptImage, ImageTooLarge, Internal, Unavailable, UnsupportedImage
from deployments.pixels.decode import decode
from deployments.pixels.workers import DecodeWorkers, TakesLongError
from deployments.settings import MIB, Decode
from deployments.wire import PixelSpec
from tests.conftest import Jpeg
from tests.until import until

SPEC = PixelSpec(resize=("shortest_edge", 32), resample=3, crop=(32, 32))


@pytest.fixture
def workers() -> Iterator[DecodeWorkers]:
    opened = DecodeWorkers(Decode(), max_pixels=50_000_000)
    yield opened
    opened.close()


def processes() -> list[psutil.Process]:
    """Templates and workers of this process."""
    return [p for p in psutil.Process().children(recursive=True) if is_worker(p)]


def is_worker(process: psutil.Process | None) -> bool:
    try:
        return process is not None and "deployments.pixels.worker" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def slow_jpeg(pixels: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan, which changes nothing, is repeated `scans` times."""
    side = int(pixels**0.5)
    buffer = BytesIO()
    Image.new("L", (side, side), 100).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    # The last scan, of one component's refinement, as it stands in the file.
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def test_pixels_are_the_same_as_when_decoded_in_this_process(
    workers: DecodeWorkers, jpeg: Jpeg
) -> None:
    for seed in range(3):
        data = jpeg(seed)
        here, facts = decode(data, SPEC, max_pixels=50_000_000)
        there, facts_there = workers.decode(data, SPEC)
        assert facts_there == facts
        assert there.dtype == np.uint8
        assert there.flags.c_contiguous
        assert there.flags.writeable
        assert (there == here).all()


def test_errors_come_back_as_they_are(workers: DecodeWorkers, jpeg: Jpeg) -> None:
    with pytest.raises(CorruptImage, match="cut short"):
        workers.decode(jpeg(1)[:200], SPEC)
    with pytest.raises(CorruptImage, match="empty"):
        workers.decode(b"", SPEC)
    with pytest.raises(UnsupportedImage):
        workers.decode(b"no image at all", SPEC)
    assert workers.decode(jpeg(1), SPEC).pixels.shape == (32, 32, 3)


def test_settings_reach_the_workers(jpeg: Jpeg) -> None:
    tiff = BytesIO()
    Image.new("RGB", (40, 40)).save(tiff, "TIFF")
    photo = jpeg(1, (640, 480))
    spec = PixelSpec(resize=("shortest_edge", 32), resample=3, crop=(32, 32))
    exact, fast = (
        decode(photo, spec, max_pixels=640 * 480, fast=mode).pixels for mode in (False, True)
    )
    assert (exact != fast).any()
    for settings, expected in ((Decode(), exact), (Decode(allow_tiff=True, mode="fast"), fast)):
        workers = DecodeWorkers(settings, max_pixels=640 * 480)
        try:
            assert (workers.decode(photo, spec).pixels == expected).all()
            with pytest.raises(ImageTooLarge):
                workers.decode(jpeg(1, (641, 480)), spec)
            if settings.allow_tiff:
                assert workers.decode(tiff.getvalue(), spec).pixels.shape == (32, 32, 3)
            else:
                with pytest.raises(UnsupportedImage):
                    workers.decode(tiff.getvalue(), spec)
        finally:
            workers.close()


def test_a_bug_of_ours_is_an_internal_error_and_is_logged(
    workers: DecodeWorkers, jpeg: Jpeg, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Internal):
        workers.decode(jpeg(1), "no specification")  # type: ignore[arg-type]
    assert "Traceback" in capfd.readouterr().err
    assert workers.decode(jpeg(1), SPEC).pixels.shape == (32, 32, 3)


def test_threads_have_workers_of_their_own(workers: DecodeWorkers, jpeg: Jpeg) -> None:
    started = threading.Barrier(3)

    def decode_in_thread(seed: int) -> bytes:
        started.wait()
        return b"".join(workers.decode(jpeg(seed), SPEC).pixels.tobytes() for _ in range(5))

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(decode_in_thread, range(3)))
        assert len(processes()) == 1 + 3
    for seed, answer in enumerate(answers):
        assert answer == 5 * decode(jpeg(seed), SPEC, max_pixels=50_000_000).pixels.tobytes()


def test_an_image_that_takes_too_long_is_refused_and_the_next_one_is_not(jpeg: Jpeg) -> None:
    workers = DecodeWorkers(Decode(max_cpu_s=0.5), max_pixels=50_000_000)
    try:
        workers.decode(jpeg(1), SPEC)
        began = time.monotonic()
        with pytest.raises(ImageTooLarge, match="more time or memory"):
            workers.decode(slow_jpeg(16_000_000, 2000), SPEC, slow_lane=True)
        assert time.monotonic() - began < 5
        assert workers.decode(jpeg(1), SPEC).pixels.shape == (32, 32, 3)
        until(lambda: len(processes()) == 2)  # nothing goes on decoding
    finally:
        workers.close()


def test_an_image_that_needs_too_much_memory_is_refused(jpeg: Jpeg) -> None:
    workers = DecodeWorkers(Decode(max_memory_bytes=64 * MIB), max_pixels=50_000_000)
    try:
        buffer = BytesIO()
        Image.new("RGB", (7000, 7000)).save(buffer, "PNG")
        with pytest.raises(ImageTooLarge):
            workers.decode(buffer.getvalue(), SPEC, slow_lane=True)
        assert workers.decode(jpeg(1), SPEC).pixels.shape == (32, 32, 3)
    finally:
        workers.close()


@pytest.mark.slow
def test_an_image_that_takes_long_is_left_to_the_slow_lane(
    workers: DecodeWorkers, jpeg: Jpeg
) -> None:
    slow = slow_jpeg(4_000_000, 500)
    began = time.monotonic()
    with pytest.raises(TakesLongError):
        workers.decode(slow, SPEC)
    assert time.monotonic() - began < 2
    assert workers.decode(jpeg(1), SPEC).pixels.shape == (32, 32, 3)
    with ThreadPoolExecutor(1) as pool:
        decoded = pool.submit(workers.decode, slow, SPEC, slow_lane=True).result()
    assert (decoded.pixels == decode(slow, SPEC, max_pixels=4_000_000).pixels).all()


@pytest.mark.slow
def test_the_largest_image_that_is_accepted_fits_into_the_default_limits(
    workers: DecodeWorkers,
) -> None:
    buffer = BytesIO()
    Image.new("RGBA", (7071, 7071), (10, 20, 30, 200)).save(buffer, "PNG")
    assert workers.decode(buffer.getvalue(), SPEC, slow_lane=True).pixels.shape == (32, 32, 3)


@pytest.mark.parametrize("template_too", [False, True])
def test_a_killed_worker_or_template_is_replaced(
    workers: DecodeWorkers, jpeg: Jpeg, template_too: bool
) -> None:
    expected = workers.decode(jpeg(1), SPEC).pixels
    for process in processes():
        if template_too or is_worker(process.parent()):
            process.send_signal(signal.SIGKILL)
    with pytest.raises(TakesLongError):  # which asks for a second attempt, in the other lane
        workers.decode(jpeg(1), SPEC)
    assert (workers.decode(jpeg(1), SPEC).pixels == expected).all()


def test_no_process_is_left_after_closing(jpeg: Jpeg) -> None:
    workers = DecodeWorkers(Decode(), max_pixels=50_000_000)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(workers.decode, jpeg(1), SPEC).result()
        assert len(processes()) == 2
        workers.close()
    until(lambda: not processes())


@pytest.mark.slow
@pytest.mark.parametrize("edge", [32, 224, 518])
def test_a_worker_forked_after_the_warm_up_has_imported_everything(
    workers: DecodeWorkers, jpeg: Jpeg, edge: int
) -> None:
    spec = PixelSpec(resize=("shortest_edge", edge), resample=3, crop=(edge, edge), exact=False)
    workers.warm_up(spec)
    workers.decode(jpeg(1), SPEC)
    until(lambda: len(processes()) == 2)  # the one that the warm-up tried is gone
    (worker,) = (p for p in processes() if is_worker(p.parent()))
    assert any("torch" in mapped.path for mapped in worker.memory_maps())


def test_a_png_of_a_million_chunks_does_not_block_the_interpreter(
    workers: DecodeWorkers, jpeg: Jpeg
) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack("!IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + 1_000_000 * chunk(b"prVt", b"") + chunk(b"IEND", b"")
    longest = 0.0
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(workers.decode, data, SPEC)
        while not running.done():
            began = time.monotonic()
            time.sleep(0.001)
            longest = max(longest, time.monotonic() - began)
        with pytest.raises((CorruptImage, ImageTooLarge, TakesLongError)):
            running.result()
    assert longest < 0.2


def test_a_new_template_is_warmed_up_like_the_first(workers: DecodeWorkers, jpeg: Jpeg) -> None:
    spec = PixelSpec(resize=("shortest_edge", 32), resample=3, crop=(32, 32), exact=False)
    workers.warm_up(spec)
    workers.decode(jpeg(1), SPEC)
    for process in processes():
        process.send_signal(signal.SIGKILL)
    with pytest.raises(TakesLongError):
        workers.decode(jpeg(1), SPEC)
    workers.decode(jpeg(1), SPEC)
    until(lambda: len(processes()) == 2)  # the one that the warm-up tried is gone
    (worker,) = (p for p in processes() if is_worker(p.parent()))
    assert any("torch" in mapped.path for mapped in worker.memory_maps())


def test_where_no_worker_can_be_started_the_service_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, jpeg: Jpeg
) -> None:
    for executable in ("/nowhere/python", "/bin/false"):
        monkeypatch.setattr(sys, "executable", executable)
        workers = DecodeWorkers(Decode(), max_pixels=50_000_000)
        try:
            for _ in range(2):
                with pytest.raises(Unavailable):
                    workers.decode(jpeg(1), SPEC)
        finally:
            workers.close()


def test_a_worker_keeps_its_memory_for_the_next_photo(workers: DecodeWorkers, jpeg: Jpeg) -> None:
    photo = jpeg(size=(640, 480))
    others = set(processes())
    for _ in range(3):
        workers.decode(photo, SPEC)
    own = set(processes()) - others

    def faults() -> int:
        """Minor page faults of these processes so far; see proc(5)."""
        return sum(int(Path(f"/proc/{p.pid}/stat").read_text().split()[9]) for p in own)

    before = faults()
    for _ in range(20):
        workers.decode(photo, SPEC)
    assert (faults() - before) / 20 < 30  # its pixels alone take 225 pages
