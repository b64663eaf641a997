"""Lets torchvision be imported where its compiled part cannot be loaded.

PyPI's wheel of torchvision is built for CUDA, so its compiled part does not load beside torch's CPU
build. torchvision would do without, but for two operators of that part which it asks for by name:
"operator torchvision::nms does not exist" ends its import, and that of timm, open_clip and most of
transformers, which import it as soon as it is installed. None of them needs the operators, which
choose among boxes in images.
"""

from collections.abc import Sequence
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

# Those that torchvision 0.28 and 0.29 ask for while they are imported.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_KEPT: list[object] = []


@cache
def declare() -> None:
    """Call it before transformers, timm or open_clip is used, all of which import torchvision.

    Does nothing where torchvision is not installed. Raises ImportError, with a sentence that says
    what to install, if it cannot be imported all the same.
    """
    package = find_spec("torchvision")
    if package is None:
        return
    if not _loads(package.submodule_search_locations or ()):
        from torch.library import Library

        library: Any = Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in _OPERATORS:
            library.define(operator)
        _KEPT.append(library)  # its operators go with it
    try:
        import torchvision  # noqa: F401
    except Exception as error:  # a damaged or foreign build may raise anything
        raise ImportError(
            f"torchvision cannot be imported ({type(error).__name__}: {error}); install the build "
            "that belongs to this torch, from the same index: pip install --force-reinstall "
            "--no-deps 'torchvision>=0.28,<0.29', or uninstall it: only models of timm and "
            "OpenCLIP need it"
        ) from error


def _loads(folders: Sequence[str]) -> bool:
    """Whether the compiled part can be loaded. torchvision loads it in the same way, again."""
    import torch

    compiled = PathFinder.find_spec("_C", folders)
    if compiled is None:
        return False
    try:
        torch.ops.load_library(compiled.origin)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
