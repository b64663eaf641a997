"""Whatever dies in the middle, each file is embedded once in the end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lance
import pytest
import ray
from pyarrow import parquet
from ray.cluster_utils import Cluster

from tests.bulk.cluster.conftest import CONFIG, Alone, assert_same, rows_in
from tests.conftest import Jpeg
from tests.servers import ROOT
from tests.until import until

PHOTOS = 600
# A driver of its own, whose parts are small.
DRIVER = """
import json, sys
from deployments.bulk import pipeline
pipeline.PART_S = 0.5
from raylens import bulk
summary = bulk.run(sys.argv[1], sys.argv[2], address=sys.argv[3], config=json.loads(sys.argv[4]))
print("\\nsummary", summary.rows, summary.before, summary.failed)
"""

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray Data's own


@pytest.fixture
def photos(jpeg: Jpeg, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(PHOTOS):
        (folder / f"{number:04d}.jpg").write_bytes(jpeg(number, (640, 480)))
    return folder


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes; the second one can be killed."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def start(photos: Path, out: Path, address: str) -> "subprocess.Popen[str]":
    log = out.with_suffix(".log").open("a")
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(photos), str(out), address, json.dumps(CONFIG)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )


def wait_for_parts(driver: "subprocess.Popen[str]", out: Path, *, more_than: int) -> None:
    def are_there() -> bool:
        assert driver.poll() is None, out.with_suffix(".log").read_text()[-2000:]
        return len(parts(out)) > more_than

    until(are_there, within_s=150)


def parts(out: Path) -> list[Path]:
    return list(out.glob("part-*.parquet"))


def assert_each_once(photos: Path, out: Path, jpeg: Jpeg, alone: Alone) -> None:
    rows = rows_in(out)
    assert sorted(row["source"] for row in rows) == sorted(map(str, photos.iterdir()))
    for row in rows[:: PHOTOS // 20]:
        assert_same(row, alone(jpeg(int(Path(row["source"]).stem), (640, 480))))
    assert not [row for row in rows if row["error"]]


def test_a_killed_driver_goes_on_and_a_killed_node_is_made_up_for(
    cluster: Cluster, photos: Path, jpeg: Jpeg, alone: Alone, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = start(photos, out, cluster.address)
    wait_for_parts(driver, out, more_than=0)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = sum(parquet.read_metadata(part).num_rows for part in parts(out))
    assert 0 < before < PHOTOS

    earlier = len(parts(out))
    worker = cluster.add_node(num_cpus=2)
    driver = start(photos, out, cluster.address)
    wait_for_parts(driver, out, more_than=earlier)
    cluster.remove_node(worker, allow_graceful=False)
    said, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0
    # Among what Ray says of the node.
    assert f"summary {PHOTOS - before} {before} 0" in said.splitlines()
    assert_each_once(photos, out, jpeg, alone)


def test_a_killed_driver_goes_on_with_its_lance_dataset(
    cluster: Cluster, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.lance"

    def sources() -> list[str]:
        if not (out / "data").exists():  # its first commit is still to come
            return []
        names: list[str] = (
            lance.dataset(str(out)).to_table(columns=["source"])["source"].to_pylist()
        )
        return names

    driver = start(photos, out, cluster.address)
    until(lambda: driver.poll() is not None or bool(sources()), within_s=150)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = len(sources())
    assert 0 < before < PHOTOS
    driver = start(photos, out, cluster.address)
    said, _ = driver.communicate(timeout=200)
    assert f"summary {PHOTOS - before} {before} 0" in said.splitlines()
    assert sorted(sources()) == sorted(map(str, photos.iterdir()))
