"""`raylens serve` around the model that sleeps (`stub`), for `real` and `planned`."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.servers import ROOT, Server, serve


@contextmanager
def serving(
    *, batch_s: float, image_s: float, max_batch_size: int, embedder: dict[str, Any]
) -> Iterator[Server]:
    """The default service without a cache. A batch of N takes `batch_s` + N * `image_s` seconds;
    `embedder` is added to the options of that deployment."""
    content = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    (application,) = content["applications"]
    application["import_path"] = "benchmarks.autoscale.stub:build_app"
    application["args"] = {
        "sleeps": {"batch_s": batch_s, "image_s": image_s},
        "model": {"max_batch_size": max_batch_size},
        "cache": {"max_bytes": 0},
    }
    (options,) = (d for d in application["deployments"] if d["name"] == "Embedder")
    del options["num_replicas"]
    options |= {"ray_actor_options": {"num_cpus": 0.25}, **embedder}
    with tempfile.TemporaryDirectory(prefix="raylens-") as name:
        folder = Path(name)
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(content))
        with serve(folder, config, env={"PYTHONPATH": str(ROOT)}) as server:
            time.sleep(5)  # HAProxy has the replicas by then
            yield server
