"""The port by which replicas call each other, on the node's own address and no other.

Serve opens it on every interface. It takes pickles and asks for no token, so whoever reaches it
runs code here.
"""

import logging
from typing import Any

import ray
from ray.serve._private import replica

logger = logging.getLogger("ray.serve")


def keep_to_node() -> None:
    """To be called in a replica before Serve opens its port, that is, while it is constructed."""
    add_port: Any = getattr(replica, "add_port_to_grpc_server", None)
    if add_port is None:
        logger.warning("This Ray opens replicas' gRPC port in a way unknown to raylens.")
        return
    node = ray.util.get_node_ip_address()

    def add_own_port(server: Any, address: str) -> Any:
        port = address.rpartition(":")[2]
        return add_port(server, f"[{node}]:{port}" if ":" in node else f"{node}:{port}")

    replica.add_port_to_grpc_server = add_own_port
