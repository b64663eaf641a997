"""A download's progress: lines in the log, or one bar on a terminal."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars
from safetensors.numpy import save

from deployments.checkpoints import progress
from deployments.checkpoints.hub import download
from tests.checkpoints.checkpoints import FILES
from tests.checkpoints.downloads import ID, LARGE
from tests.hub import Hub
from tests.servers import ROOT


def test_without_a_terminal_progress_goes_to_the_log(
    hub: Hub, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500_000)
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.2)
    hub.add(ID, FILES | {"model.safetensors": LARGE})
    hub.bytes_per_s = 4e6
    download(ID, None)
    shares = [re.fullmatch(r"Downloading acme/vit: (\d+)% of 4 MB", line) for line in log]
    assert len(shares) >= 2
    percents = [int(share[1]) for share in shares if share is not None]
    assert len(percents) == len(shares)
    assert percents == sorted(percents)
    assert percents[0] < percents[-1] <= 100
    log.clear()
    download(ID, None)
    assert log == []


def test_progress_can_be_switched_off_as_for_any_client_of_the_hub(
    hub: Hub, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0)
    hub.add(ID, FILES | {"model.safetensors": LARGE})
    with disable_progress_bars():
        download(ID, None)
    assert log == []


@pytest.mark.slow
def test_on_a_terminal_there_is_one_bar_and_none_once_cached(hub: Hub, tmp_path: Path) -> None:
    large = save({"weight": np.zeros(7_500_000, np.float32)})  # chunks are of 10 MiB
    hub.add(ID, FILES | {"model.safetensors": large})
    hub.bytes_per_s = 30e6
    first, again = (on_a_terminal(hub, tmp_path / "home") for _ in range(2))
    bars = [line for line in first.split("\r") if line.strip()]
    assert all(bar.startswith("acme/vit: ") for bar in bars)
    assert "100%|█" in bars[-1]
    assert "30.0M/30.0M" in bars[-1]
    assert any("35%|" in bar for bar in bars)
    assert "\x1b" not in first
    assert again == ""


def on_a_terminal(hub: Hub, home: Path) -> str:
    """What the preflight of `raylens serve` shows on a terminal of 80 columns."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = bytearray()

    def read() -> None:
        try:
            while part := os.read(master, 65536):
                shown.extend(part)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.models.preflight"],
        input=json.dumps({"model": {"id": ID}}).encode(),
        stdout=subprocess.PIPE,
        stderr=terminal,
        cwd=ROOT,
        env=env,
        timeout=60,
    )
    os.close(terminal)
    reader.join(10)
    os.close(master)
    assert (done.returncode, done.stdout) == (0, b"")
    return shown.decode()
