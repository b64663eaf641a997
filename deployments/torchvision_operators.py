"""Lets torchvision be imported beside a torch that has no CUDA.

PyPI's wheel of torchvision is built for CUDA. Beside torch's CPU build its compiled part cannot be
loaded, which it survives, but not that its operators are then unknown: "operator torchvision::nms
does not exist" ends its import, and that of transformers' image classes, timm and open_clip, which
import it as soon as it is there. None of them uses these operators, which find boxes in images.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# Those that torchvision 0.28 and 0.29 register by name while they are imported.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def declare() -> None:
    """Call it before transformers is used. Does nothing where torchvision is not installed, or is
    built for the torch beside it.

    Raises ImportError if torchvision cannot be imported all the same.
    """
    try:
        built = [version(package).partition("+")[2] for package in ("torch", "torchvision")]
    except PackageNotFoundError:
        return
    if built[0] != "cpu" or built[1] == "cpu":
        return
    from torch.library import Library

    library: Any = Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in _OPERATORS:
        library.define(operator)
    _KEPT.append(library)  # its operators go with it
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        raise ImportError(
            f"torchvision cannot be imported beside this torch ({error}); install the build that "
            "belongs to it, from the same index"
        ) from error


_KEPT: list[object] = []
