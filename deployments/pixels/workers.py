"""Decoding in processes of its own: a worker for each thread that asks.

Starts, asks and replaces workers; what they do is in `worker` and `decode`.
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
from typing import get_args

import numpy as np

from deployments.errors import (
    CorruptImage,
    ImageTooLarge,
    Internal,
    Unavailable,
    UnsupportedImage,
)
from deployments.pixels.worker import (
    FORK,
    MOST_WAITING,
    READY,
    WARM_UP,
    DecodeOptions,
    receive,
    send,
)
from deployments.settings import MIB, Decode
from deployments.wire import Decoded, ImageFacts, ImageFormat, ImageSpec

logger = logging.getLogger("ray.serve")

_FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
_ERRORS = {error.code: error for error in (CorruptImage, ImageTooLarge, Internal, UnsupportedImage)}

# CPU time for an image in the first lane. Photos of 12 megapixels take 0.04 to 0.2 s as JPEG
# (2.5 MB), and up to 0.5 s as AVIF or WebP (1.3 to 2 MB). A hostile client's images, of few bytes
# that take long, would otherwise keep all workers busy for `decode.max_cpu_s` each.
QUICK_CPU_S = 0.15
QUICK_CPU_S_PER_BYTE = 0.3 / 1_000_000
MOST_QUICK_CPU_S = 0.6

# Far more than any model's pixels, and too little to hurt.
MOST_REPLY_BYTES = 256 * 1024 * 1024

# Libraries' own threads would only compete with other workers, and a process that forks must not
# have any.
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # glibc returns large images' memory at once. With the first of these alone it would return all
    # memory after each image, and a 640 x 480 JPEG would take a fifth longer.
    "MALLOC_MMAP_THRESHOLD_": str(4 * MIB),
    "MALLOC_TRIM_THRESHOLD_": str(16 * MIB),
}


class TakesLongError(Exception):
    """The image belongs in the slow lane."""


class DecodeWorkers:
    """`decode.decode` in worker processes, each image within the limits of `settings`.

    Thread-safe and blocking. Unlike a thread, a process can be killed when its decoder hangs,
    crashes or runs out of memory, and only that one image is lost.

    There are two lanes. An image that takes too long for its bytes in the first one, or kills its
    worker, raises TakesLongError and is to be tried again in the second, the slow lane, where it
    delays only others like it.
    """

    def __init__(self, settings: Decode, *, max_pixels: int) -> None:
        self._settings = settings
        self._max_pixels = max_pixels
        self._own = threading.local()
        self._starting = threading.Lock()
        self._template: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._specs: list[ImageSpec] = []

    def decode(self, data: bytes, spec: ImageSpec, *, slow_lane: bool = False) -> Decoded:
        """An image's bytes to what `spec` says, and the facts of its file.

        A thread must use one lane only. Raises TakesLongError in the first one, UnsupportedImage,
        CorruptImage or ImageTooLarge, Unavailable if no process can be started, and Internal.
        """
        options = self._options(spec)
        if not slow_lane:
            quick_s = QUICK_CPU_S + QUICK_CPU_S_PER_BYTE * len(data)
            quick_s = min(quick_s, MOST_QUICK_CPU_S, options.cpu_s)
            options = options._replace(cpu_s=quick_s, slow_lane=False)
        meta = pickle.dumps(options)
        try:
            reply = self._ask(meta, data)
        except (EOFError, OSError):  # out of time or memory, crashed, or killed by something else
            if not slow_lane:
                raise TakesLongError from None
            raise ImageTooLarge(
                "The image takes more time or memory to decode than this service allows. Send a "
                "smaller copy, or save it again.",
                cause="decoding: its worker ran out of time or memory, or crashed",
            ) from None
        if slow_lane:  # a large image leaves its worker holding a lot of memory
            self._drop(self._own.worker)
            self._own.worker = None
        return _decoded(*reply)

    def warm_up(self, spec: ImageSpec) -> None:
        """Decodes a test image in the template, so that no worker started later has to import
        anything. Returns when it is done. Raises Unavailable."""
        with self._starting:
            if spec in self._specs:
                return
            template = self._running_template()
            self._specs.append(spec)
            self._tell(template, spec)
        self._drop(self._worker())  # the template starts it when it is done

    def close(self) -> None:
        """Ends all processes. Call it only when no decode is in flight."""
        with self._starting:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._template = None
            self._own = threading.local()

    def _options(self, spec: ImageSpec) -> DecodeOptions:
        return DecodeOptions(
            spec=spec,
            max_pixels=self._max_pixels,
            allow_tiff=self._settings.allow_tiff,
            background=self._settings.background,
            fast=self._settings.mode == "fast",
            cpu_s=self._settings.max_cpu_s,
            slow_lane=True,
        )

    def _ask(self, meta: bytes, data: bytes) -> tuple[bytes, bytearray]:
        """The reply of this thread's worker. Raises EOFError or OSError if the worker has ended."""
        worker: socket.socket | None = getattr(self._own, "worker", None)
        if worker is None:
            worker = self._own.worker = self._worker()
        try:
            send(worker, meta, data)
            return receive(worker, most=MOST_REPLY_BYTES)
        except BaseException:  # the rest of this reply would be read as the next image's
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
        """Ends the template; its workers stay."""
        if self._template is not None:
            self._open.discard(self._template)
            self._template.close()
            self._template = None

    def _fork(self, template: socket.socket) -> socket.socket:
        ours, theirs = socket.socketpair()
        # The worker's own clocks kill it sooner; if they cannot, this thread gives it up.
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
            threading.Thread(target=process.wait, daemon=True).start()  # reaps it
            self._template = ours
            for spec in self._specs:
                self._tell(ours, spec)
        return self._template

    def _tell(self, template: socket.socket, spec: ImageSpec) -> None:
        template.sendall(WARM_UP)
        send(template, pickle.dumps(self._options(spec)), b"")

    def _drop(self, connection: socket.socket) -> None:
        connection.close()
        with self._starting:
            self._open.discard(connection)


def _decoded(meta: bytes, data: bytearray) -> Decoded:
    """What is in a worker's reply, or the error raised. The worker may have been taken over, so
    nothing is trusted unchecked."""
    with suppress(ValueError, TypeError, KeyError):
        reply = json.loads(meta)
        if "error" in reply:
            cause = f"decoding: {reply['cause']}" if reply["cause"] else None
            raise _ERRORS[reply["error"]](str(reply["message"]), cause=cause)
        shape, dtype = tuple(map(int, reply["shape"])), np.dtype(str(reply["dtype"]))
        if len(shape) == 3 and dtype in (np.uint8, np.float32) and math.prod(shape) > 0:
            pixels = np.frombuffer(data, dtype).reshape(shape)
            return Decoded(pixels, _facts(*reply["facts"]))
    raise Internal("The service failed on this item.")


def _facts(width: int, height: int, kind: str, bit_depth: int) -> ImageFacts:
    """Raises ValueError or TypeError for what no image has."""
    if not all(0 < number < 1 << 31 for number in (width, height, bit_depth)):
        raise ValueError
    # One string for each format: entries of the cache keep it.
    kind = _FORMATS[_FORMATS.index(kind)]
    return ImageFacts(int(width), int(height), kind, int(bit_depth))
