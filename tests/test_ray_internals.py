"""Each change to Ray's internals, against the installed Ray and against one that has changed."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import psutil
import pytest
import ray
from ray import serve
from ray.serve._private import replica

from deployments.ray_internals import BatchLoop, NodePort, UnknownRayError, running_replicas
from raylens.cluster import LOOPBACK_ONLY, serve_environment


@pytest.fixture
async def server() -> AsyncIterator[Any]:
    server = grpc.aio.server()
    yield server
    await server.stop(None)


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """`NodePort` replaces the function; this puts it back."""
    monkeypatch.setattr(replica, "add_port_to_grpc_server", replica.add_port_to_grpc_server)


def listening(port: int) -> set[str]:
    return {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }


async def test_the_port_between_replicas_is_on_the_nodes_address_alone(server: Any) -> None:
    own = NodePort("127.0.0.1")
    port = replica.add_port_to_grpc_server(server, "[::]:0")
    await server.start()
    assert listening(port) == {"127.0.0.1"}
    own.check()


def test_a_ray_that_opens_the_port_in_another_way_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(replica, "add_port_to_grpc_server")
    with pytest.raises(UnknownRayError, match="cannot restrict to the node"):
        NodePort("127.0.0.1")


def test_a_ray_that_bypasses_the_function_is_refused() -> None:
    with pytest.raises(UnknownRayError, match="has not opened"):
        NodePort("127.0.0.1").check()


def test_a_ray_that_opens_the_port_elsewhere_all_the_same_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as elsewhere:
        port = elsewhere.getsockname()[1]
        monkeypatch.setattr(replica, "add_port_to_grpc_server", lambda server, address: port)
        NodePort("127.0.0.1")
        with pytest.raises(UnknownRayError, match=r"0\.0\.0\.0"):
            replica.add_port_to_grpc_server(None, "[::]:0")


def test_a_ray_that_does_not_tell_whether_its_batch_loop_lives_is_refused() -> None:
    """When the replica starts: an error in its health check would have it replaced for ever."""

    async def echo(pieces: list[int]) -> list[int]:
        return pieces

    BatchLoop(serve.batch(echo))
    with pytest.raises(UnknownRayError, match=r"loop of @serve\.batch"):
        BatchLoop(echo)


def test_the_installed_ray_knows_every_switch(tmp_path: Path) -> None:
    """A switch that a newer Ray has renamed would do nothing, and nobody would notice."""
    folder = Path(str(ray.__file__)).parent
    places = ("_common", "_private", "serve/_private")
    text = "\n".join(p.read_text() for place in places for p in (folder / place).rglob("*.py"))
    binary = (folder / "_raylet.so").read_bytes()
    unknown = [
        name
        for name in (*serve_environment(tmp_path), LOOPBACK_ONLY)
        if name not in text and name.removeprefix("RAY_").encode() not in binary
    ]
    assert unknown == []


@pytest.mark.parametrize(
    ("router", "number"),
    [
        (None, None),
        (SimpleNamespace(_asyncio_router=SimpleNamespace(_request_router=None)), None),
        (
            SimpleNamespace(
                _asyncio_router=SimpleNamespace(
                    _request_router=SimpleNamespace(curr_replicas={"a": 1, "b": 2})
                )
            ),
            2,
        ),
    ],
)
def test_a_handle_tells_how_many_replicas_there_are(router: Any, number: int | None) -> None:
    assert running_replicas(SimpleNamespace(_router=router)) == number


def test_a_ray_that_does_not_tell_how_many_replicas_there_are_is_refused() -> None:
    with pytest.raises(UnknownRayError, match=r"set model\.cold_start to none"):
        running_replicas(SimpleNamespace(_router=SimpleNamespace()))
