"""What Serve gives a replica, for tests of the model deployment without Ray."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from ray.serve import batching, context
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve._private.config import DeploymentConfig
from ray.serve.schema import ReplicaRank


@pytest.fixture(scope="session", autouse=True)
def no_loops_of_collected_queues() -> Iterator[None]:
    """Serve's queue, when it is collected where no loop runs, makes one that nobody closes: a
    warning in whichever test happens to run then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(batching._BatchQueue, "__del__")
        yield


@pytest.fixture
async def replica(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """What `@serve.batch` asks the replica for; ends its tasks and those of the gate."""
    monkeypatch.setattr(context, "_INTERNAL_REPLICA_CONTEXT", None)
    context._set_internal_replica_context(
        replica_id=ReplicaID("test", DeploymentID("Embedder")),
        servable_object=lambda: None,
        _deployment_config=DeploymentConfig(max_ongoing_requests=256),
        rank=ReplicaRank(rank=0, node_rank=0, local_rank=0),
        world_size=1,
    )
    yield
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
