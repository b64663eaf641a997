"""OpenCLIP's pickled weights, converted to safetensors once, in a process without a network.

`torch.load(weights_only=True)` admits tensors and plain containers alone. Should a pickle get
around that, the process that reads it can open no connection and run no program.
"""

import ctypes
import hashlib
import os
import platform
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from deployments.checkpoints.checkpoint import CheckpointError, first_line
from deployments.checkpoints.integrity import OPEN_CLIP_WEIGHTS
from deployments.checkpoints.storage import locked, user_cache, written_aside

# Four gigabytes take half a minute.
_CONVERTED_WITHIN_S = 1800.0

# For each machine: its number in audit.h, and its numbers of socket, connect, ptrace, execve,
# execveat, process_vm_writev, io_uring_setup and pidfd_getfd.
_MACHINES = {
    "x86_64": (0xC000003E, (41, 42, 101, 59, 322, 311, 425, 438)),
    "aarch64": (0xC00000B7, (198, 203, 117, 221, 281, 271, 425, 438)),
}
_NOT_WEIGHTS = "it is damaged, or holds other things than weights by their names"


def sha256_of(pickle: Path) -> str:
    """In hexadecimal. A gigabyte takes about a second."""
    with pickle.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def converted(pickle: Path, sha256: str) -> Path:
    """The same weights in safetensors, in the user's cache under the pickle's checksum.

    Raises CheckpointError if they cannot be read or written.
    """
    folder = user_cache() / "raylens" / "converted" / sha256
    weights = folder / OPEN_CLIP_WEIGHTS
    if weights.is_file():
        return weights
    try:
        with locked(folder.with_name(f"{sha256}.lock")):
            if not weights.is_file():
                with written_aside(folder) as aside:
                    _convert(pickle, aside / OPEN_CLIP_WEIGHTS)
    except OSError as error:
        raise CheckpointError(
            f"{pickle}: cannot be converted to safetensors in {folder.parent} ({error.strerror}); "
            "set XDG_CACHE_HOME to a folder that this process may write to"
        ) from error
    return weights


def _convert(pickle: Path, to: Path) -> None:
    try:
        ended = subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-m", __name__, str(pickle), str(to)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CONVERTED_WITHIN_S,
            check=False,
        )
        reason = ended.stdout.strip() or f"its process ended with {ended.returncode}"
    except subprocess.TimeoutExpired:
        ended, reason = None, "it takes too long"
    if ended is None or ended.returncode != 0:
        raise CheckpointError(
            f"{pickle}: cannot be converted to safetensors: {reason}; choose a checkpoint that has "
            f"{OPEN_CLIP_WEIGHTS}, or add that file"
        )


def isolate() -> None:
    """From now on, this process cannot open connections or run programs.

    By a seccomp filter, which needs no privileges and holds in containers too. Raises OSError where
    there is none: on another system than Linux, or on an unknown processor.
    """
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        raise OSError(f"there is no way to cut off the network on {platform.platform()}")
    code = _filter(*_MACHINES[platform.machine()])
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, seccomp, by_filter = 38, 22, 2
    for call in ((no_new_privileges, 1, 0, 0, 0), (seccomp, by_filter, program, 0, 0)):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "the kernel does not take a seccomp filter")
    with suppress(PermissionError):
        socket.socket().close()
        raise OSError("the seccomp filter has no effect")


def _filter(machine: int, denied: tuple[int, ...]) -> bytes:
    """In classic BPF, over `struct seccomp_data`: the denied calls fail with EPERM."""
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    allow, deny = 0x7FFF0000, 0x00050001
    lines = [(load, 0, 0, 4), (equal, 0, len(denied) + 3, machine), (load, 0, 0, 0)]
    # x86_64's second set of numbers, by which the same calls could be made.
    lines.append((at_least, len(denied) + 1, 0, 0x40000000))
    for left, number in zip(range(len(denied), 0, -1), denied, strict=True):
        lines.append((equal, left, 0, number))
    lines += [(end, 0, 0, allow), (end, 0, 0, deny)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def main() -> int:
    source, target = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        isolate()
        _save(source, target)
    except Exception as error:  # whatever torch raises, the file is to blame
        print(first_line(error), file=answers)
        answers.flush()
        return 1
    return 0


def _save(source: str, target: str) -> None:
    from pickle import UnpicklingError

    import torch
    from safetensors.torch import save_file

    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # whose message advises to load it with weights_only=False
        raise ValueError(_NOT_WEIGHTS) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]  # of a training run
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise ValueError(_NOT_WEIGHTS)
    # Cloned, because safetensors takes no two tensors that share memory.
    weights = {name: values.detach().clone().contiguous() for name, values in found.items()}
    save_file(weights, target, metadata={"format": "pt"})


if __name__ == "__main__":
    sys.exit(main())
