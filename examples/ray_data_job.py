"""Embeds the photos of a folder from a Ray Data job, by the service that runs on the same cluster.

    pip install 'raylens[server]' 'ray[data]'
    python examples/ray_data_job.py photos vectors

For whole buckets see `raylens bulk`, which needs no service.
"""

import sys
from typing import Any

import numpy as np
import ray

import raylens


class Embed:
    """Holds a client; as many of these run as `concurrency` says."""

    def __init__(self) -> None:
        self.client = raylens.connect()

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        rows = self.client.embed(list(batch["bytes"]), errors="return")
        return {
            "path": batch["path"],
            # As lists: Ray Data pickles a column of arrays in which one is missing.
            "embedding": [None if isinstance(row, Exception) else row.tolist() for row in rows],
            "error": [str(row) if isinstance(row, Exception) else None for row in rows],
        }


def main(folder: str, out: str) -> None:
    client = raylens.connect()  # joins the cluster
    print(f"Model: {client.models()[0]['id']}")
    photos = ray.data.read_binary_files(folder, include_paths=True)
    photos.map_batches(Embed, batch_size=64, num_cpus=0, concurrency=1).write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
