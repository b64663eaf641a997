"""What sentence-transformers makes of a checkpoint by itself. Nothing here is raylens's.

Needs that library, which is no dependency of the service.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments import torchvision_operators
from tests.models.reference import quiet


class SentenceTransformersReference:
    """The model in a checkpoint's folder, with the text model in `text` beside it, if there is
    one."""

    reads_blanks = True

    def __init__(self, folder: Path) -> None:
        torchvision_operators.declare()  # torch's CPU build beside torchvision's wheel
        from sentence_transformers import SentenceTransformer

        # Its processors are torchvision's unless told otherwise, which resize another way.
        pillow = {"backend": "pil"}
        with quiet():
            self.model: Any = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, processor_kwargs=pillow
            )
            self.text_model = self.model
            if (folder / "text").is_dir():
                self.text_model = SentenceTransformer(
                    str(folder / "text"), device="cpu", local_files_only=True
                )

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(N, D), not normalised."""
        return self._encode(self.model, images)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D), not normalised."""
        return self._encode(self.text_model, texts)

    def probabilities(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Any:
        """(images, texts). The library has none: its cosines, scaled as the model was trained."""
        clip = self.model[0].model
        cosines = self.model.similarity(self.images(images), self.texts(texts))
        logits = cosines * clip.logit_scale.exp().item()
        if hasattr(clip, "logit_bias"):
            return (logits + clip.logit_bias.item()).sigmoid().numpy()
        return logits.softmax(dim=1).numpy()

    def _encode(self, model: Any, items: Sequence[Any]) -> NDArray[np.float32]:
        return np.asarray(model.encode(list(items), show_progress_bar=False, batch_size=8))
