"""What users import and run: the client and the command line. Imports neither Ray nor torch."""

from raylens.handles import HandleClient, connect

__all__ = ["HandleClient", "connect"]
