"""Patches of Ray and Serve and uses of their insides, each with a check that it works.

If one does not, the replica refuses to start with UnknownRayError: a newer Ray must not reopen what
these close. `raylens/haproxy.py` does the same for the HAProxy that Serve runs.
"""

import socket
from typing import Any

import psutil
import ray
from ray.serve._private import replica

_ADVICE = "install a version of Ray that raylens's pyproject.toml allows"


class UnknownRayError(RuntimeError):
    """This version of Ray works differently from the ones that raylens was tested with."""


class NodePort:
    """Binds the port on which replicas call each other to the node's own address only.

    Serve opens it on every interface (ray 2.60, `Replica._on_initialized`). It accepts pickles
    without a token, so anyone who reaches it can run code here. Create this in the replica's
    constructor, which Serve calls before it opens the port, and call `check` in the health check:
    Serve awaits the first one before the replica serves.
    """

    def __init__(self, node: str | None = None) -> None:
        """`node` is the address, by default the one by which Ray knows this node.

        Raises UnknownRayError.
        """
        add_port: Any = getattr(replica, "add_port_to_grpc_server", None)
        if add_port is None:
            raise UnknownRayError(
                f"Ray {ray.__version__} opens the port between replicas in a way that raylens "
                f"cannot restrict to the node's address; {_ADVICE}"
            )
        self._node = node or ray.util.get_node_ip_address()
        self._port: int | None = None

        def add_own_port(server: Any, address: str) -> Any:
            port = address.rpartition(":")[2]
            host = f"[{self._node}]" if ":" in self._node else self._node
            self._port = add_port(server, f"{host}:{port}")
            self._read_back()
            return self._port

        replica.add_port_to_grpc_server = add_own_port

    def check(self) -> None:
        """Raises UnknownRayError unless Serve has opened the port through this patch."""
        if self._port is None:
            raise UnknownRayError(
                f"Ray {ray.__version__} has not opened the port between replicas in a way that "
                f"raylens can restrict to the node's address; {_ADVICE}"
            )

    def _read_back(self) -> None:
        own = socket.getaddrinfo(self._node, None)[0][4][0]
        open_on = {
            connection.laddr.ip.removeprefix("::ffff:")  # as gRPC writes IPv4 addresses
            for connection in psutil.Process().net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == self._port
        }
        if open_on - {own}:
            raise UnknownRayError(
                f"Ray {ray.__version__} has opened the port between replicas on "
                f"{', '.join(sorted(open_on))} and not on {own} alone; {_ADVICE}"
            )


class BatchLoop:
    """The loop behind a function with `@serve.batch`, of which Serve tells nothing in public.

    Requests would wait for ever after its end (ray 2.60, `_LazyBatchQueueWrapper`).
    """

    def __init__(self, batched: Any) -> None:
        """Raises UnknownRayError."""
        is_alive: Any = getattr(batched, "_is_batching_task_alive", None)
        if is_alive is None:
            raise UnknownRayError(
                f"Ray {ray.__version__} does not tell whether the loop of @serve.batch has ended "
                f"in a way that raylens knows; {_ADVICE}"
            )
        self._is_alive = is_alive

    async def check(self) -> None:
        """Raises RuntimeError if the loop has ended, which only a bug can cause."""
        if not await self._is_alive():
            raise RuntimeError("the loop of @serve.batch has ended")


def running_replicas(handle: Any) -> int | None:
    """How many replicas a handle can send calls to; None before it has been used. Serve tells in
    public only whether there have ever been any (ray 2.60, `AsyncioRouter`).

    Raises UnknownRayError.
    """
    try:
        if handle._router is None or handle._router._asyncio_router._request_router is None:
            return None
        return len(handle._router._asyncio_router._request_router.curr_replicas)
    except AttributeError:
        raise UnknownRayError(
            f"Ray {ray.__version__} does not tell how many replicas there are in a way that "
            f"raylens knows; set model.cold_start to none, or {_ADVICE}"
        ) from None
