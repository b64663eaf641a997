"""What users import and run: the clients and the command line. Imports neither Ray nor torch."""

from raylens.client.clients import AsyncClient, Client, HandleClient, connect
from raylens.client.errors import ApiError

__all__ = ["ApiError", "AsyncClient", "Client", "HandleClient", "connect"]
