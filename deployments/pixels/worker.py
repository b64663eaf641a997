"""The process in which images are decoded, so that what a hostile one does ends with it.

`python -m deployments.pixels.worker FD MEMORY_BYTES`, started by `workers`, is a template: it has
imported all that decoding needs, and forks a worker for each connection that comes over its socket.
A worker decodes one image after another; the kernel ends it when one of them takes too long.
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
from deployments.wire import PixelSpec, ProcessorSpec

# How long the two parts of a message are: what it says, and the image or its pixels.
HEADER = struct.Struct("!IQ")
# What the template is told: to fork a worker, or to decode a picture under a specification.
FORK, WARM_UP = b"F", b"W"
# What a worker says first.
READY = b"R"

# By the clock an image may take this many times its processor time; beyond that the worker hangs.
MOST_WAITING = 6
SLOW_NICENESS = 15


class Job(NamedTuple):
    """How an image is to be decoded, and what that may take."""

    spec: PixelSpec | ProcessorSpec
    max_pixels: int
    allow_tiff: bool
    fast: bool
    cpu_s: float
    slow_lane: bool


def main() -> None:
    template = socket.socket(fileno=int(sys.argv[1]))
    memory_bytes = int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the service
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers
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


def send(connection: socket.socket, said: bytes, data: Any) -> None:
    """`said`, and `data`, any C-contiguous buffer."""
    view = memoryview(data).cast("B")
    connection.sendall(HEADER.pack(len(said), len(view)) + said)
    connection.sendall(view)


def receive(connection: socket.socket, *, most: int = sys.maxsize) -> tuple[bytes, bytearray]:
    """What `send` was given. Raises EOFError when the other side is gone, or sends over `most`."""
    said, data = HEADER.unpack(_exactly(connection, HEADER.size))
    if said + data > most:
        raise EOFError
    return bytes(_exactly(connection, said)), _exactly(connection, data)


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
            said, data = receive(connection)
            job: Job = pickle.loads(said)  # noqa: S301  (from the service)
            if job.slow_lane:  # beside which the quick ones are to go on
                os.nice(SLOW_NICENESS)
            _start_clocks(job.cpu_s)
            answer = _decode(job, data)
            _start_clocks(0)
            send(connection, *answer)


def _decode(job: Job, data: bytearray) -> tuple[bytes, Any]:
    """The pixels, or the error: as JSON, because the service must not unpickle what hostile
    bytes may have taken over."""
    try:
        pixels = decode(
            bytes(data),
            job.spec,
            max_pixels=job.max_pixels,
            allow_tiff=job.allow_tiff,
            fast=job.fast,
        )
    except RaylensError as error:
        return _error(error)
    except Exception:
        traceback.print_exc()  # into the replica's log
        return _error(Internal("The service failed on this item."))
    return json.dumps({"shape": pixels.shape, "dtype": pixels.dtype.str}).encode(), pixels


def _error(error: RaylensError) -> tuple[bytes, bytes]:
    said = {"error": error.code, "message": error.message, "cause": error.cause}
    return json.dumps(said).encode(), b""


def _start_clocks(cpu_s: float) -> None:
    """Unless it is called again, SIGPROF or SIGALRM ends this process."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, MOST_WAITING * cpu_s)


def _limit(memory_bytes: int) -> None:
    """What this process may have, from here on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):  # Linux alone
        status = Path("/proc/self/status").read_text()
        had = 1024 * int(status.partition("VmData:")[2].split()[0])
        resource.setrlimit(resource.RLIMIT_DATA, (had + memory_bytes,) * 2)
        # Where memory runs out altogether, this goes first and not the service.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _warm_up(message: tuple[bytes, bytearray]) -> None:
    """Has workers that are forked later find everything imported."""
    job: Job = pickle.loads(message[0])  # noqa: S301  (from the service)
    # Larger than the model's, as photos are: what grows is resized otherwise.
    edge = max(job.spec.size)
    buffer = BytesIO()
    Image.new("RGB", (3 * edge, 2 * edge)).save(buffer, "JPEG")
    _decode(job, bytearray(buffer.getvalue()))


if __name__ == "__main__":
    main()
