"""When a model cannot be downloaded, one sentence says why and what to do."""

import time
from pathlib import Path

import pytest

from deployments.checkpoints import hub as hub_module
from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.hub import download
from deployments.checkpoints.integrity import check_files
from tests.checkpoints.checkpoints import FILES
from tests.checkpoints.downloads import ID, refused
from tests.hub import Hub


def test_an_unknown_id_is_named(hub: Hub) -> None:
    assert refused("acme/none") == (
        "model 'acme/none' cannot be downloaded: there is no such folder here and no public model "
        "with that id; correct it, or set HF_TOKEN if the model is private"
    )


def test_an_unknown_revision_is_named(hub: Hub) -> None:
    hub.add(ID, FILES)
    assert refused(ID, "v9") == (
        "model 'acme/vit' at revision 'v9' cannot be downloaded: check model.revision"
    )


@pytest.mark.parametrize("id", ["a b", "acme/vit/large", "-x", "acme/vit:latest"])
def test_a_malformed_id_is_refused(hub: Hub, id: str) -> None:
    assert "neither a bundled model, nor a folder, nor a hub id" in refused(id)


@pytest.mark.parametrize(
    ("refusal", "advice"),
    [
        ((403, "GatedRepo"), "accept its terms on huggingface.co and set HF_TOKEN"),
        ((401, "GatedRepo"), "accept its terms on huggingface.co and set HF_TOKEN"),
        ((401, "RepoNotFound"), "set HF_TOKEN if the model is private"),
    ],
)
def test_a_model_that_needs_a_token_says_so_and_is_downloaded_with_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, refusal: tuple[int, str], advice: str
) -> None:
    hub.add(ID, FILES)
    hub.repositories[ID].token, hub.repositories[ID].refusal = "secret", refusal
    assert advice in refused()
    monkeypatch.setenv("HF_TOKEN", "secret")
    check_files(download(ID, None))


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_is_down_is_reported_with_its_status(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.down = status
    sentence = refused()
    assert sentence.startswith("model 'acme/vit' is not in the local cache, and the hub cannot be ")
    assert str(status) in sentence


def test_a_hub_that_does_not_answer_is_not_waited_for_long(
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


def test_a_hub_that_is_down_does_not_matter_once_the_model_is_cached(hub: Hub) -> None:
    hub.add(ID, FILES)
    folder = download(ID, None)
    hub.down = 503
    assert download(ID, None) == folder


def test_a_cache_that_cannot_be_written_to_is_named(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, FILES)
    cache.write_text("a file")
    sentence = refused()
    assert str(cache) in sentence
    assert "HF_HOME" in sentence


def test_an_adapter_beside_the_weights_is_not_left_out_silently(hub: Hub) -> None:
    hub.add(ID, {**FILES, "adapter_config.json": b'{"peft_type": "LORA"}'})
    folder = download(ID, None)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: an adapter lies beside"):
        check_files(folder)
