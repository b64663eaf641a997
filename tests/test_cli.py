"""The command line as its users meet it: sentences and exit codes."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from deployments.models.families import FAMILIES
from deployments.settings import ModelSettings
from raylens.cli.service import Pooling
from tests.commands import ENV, ended, raylens, sentence
from tests.servers import RAYLENS, ROOT

COMMANDS = (
    *("serve", "health", "models", "export", "keys"),
    *("embed", "search", "dedupe", "map", "bulk", "bench", "plan"),
)


# Usage


def test_help_lists_the_commands() -> None:
    result = raylens("--help")
    assert ended(result) == 0
    for command in COMMANDS:
        assert re.search(rf"^\W*{command} ", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = raylens(command, "--help")
    assert ended(result) == 0
    assert f"{command} [OPTIONS]" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["health", "--colour"],
        ["models", "extra"],
        ["serve", "--port", "http"],
        ["serve", "--wait", "long"],
        [],
    ],
)
def test_a_usage_error_exits_with_2(arguments: list[str]) -> None:
    assert ended(raylens(*arguments)) == 2


# serve, as far as it gets without Ray


def test_a_config_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    result = raylens("serve", str(missing))
    assert ended(result) == 2
    assert f"cannot read {missing}: No such file or directory" in sentence(result)


@pytest.mark.parametrize(
    ("text", "reason"), [("a: [", "is not valid YAML"), ("a: 1", "has no applications")]
)
def test_a_file_that_is_no_config_is_a_usage_error(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    result = raylens("serve", str(path))
    assert ended(result) == 2
    assert reason in sentence(result)


@pytest.mark.parametrize("port", ["0", "-1", "70000"])
def test_an_impossible_port_is_a_usage_error(port: str, tmp_path: Path) -> None:
    # The config is missing as well, so that no mistake here can start a service.
    result = raylens("serve", str(tmp_path / "missing.yaml"), "--port", port)
    assert ended(result) == 2
    assert "--port" in sentence(result)


@pytest.mark.timeout(60)
def test_a_taken_port_is_reported_before_anything_starts() -> None:
    env = {name: value for name, value in os.environ.items() if name not in ENV}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = subprocess.run(
            [str(RAYLENS), "serve", "--port", port],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=50,
        )
    assert process.returncode == 1
    assert process.stderr.startswith(f"raylens: cannot listen on 127.0.0.1:{port} (")
    assert process.stderr.endswith("choose another with --port\n")
    assert process.stderr.count("\n") == 1
    assert process.stdout == ""


def test_serving_from_a_client_only_installation_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "raylens.serving", None)
    monkeypatch.delattr("raylens.serving", raising=False)
    result = raylens("serve")
    assert ended(result) == 1
    assert "pip install 'raylens[server]'" in sentence(result)


# models, as far as it gets without a service


def test_models_lists_every_supported_family_whole_on_a_narrow_terminal() -> None:
    result = raylens("models", "--supported", COLUMNS="80")
    assert ended(result) == 0
    words = result.stdout.split()
    assert {*FAMILIES, "sentence-transformers", "openclip"} <= {*words}
    assert "…" not in result.stdout


def test_listing_families_from_a_client_only_installation_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "deployments.models.supported", None)
    result = raylens("models", "--supported")
    assert ended(result) == 1
    assert "pip install 'raylens[server]'" in sentence(result)


# export


@pytest.mark.slow
def test_export_says_where_the_model_is_and_what_it_runs_in(tmp_path: Path) -> None:
    store = tmp_path / "exports"
    process = subprocess.run(
        [RAYLENS, "export", "efficientnet-lite0", "--to", store, "--precision", "float32"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert process.returncode == 0, process.stderr
    (folder,) = store.iterdir()
    assert process.stdout == (
        f"Exported efficientnet-lite0 to {folder}; on this processor it runs in float32, because "
        "model.precision says so.\n"
    )
    assert "Exporting model efficientnet-lite0 to OpenVINO, once." in process.stderr


def test_export_says_what_is_wrong_with_a_model(tmp_path: Path) -> None:
    result = raylens("export", str(tmp_path / "none"))
    assert ended(result) == 1
    assert "there is no such folder on this machine" in sentence(result)


def test_export_takes_a_text_model_too(tmp_path: Path) -> None:
    result = raylens("export", "efficientnet-lite0", "--text-id", str(tmp_path / "none"))
    assert ended(result) == 1
    assert "correct model.text_id" in sentence(result)
    assert ended(raylens("export", "a/b", "--text-revision", "main")) == 2


@pytest.mark.parametrize("option", [("--precision", "fp16"), ("--pooling", "average")])
def test_an_unknown_value_of_an_export_option_is_a_usage_error(option: tuple[str, str]) -> None:
    assert ended(raylens("export", "a/b", *option)) == 2


def test_export_takes_every_pooling_that_the_settings_have() -> None:
    wanted = ModelSettings.model_fields["pooling"].annotation
    assert get_args(Pooling) == get_args(wanted)
