"""Decoding in processes of its own: a worker for each thread that asks.

Knows how workers are started, asked and replaced; what they do is `worker` and `decode`.
"""

import json
import logging
import math
import os
import pickle
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import numpy as np

from deployments.errors import (
    CorruptImage,
    ImageTooLarge,
    Internal,
    Unavailable,
    UnsupportedImage,
)
from deployments.pixels.worker import FORK, MOST_WAITING, READY, WARM_UP, Job, receive, send
from deployments.settings import MIB, Decode
from deployments.wire import Pixels, PixelSpec, ProcessorSpec

logger = logging.getLogger("ray.serve")

_ERRORS = {error.code: error for error in (CorruptImage, ImageTooLarge, Internal, UnsupportedImage)}

# What an image may take in the first lane. Photos of 12 megapixels take 0.04 to 0.2 s as JPEG, of
# 2.5 MB, and up to 0.5 s as AVIF or WebP, of 1.3 to 2 MB. Those of a hostile caller, a few bytes
# that take long, would otherwise keep all workers busy for `decode.max_cpu_s` each.
QUICK_CPU_S = 0.15
QUICK_CPU_S_PER_BYTE = 0.3 / 1_000_000
MOST_QUICK_CPU_S = 0.6

# Far more than any model's pixels, and too little to hurt.
MOST_ANSWER_BYTES = 256 * 1024 * 1024

# Libraries' own threads would only compete with the other workers, and must not run in a template.
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # glibc gives large images' memory back at once. Naming that alone would have it give everything
    # back after each image, and a 640 x 480 JPEG would take a fifth longer.
    "MALLOC_MMAP_THRESHOLD_": str(4 * MIB),
    "MALLOC_TRIM_THRESHOLD_": str(16 * MIB),
}


class TakesLongError(Exception):
    """The image is for the slow lane."""


class DecodeWorkers:
    """`decode.decode` in worker processes, each image within the limits of `settings`.

    Thread-safe and blocking. Processes buy what threads cannot have: an end to a decoder that
    does not return, crashes or eats all memory, at the price of that one image.

    There are two lanes. An image that takes longer in the first one than others of its bytes, or
    ends its worker, raises TakesLongError and is to be tried again in the second, so that it holds
    up none but its like.
    """

    def __init__(self, settings: Decode, *, max_pixels: int) -> None:
        self._settings = settings
        self._max_pixels = max_pixels
        self._own = threading.local()
        self._starting = threading.Lock()
        self._template: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._specs: list[PixelSpec | ProcessorSpec] = []

    def decode(
        self, data: bytes, spec: PixelSpec | ProcessorSpec, *, slow_lane: bool = False
    ) -> Pixels:
        """An image's bytes as (H, W, 3), just as the model wants it.

        A thread keeps to one lane. Raises TakesLongError in the first one, UnsupportedImage,
        CorruptImage or ImageTooLarge, and Unavailable where no process can be started.
        """
        job = self._job(spec)
        if not slow_lane:
            quick_s = QUICK_CPU_S + QUICK_CPU_S_PER_BYTE * len(data)
            quick_s = min(quick_s, MOST_QUICK_CPU_S, job.cpu_s)
            job = job._replace(cpu_s=quick_s, slow_lane=False)
        said = pickle.dumps(job)
        try:
            answer = self._ask(said, data)
        except (EOFError, OSError):  # out of time or memory, crashed, or killed by something else
            if not slow_lane:
                raise TakesLongError from None
            raise ImageTooLarge(
                "The image takes more time or memory to decode than this service gives it. Send it "
                "smaller or saved anew.",
                cause="decoding: its worker ran out of time or memory, or crashed",
            ) from None
        if slow_lane:  # a large one leaves its worker with a lot of memory
            self._drop(self._own.worker)
            self._own.worker = None
        return _pixels(*answer)

    def warm_up(self, spec: PixelSpec | ProcessorSpec) -> None:
        """Decodes a picture in the template, so that no worker has to import anything later."""
        with self._starting:
            self._specs.append(spec)
            self._tell(self._running_template(), spec)

    def close(self) -> None:
        """Ends all processes. For when nothing is decoded any more."""
        with self._starting:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._template = None
            self._own = threading.local()

    def _job(self, spec: PixelSpec | ProcessorSpec) -> Job:
        return Job(
            spec=spec,
            max_pixels=self._max_pixels,
            allow_tiff=self._settings.allow_tiff,
            fast=self._settings.mode == "fast",
            cpu_s=self._settings.max_cpu_s,
            slow_lane=True,
        )

    def _ask(self, said: bytes, data: bytes) -> tuple[bytes, bytearray]:
        """The answer of this thread's worker. Raises EOFError or OSError when it ended."""
        worker: socket.socket | None = getattr(self._own, "worker", None)
        if worker is None:
            worker = self._own.worker = self._worker()
        try:
            send(worker, said, data)
            return receive(worker, most=MOST_ANSWER_BYTES)
        except BaseException:  # whatever is left in it would be the next image's answer
            self._own.worker = None
            self._drop(worker)
            raise

    def _worker(self) -> socket.socket:
        """A worker that has started, from a new template if need be. Raises Unavailable."""
        for _ in range(2):
            try:
                with self._starting:
                    worker = self._fork(self._running_template())
            except OSError:
                logger.exception("No decode worker can be started.")
            else:
                with suppress(OSError):
                    if worker.recv(1) == READY:
                        return worker
                self._drop(worker)
            with self._starting:
                self._leave_template()
        logger.error("No decode worker gets ready.")
        raise Unavailable("The service cannot decode images now; retry.", retry_after_s=5)

    def _leave_template(self) -> None:
        """Its workers stay."""
        if self._template is not None:
            self._open.discard(self._template)
            self._template.close()
            self._template = None

    def _fork(self, template: socket.socket) -> socket.socket:
        ours, theirs = socket.socketpair()
        # It ends itself before this; if it cannot, this thread goes on without it.
        ours.settimeout((MOST_WAITING + 1) * self._settings.max_cpu_s)
        with theirs:
            try:
                socket.send_fds(template, [FORK], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        self._open.add(ours)
        return ours

    def _running_template(self) -> socket.socket:
        if self._template is None:
            ours, theirs = socket.socketpair()
            self._open.add(ours)  # from now on `close` closes it
            module = "deployments.pixels.worker"
            arguments = [str(theirs.fileno()), str(self._settings.max_memory_bytes)]
            with theirs:
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-P", "-m", module, *arguments],
                    env={
                        **os.environ,
                        **_ENVIRONMENT,
                        "PYTHONPATH": os.pathsep.join(sys.path),
                    },
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            threading.Thread(target=process.wait, daemon=True).start()  # no zombie of it
            self._template = ours
            for spec in self._specs:
                self._tell(ours, spec)
        return self._template

    def _tell(self, template: socket.socket, spec: PixelSpec | ProcessorSpec) -> None:
        template.sendall(WARM_UP)
        send(template, pickle.dumps(self._job(spec)), b"")

    def _drop(self, connection: socket.socket) -> None:
        connection.close()
        with self._starting:
            self._open.discard(connection)


def _pixels(said: bytes, data: bytearray) -> Pixels:
    """What a worker answered. It may have been taken over: nothing of it is believed unchecked."""
    with suppress(ValueError, TypeError, KeyError):
        answer = json.loads(said)
        if "error" in answer:
            cause = f"decoding: {answer['cause']}" if answer["cause"] else None
            raise _ERRORS[answer["error"]](str(answer["message"]), cause=cause)
        shape, dtype = tuple(map(int, answer["shape"])), np.dtype(str(answer["dtype"]))
        if len(shape) == 3 and dtype in (np.uint8, np.float32) and math.prod(shape) > 0:
            return np.frombuffer(data, dtype).reshape(shape)
    raise Internal("The service failed on this item.")
