"""raylens for its users: clients, the command line. Imports neither Ray nor torch by itself."""

from raylens.handles import HandleClient, connect

__all__ = ["HandleClient", "connect"]
