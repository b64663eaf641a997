"""Bulk embedding as users of Ray Data and of sentence-transformers write it in an afternoon."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from deployments import torchvision_operators

BATCH = 32


class Actor:
    """As a user would write it."""

    def __init__(self, checkpoint: str) -> None:
        torchvision_operators.declare()
        import torch
        from transformers import AutoImageProcessor, AutoModel

        self._torch = torch
        self._processor = AutoImageProcessor.from_pretrained(checkpoint)
        self._model = AutoModel.from_pretrained(checkpoint).eval()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["began"] = np.full(len(batch["path"]), time.time())
        inputs = self._processor(images=list(batch.pop("image")), return_tensors="pt")
        with self._torch.inference_mode():
            pooled = self._model(**inputs).pooler_output.reshape(len(batch["path"]), -1)
        batch["embedding"] = self._torch.nn.functional.normalize(pooled, dim=1).numpy()
        return batch


def map_batches(folder: Path, out: Path, checkpoint: Path, cpus: int) -> tuple[float, str]:
    import pyarrow.compute as pc
    import ray
    import ray.data
    from pyarrow import parquet

    ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False)
    images = ray.data.read_images(str(folder), include_paths=True, mode="RGB")
    embedded = images.map_batches(
        Actor,
        fn_constructor_args=(str(checkpoint),),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    embedded.write_parquet(str(out))
    ended = time.time()  # it began when the model was loaded, as raylens counts too
    return ended - pc.min(parquet.read_table(out)["began"]).as_py(), ""


def sentence_transformers(
    folder: Path, out: Path, checkpoint: Path, cpus: int
) -> tuple[float, str]:
    torchvision_operators.declare()
    import pyarrow as pa
    from pyarrow import parquet
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint), device="cpu")
    began = time.monotonic()
    images = [str(path) for path in sorted(folder.iterdir())]
    rows = model.encode(images, batch_size=BATCH, normalize_embeddings=True)
    out.mkdir()
    table = pa.table({"path": images, "embedding": list(rows)})
    parquet.write_table(table, out / "all.parquet")
    return time.monotonic() - began, ""
