"""Pickles are converted by a process that cannot do harm."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.pickles import converted, sha256_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_weights_are_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "open_clip_pytorch_model.bin"
    shared = torch.arange(6.0)
    torch.save({"state_dict": {"a": shared, "b": shared[2:]}, "epoch": 3}, source)
    found = converted(source, sha256_of(source))
    weights = load_file(found)
    assert {name: values.tolist() for name, values in weights.items()} == {
        "a": [0, 1, 2, 3, 4, 5],
        "b": [2, 3, 4, 5],
    }
    monkeypatch.setattr(subprocess, "run", None)
    assert converted(source, sha256_of(source)) == found


class Harm:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "open_clip_pytorch_model.bin"
    source.write_bytes(pickle.dumps(Harm(f"touch {tmp_path / 'harm'}")))
    with pytest.raises(CheckpointError, match="holds other things than weights") as caught:
        converted(source, sha256_of(source))
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "harm").exists()
    assert not list(cache.rglob("*.safetensors"))


def test_the_converting_process_has_no_network_and_runs_no_program() -> None:
    program = """
import os, socket, subprocess, threading
from deployments.checkpoints.pickles import isolate
isolate()
def attempt(what):
    try:
        what()
        print("done")
    except OSError as error:
        print(error.errno)
def attempts():
    attempt(lambda: socket.create_connection(("127.0.0.1", 9)))
    attempt(lambda: socket.socket(socket.AF_UNIX))
    attempt(lambda: subprocess.run(["/bin/true"]))
attempts()
thread = threading.Thread(target=attempts)
thread.start()
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["1"] * 6
