"""Pixels to vectors: one loaded model, its device and its forward pass.

Knows nothing of requests, batching or Ray. Everything here happens in the one thread that owns
torch: a second one would compete with the first for the cores (see `engine.ModelThread`).
"""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.models.allocator import keep_large_blocks
from deployments.models.checkpoint import Checkpoint, CheckpointError
from deployments.models.loading import find_checkpoint, load_model
from deployments.models.spec import Preprocessing, read_preprocessing
from deployments.settings import Model, thread_count


class Encoder:
    """Turns uint8 RGB pixels of the checkpoint's geometry into its image vectors."""

    def __init__(
        self,
        model: torch.nn.Module,
        preprocessing: Preprocessing,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        device_reason: str = "cpu, because nothing else was asked for",
    ) -> None:
        """Takes over `model`, moves it to `device` and embeds one blank image to learn D.

        Raises CheckpointError if the model does not give one vector per image.
        """
        self.preprocessing = preprocessing
        self.checkpoint = checkpoint
        self.precision = "float32"
        self.device = device
        self.device_reason = device_reason
        # Pixels arrive with their channels last, and convolutions are faster that way.
        self._model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._scale, self._shift = _multiply_add(preprocessing, device)
        try:
            self.dimensions = self._forward(self._noise(1)).shape[1]
        except CheckpointError:
            raise
        except Exception as error:  # a model class may raise anything about its input
            height, width = preprocessing.pixels.size
            raise CheckpointError(
                f"model {checkpoint.id!r} cannot embed an image of {height} x {width} pixels "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            ) from error

    @classmethod
    def load(cls, settings: Model) -> Self:
        """Finds, checks and loads the configured checkpoint. Blocks, for seconds to minutes.

        Call it in the thread that will run the model: torch's thread count is set here and
        counts per thread. Raises CheckpointError if the model cannot be served here.
        """
        device, reason = _choose_device(settings.device)
        if device == "cpu":
            keep_large_blocks()
        torch.set_num_threads(thread_count(settings.threads))
        checkpoint = find_checkpoint(settings)
        preprocessing = read_preprocessing(checkpoint.folder)
        model = load_model(checkpoint)
        return cls(model, preprocessing, checkpoint, device=device, device_reason=reason)

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (N, H, W, 3) to float32 (N, D): the model's own vectors, not normalised.

        H and W are those of `preprocessing.pixels.size`. Raises ValueError on anything else.
        """
        expected = (*self.preprocessing.pixels.size, 3)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != expected:
            raise ValueError(
                f"pixels should be uint8 (N, {', '.join(map(str, expected))}), "
                f"not {pixels.dtype} {pixels.shape}"
            )
        vectors: NDArray[np.float32] = self._forward(pixels).cpu().numpy()
        return vectors

    def warm_up(self, size: int) -> None:
        """Runs one batch of `size`, so that no caller waits for the first of its kind.

        Raises CheckpointError if the vectors are not finite or not (N, D).
        """
        vectors = self.embed(self._noise(size))
        if vectors.shape != (size, self.dimensions) or not np.isfinite(vectors).all():
            raise CheckpointError(
                f"model {self.checkpoint.id!r} gives vectors that are not finite, or not one "
                f"for each image of a batch of {size}; its weights may be damaged"
            )

    def _noise(self, size: int) -> NDArray[np.uint8]:
        shape = (size, *self.preprocessing.pixels.size, 3)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    @torch.inference_mode()
    def _forward(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        # A copy only of what Ray handed over read-only: torch would warn about writing to it.
        stack = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        stack = stack.to(self.device).permute(0, 3, 1, 2)
        pooled = _pooled(self._model, torch.addcmul(self._shift, stack.float(), self._scale))
        if not isinstance(pooled, torch.Tensor) or pooled.ndim != 2 or len(pooled) != len(pixels):
            raise CheckpointError(
                f"model {self.checkpoint.id!r}: {type(self._model).__name__} gives no pooled "
                "vector of each image, so it cannot be served"
            )
        return pooled.float()


def _pooled(model: Any, pixel_values: torch.Tensor) -> object:
    """The family's own image vector: CLIP-like models project it, others only pool."""
    if hasattr(model, "get_image_features"):
        features = model.get_image_features(pixel_values=pixel_values)
        # A tensor before transformers 5; since then the projection is the output's pooler_output.
        return getattr(features, "pooler_output", features)
    return getattr(model(pixel_values=pixel_values), "pooler_output", None)


def _multiply_add(spec: Preprocessing, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(p * rescale - mean) / std as p * scale + shift, folded in float64, each (1, 3, 1, 1)."""
    mean, std = torch.tensor([spec.mean, spec.std], dtype=torch.float64)
    scale, shift = spec.rescale_factor / std, -mean / std
    return (
        scale.float().view(1, 3, 1, 1).to(device),
        shift.float().view(1, 3, 1, 1).to(device),
    )


def _choose_device(wanted: str) -> tuple[str, str]:
    """The device and the reason for it, as `/v1/models` shows them."""
    if wanted == "cpu":
        return "cpu", "cpu, because model.device says so"
    if torch.cuda.is_available():
        return "cuda:0", f"cuda:0, because this process sees a {torch.cuda.get_device_name(0)}"
    built = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
    why = "this process sees no GPU" if built else "this PyTorch is built without CUDA"
    if wanted == "cuda":
        raise CheckpointError(
            f"model.device is 'cuda', but {why}; give the replica a GPU and a CUDA build of "
            "PyTorch, or set model.device to 'auto'"
        )
    return "cpu", f"cpu, because {why}"
