"""What raylens changes in Ray and Serve behind their settings, each with a check of its effect.

What has no effect stops the start with UnknownRayError: a newer Ray must not leave open what this
closes. `raylens/haproxy.py` does the same for the HAProxy that Serve runs.
"""

import socket
from typing import Any

import psutil
import ray
from ray.serve._private import replica

_ADVICE = "install a version of Ray that raylens's pyproject.toml allows"


class UnknownRayError(RuntimeError):
    """This version of Ray works in another way than the ones that raylens was tried with."""


class NodePort:
    """The port by which replicas call each other, on the node's own address and no other.

    Serve opens it on every interface (ray 2.60, `Replica._on_initialized`). It takes pickles and
    asks for no token, so whoever reaches it runs code here. To be made in a replica's constructor,
    which Serve calls before it opens the port; `check` belongs into its health check, the first of
    which Serve awaits before the replica serves.
    """

    def __init__(self, node: str | None = None) -> None:
        """`node` is the address, by default the one that Ray has for this node.

        Raises UnknownRayError.
        """
        add_port: Any = getattr(replica, "add_port_to_grpc_server", None)
        if add_port is None:
            raise UnknownRayError(
                f"Ray {ray.__version__} opens the port between replicas in a way that raylens "
                f"cannot keep to the node; {_ADVICE}"
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
        """Raises UnknownRayError if Serve has opened the port in another way, or not yet."""
        if self._port is None:
            raise UnknownRayError(
                f"Ray {ray.__version__} has not opened the port between replicas in the way that "
                f"raylens keeps to the node; {_ADVICE}"
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
