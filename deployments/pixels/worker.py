"""The process that decodes images, so that a hostile image can do no harm outside it.

`python -m deployments.pixels.worker FD MEMORY_BYTES`, started by `workers`, is a template: it has
imported all that decoding needs, and forks a worker for each connection that comes over its socket.
A worker decodes one image after another; the kernel kills it when one of them takes too long.
"""

import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from deployments.errors import Internal, RaylensError
from deployments.pixels.decode import decode
from deployments.wire import ImageSpec

# The lengths of a message's two parts: its metadata, and the image or its pixels.
HEADER = struct.Struct("!IQ")
# Commands to the template: fork a worker, or decode a test image under a specification.
FORK, WARM_UP = b"F", b"W"
# A worker's first message.
READY = b"R"

# An image's wall-clock limit in multiples of its CPU time limit; beyond it, the worker is hung.
MOST_WAITING = 6
SLOW_NICENESS = 15


class DecodeOptions(NamedTuple):
    """How an image is to be decoded, and within which limits."""

    spec: ImageSpec
    max_pixels: int
    allow_tiff: bool
    background: str
    fast: bool
    cpu_s: float
    slow_lane: bool


def main() -> None:
    template = socket.socket(fileno=int(sys.argv[1]))
    memory_bytes = int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the service
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the workers
    while True:
        command, descriptors, _, _ = socket.recv_fds(template, 1, 1)
        if command == FORK:
            with suppress(OSError), socket.socket(fileno=descriptors[0]) as connection:
                if os.fork() == 0:
                    template.close()
                    _serve(connection, memory_bytes)
                    os._exit(0)
        elif command == WARM_UP:
            _warm_up(receive(template))
        else:
            return


def send(connection: socket.socket, meta: bytes, data: Any) -> None:
    """Sends one message: `meta`, and `data`, any C-contiguous buffer."""
    view = memoryview(data).cast("B")
    connection.sendall(HEADER.pack(len(meta), len(view)) + meta)
    connection.sendall(view)


def receive(connection: socket.socket, *, most: int = sys.maxsize) -> tuple[bytes, bytearray]:
    """The other side's message. Raises EOFError if that side is gone or sends over `most` bytes."""
    meta, data = HEADER.unpack(_exactly(connection, HEADER.size))
    if meta + data > most:
        raise EOFError
    return bytes(_exactly(connection, meta)), _exactly(connection, data)


def _exactly(connection: socket.socket, number: int) -> bytearray:
    buffer = bytearray(number)
    view = memoryview(buffer)
    while view:
        received = connection.recv_into(view)
        if not received:
            raise EOFError
        view = view[received:]
    return buffer


def _serve(connection: socket.socket, memory_bytes: int) -> None:
    _limit(memory_bytes)
    with suppress(EOFError, OSError):
        connection.sendall(READY)
        while True:
            meta, data = receive(connection)
            options: DecodeOptions = pickle.loads(meta)  # noqa: S301  (from the service)
            if options.slow_lane:  # must not slow down quick ones
                os.nice(SLOW_NICENESS)
            _start_clocks(options.cpu_s)
            reply = _decode(options, data)
            _start_clocks(0)
            send(connection, *reply)


def _decode(options: DecodeOptions, data: bytearray) -> tuple[bytes, Any]:
    """The pixels or the error, described in JSON, because the service must not unpickle anything
    from a process that hostile bytes may have taken over."""
    try:
        pixels, facts = decode(
            bytes(data),
            options.spec,
            max_pixels=options.max_pixels,
            allow_tiff=options.allow_tiff,
            background=options.background,
            fast=options.fast,
        )
    except RaylensError as error:
        return _error(error)
    except Exception:
        traceback.print_exc()  # into the replica's log
        return _error(Internal("The service failed on this item."))
    meta = {"shape": pixels.shape, "dtype": pixels.dtype.str, "facts": facts}
    return json.dumps(meta).encode(), pixels


def _error(error: RaylensError) -> tuple[bytes, bytes]:
    meta = {"error": error.code, "message": error.message, "cause": error.cause}
    return json.dumps(meta).encode(), b""


def _start_clocks(cpu_s: float) -> None:
    """Has SIGPROF or SIGALRM kill this process, unless it is called again in time; 0 stops both."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, MOST_WAITING * cpu_s)


def _limit(memory_bytes: int) -> None:
    """Allows this process `memory_bytes` more of memory, and no core dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):  # Linux only
        status = Path("/proc/self/status").read_text()
        had = 1024 * int(status.partition("VmData:")[2].split()[0])
        resource.setrlimit(resource.RLIMIT_DATA, (had + memory_bytes,) * 2)
        # If the machine runs out of memory, this process is killed first, not the service.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _warm_up(message: tuple[bytes, bytearray]) -> None:
    """Decodes a test image, so that workers forked later find everything imported."""
    options: DecodeOptions = pickle.loads(message[0])  # noqa: S301  (from the service)
    # Larger than the model's input, as photos are: enlarging takes another path.
    edge = max(options.spec.height_width)
    buffer = BytesIO()
    Image.new("RGB", (3 * edge, 2 * edge)).save(buffer, "JPEG")
    _decode(options, bytearray(buffer.getvalue()))


if __name__ == "__main__":
    main()
