"""Exports a model ahead of time, with the process that a replica would start for it.

Knows that process's input and output, but nothing of models.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


class ExportError(Exception):
    """The model could not be exported; the message says why."""


def export(model: Mapping[str, Any], *, to: str | None) -> str:
    """Exports a model; returns a sentence that says where to. `model` has that section's settings.

    The log goes to standard error. Raises ExportError.
    """
    if importlib.util.find_spec("torch") is None:  # a client-only installation
        raise ExportError("exporting needs the server's packages: pip install 'raylens[server]'")
    process = subprocess.run(
        [sys.executable, "-P", "-m", "deployments.models.export"],
        input=json.dumps({"model": model, "to": to}),
        stdout=subprocess.PIPE,
        text=True,
    )
    said = process.stdout.strip()
    if process.returncode != 0 or not said:
        raise ExportError(said or f"exporting ended with {process.returncode}")
    outcome = json.loads(said)
    if outcome["refusal"]:
        raise ExportError(
            f"{model['id']} cannot be exported and would run in torch: {outcome['refusal']}"
        )
    return (
        f"Exported {model['id']} to {outcome['copied_to'] or outcome['folder']}; on this processor "
        f"it runs in {outcome['settled'][1]}."
    )
