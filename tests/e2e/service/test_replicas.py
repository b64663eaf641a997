"""The replica changes its batch size without a restart, and is replaced when it is killed."""

from pathlib import Path

import pytest

from tests.conftest import Jpeg
from tests.e2e.service.clients import embed, run_python
from tests.load import at_rate
from tests.servers import Server
from tests.until import until

DEADLINE_S = 30


@pytest.mark.parametrize(
    ("size", "logged"),
    [(3, "batches of at most 3"), (0, "invalid user_config"), (2, "batches of at most 2")],
)
def test_the_batch_size_changes_without_a_restart(
    server: Server, config: Path, size: int, logged: str
) -> None:
    script = f"""
import yaml, ray
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
context = ray.init(address="auto", log_to_driver=False)
config = yaml.safe_load(open("{config}"))
config["http_options"]["port"] = {server.url.rpartition(":")[2]}
for deployment in config["applications"][0]["deployments"]:
    if deployment["name"] == "Embedder":
        deployment["user_config"] = {{"max_batch_size": {size}}}
ServeSubmissionClient("http://" + context.dashboard_url).deploy_applications(config)
"""
    pids = [p.pid for p in server.replicas("Embedder")]
    log = server.log.read_text()
    run_python(server, script, Path("/"))
    until(lambda: logged in server.log.read_text()[len(log) :])
    assert len(embed(server, {"path": "1.jpg"})) == 1280
    assert [p.pid for p in server.replicas("Embedder")] == pids


async def test_after_a_model_replica_is_killed_no_caller_hangs_and_it_comes_back(
    server: Server, jpeg: Jpeg
) -> None:
    images = [jpeg(i, (320, 240)) for i in range(250)]
    (victim,) = server.replicas("Embedder")
    outcomes = await at_rate(
        server.url, images, per_second=10, timeout_s=DEADLINE_S + 1, after=30, hurt=victim.kill
    )
    statuses = {o.status for o in outcomes}
    slowest = max(o.took_s for o in outcomes)
    print(
        f"statuses { ({s: sum(o.status == s for o in outcomes) for s in statuses}) }, "
        f"slowest {slowest:.1f} s"
    )
    assert statuses <= {200, 503}
    assert slowest <= DEADLINE_S
    assert {o.status for o in outcomes[-20:]} == {200}
