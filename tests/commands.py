"""Runs a `raylens` command in this process, and reads its output and exit code."""

import re

from typer.testing import CliRunner, Result

from raylens.cli import app

# Variables set in a developer's own shell must not affect the tests.
ENV = {"RAYLENS_URL": None, "RAYLENS_API_KEY": None, "RAY_ADDRESS": None, "COLUMNS": "200"}


def raylens(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, arguments, env={**ENV, **env})


def ended(result: Result) -> int:
    """The exit code of a command that ended by itself, not with an exception."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result.exit_code


def sentence(result: Result) -> str:
    """What is on stderr, without the frame that typer draws around usage errors."""
    return " ".join(re.sub(r"[╭╮╰╯│─]", " ", result.stderr).split())
