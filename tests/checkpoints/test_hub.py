"""Models come from a hub on loopback: whole, cut off, converted, refused, or from the cache."""

import fcntl
import json
import logging
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from deployments.checkpoints import hub as hub_module
from deployments.checkpoints import progress
from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.hub import download
from deployments.checkpoints.integrity import check_files
from tests.checkpoints.checkpoints import FILES, sharded, write
from tests.hub import CONVERTER, Hub, serve_hub
from tests.servers import ROOT

ID = "acme/vit"
LARGE = save({"weight": np.zeros(1_000_000, np.float32)})
PICKLES = {"pytorch_model.bin": b"pickled", **{n: c for n, c in FILES.items() if "safe" not in n}}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub that this process's client talks to. The client reads its environment on import."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve_hub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.close_session()
        yield served
        huggingface_hub.close_session()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """The lines that the model deployment would log."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("ray.serve"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def refused(id: str = ID, revision: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_files(download(id, revision))
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# What is downloaded


def test_a_model_is_downloaded_once(hub: Hub) -> None:
    commit = hub.add(ID, FILES)
    folder = download(ID, None)
    check_files(folder)
    assert folder.name == commit
    asked = len(hub.asked)
    assert download(ID, None) == folder
    assert not [line for line in hub.asked[asked:] if "/resolve/" in line]


def test_pickles_code_and_other_runtimes_are_never_downloaded(hub: Hub) -> None:
    others = ["pytorch_model.bin", "model.pt", "modeling_acme.py", "onnx/model.safetensors"]
    others += ["model.fp16.safetensors", "flax_model.msgpack", "tf_model.h5", "README.md"]
    hub.add(ID, FILES | dict.fromkeys(others, b"other"))
    folder = download(ID, None)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*")} == FILES.keys()


def test_shards_are_downloaded(hub: Hub) -> None:
    hub.add(ID, sharded([f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]))
    check_files(download(ID, None))


def test_a_revision_is_a_branch_a_tag_a_pull_request_or_a_commit(hub: Hub) -> None:
    references = ["main", "v1.0", "feature/x", "refs/pr/3"]
    commits = [
        hub.add(ID, {**FILES, "config.json": f'{{"model_type": "{r}"}}'.encode()}, reference=r)
        for r in references
    ]
    assert [download(ID, r).name for r in references] == commits
    assert [download(ID, c).name for c in commits] == commits
    assert len(set(commits)) == 4


def test_a_commit_that_is_here_needs_no_network(hub: Hub) -> None:
    commit = hub.add(ID, FILES)
    folder = download(ID, commit)
    hub.asked.clear()
    assert download(ID, commit) == folder
    assert hub.asked == []


def test_a_cut_connection_is_resumed_where_it_broke(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    hub.add(ID, FILES | {"model.safetensors": LARGE})
    hub.cuts = [1_250_000]
    folder = download(ID, None)
    assert (folder / "model.safetensors").read_bytes() == LARGE
    gets = [line for line in hub.asked if line.startswith("GET") and "model.safetensors" in line]
    assert [line.partition("bytes=")[2] for line in gets] == ["", "1200000-"]


def test_the_cache_keeps_no_half_of_a_download_that_failed(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.add(ID, FILES)
    hub.cuts = [100] * 6
    assert "cannot be downloaded (" in refused()
    assert not list(cache.rglob("*.incomplete"))
    check_files(download(ID, None))


# Why it cannot be


def test_an_id_that_no_one_has_is_named(hub: Hub) -> None:
    assert refused("acme/none") == (
        "model 'acme/none' cannot be downloaded: no folder has that path here, and no public model "
        "that id; correct it, or set HF_TOKEN if the model is private"
    )


def test_a_revision_that_no_one_has_is_named(hub: Hub) -> None:
    hub.add(ID, FILES)
    assert refused(ID, "v9") == (
        "model 'acme/vit' at revision 'v9' cannot be downloaded: check model.revision"
    )


@pytest.mark.parametrize("id", ["a b", "acme/vit/large", "-x", "acme/vit:latest"])
def test_what_cannot_be_an_id_is_said_so(hub: Hub, id: str) -> None:
    assert "neither a bundled model, nor a folder, nor a hub id" in refused(id)


@pytest.mark.parametrize(
    ("refusal", "advice"),
    [
        ((403, "GatedRepo"), "accept its terms on huggingface.co and set HF_TOKEN"),
        ((401, "GatedRepo"), "accept its terms on huggingface.co and set HF_TOKEN"),
        ((401, "RepoNotFound"), "set HF_TOKEN if the model is private"),
    ],
)
def test_a_model_behind_a_token_is_had_with_the_token(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, refusal: tuple[int, str], advice: str
) -> None:
    hub.add(ID, FILES)
    hub.repositories[ID].token, hub.repositories[ID].refusal = "secret", refusal
    assert advice in refused()
    monkeypatch.setenv("HF_TOKEN", "secret")
    check_files(download(ID, None))


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_is_down_is_said_so(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.down = status
    sentence = refused()
    assert sentence.startswith("model 'acme/vit' is not in the local cache, and the hub cannot be ")
    assert str(status) in sentence


def test_a_hub_that_does_not_answer_is_not_waited_for(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "ANSWER_WITHIN_S", 0.3)
    hub.add(ID, FILES)
    folder = download(ID, None)
    hub.silent = True
    began = time.monotonic()
    assert "the hub cannot be reached (" in refused("acme/other")
    assert download(ID, None) == folder  # from the cache
    assert time.monotonic() - began < 10


def test_a_hub_that_is_down_is_no_matter_once_the_model_is_here(hub: Hub) -> None:
    hub.add(ID, FILES)
    folder = download(ID, None)
    hub.down = 503
    assert download(ID, None) == folder


def test_a_cache_that_cannot_be_written_is_named(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, FILES)
    cache.write_text("a file")
    sentence = refused()
    assert str(cache) in sentence
    assert "HF_HOME" in sentence


# Offline


def test_offline_a_whole_cache_will_do(hub: Hub, offline: Callable[[], None]) -> None:
    commit = hub.add(ID, FILES)
    folder = download(ID, None)
    offline()
    hub.asked.clear()
    assert [download(ID, revision) for revision in (None, "main", commit)] == [folder] * 3
    assert hub.asked == []


def test_offline_a_model_that_is_not_here_is_named(hub: Hub, offline: Callable[[], None]) -> None:
    offline()
    assert refused().startswith(
        "model 'acme/vit' is not in the local cache, and HF_HUB_OFFLINE is set; "
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "merges.txt"])
def test_offline_a_file_that_is_missing_is_named(
    hub: Hub, offline: Callable[[], None], name: str
) -> None:
    hub.add(ID, FILES)
    (download(ID, None) / name).unlink()
    offline()
    assert f"not whole in the local cache: 1 file(s) are missing ({name})" in refused()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_offline_a_file_is_missed_without_the_hubs_list_as_well(
    hub: Hub, cache: Path, offline: Callable[[], None], name: str
) -> None:
    write(cache / "models--acme--vit/refs", {"main": b"0123"})
    write(cache / "models--acme--vit/snapshots/0123", FILES)  # by a client of old
    offline()
    check_files(download(ID, None))
    (cache / "models--acme--vit/snapshots/0123" / name).unlink()
    assert f"snapshots/0123/{name}: the file is missing" in refused()


def test_offline_a_download_that_was_broken_off_is_named(
    hub: Hub, cache: Path, offline: Callable[[], None]
) -> None:
    hub.add(ID, FILES)
    folder = download(ID, None)
    blob = (folder / "model.safetensors").resolve()
    blob.rename(blob.with_name(f"{blob.name}.1234abcd.incomplete"))  # the link leads nowhere now
    offline()
    assert "1 file(s) are missing (model.safetensors)" in refused()


def test_online_a_download_that_was_broken_off_is_completed(hub: Hub, cache: Path) -> None:
    hub.add(ID, FILES)
    folder = download(ID, None)
    blob = (folder / "model.safetensors").resolve()
    blob.rename(blob.with_name(f"{blob.name}.1234abcd.incomplete"))
    check_files(download(ID, None))


def test_a_damaged_blob_is_named_with_the_folder_to_delete(hub: Hub, cache: Path) -> None:
    hub.add(ID, FILES)
    blob = (download(ID, None) / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-10])
    model = cache / "models--acme--vit"
    assert refused().endswith(f"delete {model} to have it downloaded again")
    assert model.is_dir()
    shutil.rmtree(model)
    check_files(download(ID, None))


# Models with pickles alone, of which Hugging Face's bot has made safetensors


def convert(hub: Hub, *, author: str = CONVERTER, number: int = 7) -> tuple[str, str]:
    """Adds a model of pickles and a pull request; returns the commits of both."""
    base = hub.add(ID, PICKLES)
    weights = {"model.safetensors": FILES["model.safetensors"]}
    return base, hub.request(ID, weights, number=number, author=author)


def test_safetensors_come_from_the_converters_pull_request(hub: Hub, log: list[str]) -> None:
    base, converted = convert(hub)
    assert download(ID, None).name == converted
    assert download(ID, base).name == converted
    assert log[0] == (
        f"Model acme/vit has pickles alone at {base}; taking the safetensors that Hugging Face's "
        "SFconvertbot made of them (refs/pr/7)"
    )


def test_a_pull_request_of_someone_else_is_not_taken(hub: Hub) -> None:
    convert(hub, author="mallory")
    assert "safetensors alone, because pickles" in refused()


def test_a_conversion_of_an_older_commit_is_not_taken(hub: Hub) -> None:
    convert(hub)
    hub.add(ID, PICKLES | {"pytorch_model.bin": b"retrained"})
    assert "safetensors alone, because pickles" in refused()


def test_offline_the_conversion_of_an_earlier_start_is_taken(
    hub: Hub, offline: Callable[[], None]
) -> None:
    base, converted = convert(hub)
    download(ID, None)
    offline()
    assert [download(ID, revision).name for revision in (base, None)] == [converted] * 2


# Progress


def test_without_a_terminal_the_log_tells_how_far_it_is(
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
    with huggingface_hub.utils.disable_progress_bars():
        download(ID, None)
    assert log == []


def test_on_a_terminal_there_is_one_bar_and_none_for_what_is_here(hub: Hub, tmp_path: Path) -> None:
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
