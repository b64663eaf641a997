"""What Serve gives a replica, for tests of the model deployment without Ray."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
from ray.serve import context
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve._private.config import DeploymentConfig
from ray.serve.schema import ReplicaRank


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
    del tasks
    gc.collect()  # Serve's queue looks for a running loop when it is collected
