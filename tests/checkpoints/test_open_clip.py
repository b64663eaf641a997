"""OpenCLIP's layout on disk and on the hub, and its names."""

import json
from pathlib import Path

import pytest

from deployments.checkpoints import open_clip_names
from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.checkpoints.finding import find_checkpoint
from deployments.checkpoints.hub import download
from deployments.checkpoints.layout import layout_of
from deployments.checkpoints.open_clip import (
    borrowed,
    find_text_model,
    find_tokenizer,
    is_current,
)
from deployments.settings import ModelSettings
from tests.checkpoints.checkpoints import FILES, write
from tests.hub import Hub

CONFIG = {"model_cfg": {"embed_dim": 4, "vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": {}}
WEIGHTS = FILES["model.safetensors"]
OWN = {"open_clip_config.json": json.dumps(CONFIG).encode()}
PICKLE = {"open_clip_pytorch_model.bin": b"PK"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        (None, "open_clip"),
        ({"model_type": "clip"}, "transformers"),
        ({"model_type": "bert"}, "open_clip"),  # of the text tower
        ({"model_type": "siglip", "open_clip_model_name": "hf-hub:acme/x"}, "open_clip"),
        ({"architecture": "vit_base_patch32_clip_224"}, "timm"),
        ({"model_type": ["bert"]}, "transformers"),  # which refuses it
    ],
)
def test_the_files_tell_whose_checkpoint_it_is(
    tmp_path: Path, config: dict[str, object] | None, layout: str
) -> None:
    files = OWN | ({} if config is None else {"config.json": json.dumps(config).encode()})
    assert layout_of(write(tmp_path, files)) == layout


def test_a_pickle_is_downloaded_only_where_there_is_nothing_else(hub: Hub) -> None:
    hub.add("acme/both", OWN | PICKLE | {"open_clip_model.safetensors": WEIGHTS})
    hub.add("acme/pickle", OWN | PICKLE | {"model.safetensors": WEIGHTS})
    hub.add("acme/clip", OWN | PICKLE | FILES | {"open_clip_model.safetensors": WEIGHTS})
    assert names(download("acme/both", None)) == {*OWN, "open_clip_model.safetensors"}
    assert names(download("acme/pickle", None)) == {*OWN, *PICKLE}
    assert names(download("acme/clip", None)) == {*OWN, *FILES}


def test_what_a_text_tower_needs_comes_from_the_repositories_it_names(hub: Hub) -> None:
    text = {"hf_model_name": "acme/bert", "hf_tokenizer_name": "acme/words"}
    config = {**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "text_cfg": text}}
    own = {"open_clip_config.json": json.dumps(config).encode()}
    hub.add("acme/oc", own | {"open_clip_model.safetensors": WEIGHTS})
    bert = {"config.json": b'{"model_type": "bert"}', "model.safetensors": WEIGHTS}
    commits = {
        "acme/bert": hub.add("acme/bert", bert),
        "acme/words": hub.add("acme/words", {"tokenizer.json": b"{}", "config.json": b"{}"}),
    }
    folder = download("acme/oc", None)
    tower, tokenizer = find_text_model(folder, "acme/bert"), find_tokenizer(folder, "acme/words")
    assert tower is not None
    assert tokenizer is not None
    assert names(tower) == {"config.json"}
    assert names(tokenizer) == {"tokenizer.json"}
    assert borrowed(Checkpoint("acme/oc", None, folder)) == commits
    assert all(is_current(id, commit) for id, commit in commits.items())
    assert not is_current("acme/bert", commits["acme/words"])
    assert is_current("acme/elsewhere", "any")


def test_a_name_is_read_as_openclips_whatever_else_the_repository_holds(hub: Hub) -> None:
    id = "timm/vit_base_patch32_clip_224.openai"
    timms = {"config.json": b'{"architecture": "vit"}', "model.safetensors": WEIGHTS}
    commit = hub.add(id, timms | OWN | {"open_clip_model.safetensors": WEIGHTS})
    found = find_checkpoint(ModelSettings(id="ViT-B-32__openai"))
    assert (found.id, found.revision, found.layout) == ("ViT-B-32__openai", commit, "open_clip")
    assert "model.safetensors" not in names(found.folder)
    assert find_checkpoint(ModelSettings(id=id)).layout is None


def test_names_are_those_of_open_clips_table() -> None:
    from deployments import torchvision_operators

    torchvision_operators.declare()
    from open_clip import pretrained

    left_out = {"ViT-SO400M-14-SigLIP-378__webli", "ViT-B-16-plus-240__laion400m_e32"}
    for model, tag in pretrained.list_pretrained():
        name = f"{model}__{tag}"
        repository = str(pretrained.get_pretrained_cfg(model, tag)["hf_hub"])
        if name in left_out or not repository.endswith("/"):
            with pytest.raises(CheckpointError, match=r"set model\.id to "):
                open_clip_names.repository(name)
        else:
            assert f"{open_clip_names.repository(name)}/" == repository


def test_immichs_hyphens_are_understood() -> None:
    id = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert open_clip_names.repository("ViT-B-32__laion2b-s34b-b79k") == id
    assert open_clip_names.names_of(ModelSettings(id=id)) == (
        "ViT-B-32__laion2b-s34b-b79k",
        "ViT-B-32__laion2b_s34b_b79k",
    )


def test_an_unknown_name_is_refused_with_its_neighbours() -> None:
    with pytest.raises(CheckpointError, match=r"set model\.id to ViT-B-32__openai"):
        find_checkpoint(ModelSettings(id="ViT-B-33__openai"))


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(id="timm/vit_base_patch32_clip_224.openai"),  # timm's, without texts
        ModelSettings(id="laion/CLIP-ViT-B-32-laion2B-s34B-b79K", pooling="cls"),
        ModelSettings(id="acme/vit"),
    ],
)
def test_other_vectors_do_not_answer_to_a_name(settings: ModelSettings) -> None:
    assert open_clip_names.names_of(settings) == ()
