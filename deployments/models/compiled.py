"""Compiled image towers. On a CPU ahead of time: made once, kept on disk, loaded at once.

torch.compile would take half a minute of every start. And what it gives, like torch's own runner
of such libraries (torch 2.13), keeps the GIL while a batch runs, so that neither the replica's
event loop nor a second batch got on. Hence the library is called through its C interface
(torch/csrc/inductor/aoti_runtime/interface.h), by ctypes, which releases it.
"""

import ctypes
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from deployments.models.checkpoint import CheckpointError
from deployments.models.precision import processor_features
from deployments.models.storage import user_cache

logger = logging.getLogger("ray.serve")

# Raise it whenever `_build` changes.
_RECIPE = 2
# Batches that may run at the same time; further ones wait. A runner takes a few KB.
_RUNNERS = 8

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype = ctypes.py_object
_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class CompileError(Exception):
    """The tower cannot be compiled here; the message says why, as a clause."""


class CompiledTower(nn.Module):
    """An image tower out of a compiled library. Thread-safe; no GIL is held while it computes.

    It takes as many threads as torch has in the calling thread (`torch.set_num_threads`).
    """

    def __init__(self, library: Path) -> None:
        """Raises CompileError if the library cannot be loaded or is somebody else's."""
        super().__init__()
        _refuse_foreign(library)
        try:
            self._give = torch._C._aoti.unsafe_alloc_void_ptr_from_tensor
            self._take = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr
        except AttributeError as error:
            raise CompileError(f"torch {torch.__version__} is not made for it") from error
        try:
            self._library = ctypes.CDLL(str(library))
        except OSError as error:
            raise CompileError(f"{library} cannot be loaded ({error})") from error
        self._library.AOTInductorGetLastError.restype = ctypes.c_char_p
        self._container = ctypes.c_void_p()
        self._check(
            self._library.AOTInductorModelContainerCreateWithDevice(
                ctypes.byref(self._container), ctypes.c_size_t(_RUNNERS), b"cpu", None
            )
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 3) to float32 (N, D), as the tower that was compiled."""
        # The library takes over the one handle and gives us the other. torch wraps its pointers in
        # capsules without a name.
        given = self._give(pixels.contiguous())
        inputs = (ctypes.c_void_p * 1)(_pointer(given, None))
        outputs = (ctypes.c_void_p * 1)()
        one = ctypes.c_size_t(1)
        self._check(
            self._library.AOTInductorModelContainerRun(
                self._container, inputs, one, outputs, one, None, None
            )
        )
        made = _capsule(outputs[0], None, None)
        vectors: Tensor = self._take(made)
        return vectors

    def _check(self, status: int) -> None:
        if status != 0:
            reason = self._library.AOTInductorGetLastError() or b"no reason given"
            raise CompileError(reason.decode(errors="replace").partition("\n")[0])


class GraphTower(nn.Module):
    """An image tower on a GPU as CUDA graphs, one for each power of two; batches are filled up."""

    def __init__(self, tower: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        number = len(pixels)
        size = 1 << (number - 1).bit_length()
        filled = nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, size - number))
        # A copy, because the next run of the graph writes into the same memory.
        return self._tower(filled)[:number].clone()


def compile_tower(
    tower: nn.Module, pixels: Tensor, *, identity: str, device: str, must: bool
) -> nn.Module | None:
    """`tower` compiled for batches of any size of images like `pixels` (N > 1, H, W, 3).

    `identity` says all that the tower is made of: weights, pooling, precision. What was compiled
    for it before, on such a processor and with this torch, is loaded. Otherwise it takes from
    half a minute to some minutes and a C++ compiler. None, with a line in the log, where it cannot
    be compiled, unless it `must`: then CheckpointError. On a GPU it is compiled only if it must.
    """
    if device != "cpu":
        return GraphTower(torch.compile(tower, mode="reduce-overhead")) if must else None
    try:
        library = library_path(identity)
        if not library.exists():
            compiler = os.environ.get("CXX", "g++")
            if shutil.which(compiler) is None:
                raise CompileError(f"there is no C++ compiler ({compiler})")
            logger.info("Compiling the model for this processor, once: about half a minute.")
            began = time.monotonic()
            _build(tower, pixels, library)
            logger.info(f"Compiled in {time.monotonic() - began:.0f} s, and kept as {library}.")
        return CompiledTower(library)
    except (CompileError, CheckpointError) as error:
        if must:
            raise CheckpointError(
                f"the model cannot be compiled: {error}; set model.compile to 'auto'"
            ) from error
        logger.warning(f"The model runs without being compiled: {error}.")
        return None


def library_path(identity: str) -> Path:
    """Where the compiled tower of that identity is or will be, on this kind of processor."""
    parts = (_RECIPE, torch.__version__, sorted(processor_features()), identity)
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    return user_cache() / "raylens" / "compiled" / f"{name}.so"


def _build(tower: nn.Module, pixels: Tensor, library: Path) -> None:
    options: dict[str, bool | str] = {
        # Weights become constants, packed as the processor's kernels like them: all of the gain.
        "freezing": True,
        # As many threads as the calling thread has, not as many as there are now: see Streams.
        "cpp.dynamic_threads": True,
        "aot_inductor.package": False,
    }
    tower.requires_grad_(False)
    try:
        import torch._inductor  # two seconds, and only here of use
        from torch._inductor.utils import fresh_cache  # not in older versions

        images = torch.export.Dim("images", min=1, max=4096)
        library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            torch.no_grad(),
            fresh_cache(),
            tempfile.TemporaryDirectory(dir=library.parent) as scratch,
        ):
            options["aot_inductor.output_path"] = str(Path(scratch) / "tower.so")
            program = torch.export.export(tower, (pixels,), dynamic_shapes=({0: images},))
            found = torch._inductor.aot_compile(program.module(), (pixels,), options=options)
            made = Path(str(found))
            made.chmod(0o700)  # whatever the umask: see `_refuse_foreign`
            made.replace(library)  # in one step: another replica may be at it as well
    except Exception as error:  # one of the compiler's thousand
        raise CompileError(
            f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        ) from error


def _refuse_foreign(library: Path) -> None:
    """Code that others could have put there is not run."""
    for path in (library, library.parent):
        found = path.stat()
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CompileError(f"{path} is not this user's alone, so what is in there is not run")
