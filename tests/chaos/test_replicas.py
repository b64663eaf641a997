"""What callers see when a replica dies; and Ctrl-C in a terminal stops the whole service."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.chaos.faults import haproxies
from tests.chaos.traffic import Traffic
from tests.load import at_rate
from tests.servers import ROOT, serve


async def test_with_two_model_replicas_the_death_of_one_fails_no_request(
    tmp_path: Path, jpeg: Callable[..., bytes]
) -> None:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    for deployment in config["applications"][0]["deployments"]:
        if deployment["name"] == "Embedder":
            deployment["num_replicas"] = 2
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(config))
    images = [jpeg(i, (320, 240)) for i in range(200)]

    def ctrl_c(pid: int) -> None:
        """What a terminal sends, and to whom: the whole process group."""
        os.killpg(pid, signal.SIGINT)

    with serve(tmp_path, path, stop=ctrl_c) as server:
        victim, _ = server.replicas("Embedder")
        outcomes = await at_rate(
            server.url, images, per_second=10, timeout_s=31, after=30, hurt=victim.kill
        )
    statuses = [o.status for o in outcomes]
    slowest = max(o.took_s for o in outcomes)
    print(f"{statuses.count(200)} of {len(statuses)} answered with 200, slowest {slowest:.1f} s")
    assert set(statuses) == {200}


def test_the_death_of_haproxy_or_of_the_only_ingress_replica_is_a_short_pause(
    tmp_path: Path, jpeg: Callable[..., bytes]
) -> None:
    images = [jpeg(i, (320, 240)) for i in range(100)]
    with serve(tmp_path, ROOT / "serve_config.yaml") as server:
        traffic = Traffic(server.url, images, per_second=10)
        with traffic:
            time.sleep(2)
            server.replicas("Ingress")[0].kill()
            time.sleep(10)
            for process in haproxies(server):
                process.kill()
            time.sleep(15)  # Serve replaces its manager of HAProxy meanwhile
    print(f"{traffic.failed} of {len(traffic.outcomes)}, gap {traffic.longest_gap_s():.1f} s")
    assert sum(traffic.failed.values()) <= 1  # what HAProxy was serving when it died
    assert traffic.longest_gap_s() < 10
