"""Why Serve's applications have failed, in a sentence each instead of their tracebacks."""

from collections.abc import Mapping
from typing import Any


def failures(applications: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The reason of each application that could not be started or updated, or that has died."""
    return [
        (f"{name}: " if len(applications) > 1 else "") + reason(*messages(application))
        for name, application in applications.items()
        if application["status"] in ("DEPLOY_FAILED", "UNHEALTHY")
    ]


def messages(application: Mapping[str, Any]) -> list[str]:
    """Serve's messages about a failed application and its deployments, and its bare status."""
    deployments = application.get("deployments", {}).values()
    details = [application["message"], *(d.get("message", "") for d in deployments)]
    return [*details, str(application["status"])]


def reason(*messages: str) -> str:
    """The last sentence of an error in the first message that has one, without its traceback."""
    for message in messages:
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        for line in reversed(lines):
            kind, _, sentence = line.partition(": ")
            if kind.endswith(("Error", "Exception")) and sentence:
                return sentence
    return next(message for message in messages if message)
