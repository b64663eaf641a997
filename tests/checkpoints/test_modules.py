"""Checkpoints of sentence-transformers lie in several folders, each of which is looked into."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.hub import download
from deployments.checkpoints.integrity import check_files, fingerprint
from deployments.checkpoints.modules import Module, read_modules
from tests.checkpoints.checkpoints import FILES
from tests.checkpoints.downloads import ID, refused
from tests.hub import Hub

OLD = "sentence_transformers.models."
WEIGHTS = save({"linear.weight": np.arange(6, dtype=np.float32)})


def modules(*entries: tuple[str, str]) -> bytes:
    return json.dumps([{"type": name, "path": path} for name, path in entries]).encode()


def in_folder(place: str) -> dict[str, bytes]:
    return {f"{place}/{name}": content for name, content in FILES.items()}


DENSE = {"1_Dense/config.json": b'{"in_features": 2}', "1_Dense/model.safetensors": WEIGHTS}
V2 = {
    "modules.json": modules((f"{OLD}CLIPModel", "0_CLIPModel"), (f"{OLD}Dense", "1_Dense")),
    "config_sentence_transformers.json": b'{"__version__": {}}',
    **in_folder("0_CLIPModel"),
    **DENSE,
}
ROOT = {
    "modules.json": modules(
        ("sentence_transformers.base.modules.transformer.Transformer", ""),
        ("sentence_transformers.base.modules.dense.Dense", "1_Dense"),
        ("sentence_transformers.base.modules.normalize.Normalize", "2_Normalize"),
    ),
    "sentence_bert_config.json": b'{"max_seq_length": 77}',
    **FILES,
    **DENSE,
}
OTHERS = [
    *("pytorch_model.bin", "README.md", "onnx/model.safetensors", "openvino/config.json"),
    *("0_CLIPModel/pytorch_model.bin", "1_Dense/pytorch_model.bin", "1_Dense/a/config.json"),
    *("train/config.json", "0_CLIPModel/onnx/config.json"),
]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("files", [V2, ROOT], ids=["0_CLIPModel", "root"])
def test_the_modules_folders_are_downloaded_and_no_others(
    hub: Hub, files: dict[str, bytes]
) -> None:
    hub.add(ID, {**dict.fromkeys(OTHERS, b"other"), **files})
    folder = download(ID, None)
    check_files(folder)
    assert files_in(folder) == files.keys()


def test_weights_in_the_root_are_not_downloaded_if_no_module_is_there(hub: Hub) -> None:
    hub.add(ID, {**FILES, **V2})
    assert files_in(download(ID, None)) == {*V2, "config.json"}  # which tells the layout


def test_a_downloaded_model_is_asked_for_once(hub: Hub) -> None:
    hub.add(ID, V2)
    folder = download(ID, None)
    asked = len(hub.asked)
    assert download(ID, None) == folder
    assert not [line for line in hub.asked[asked:] if "/resolve/" in line]


def test_a_pickled_head_on_the_hub_is_refused(hub: Hub) -> None:
    files = {n.replace("1_Dense/model.safetensors", "1_Dense/a.bin"): c for n, c in V2.items()}
    hub.add(ID, files)
    sentence = refused()
    assert "1_Dense/model.safetensors: the file is missing" in sentence
    assert "safetensors alone, because pickles" in sentence


@pytest.mark.parametrize("name", ["0_CLIPModel/config.json", "1_Dense/model.safetensors"])
def test_for_a_damaged_file_the_advice_is_to_delete_the_whole_model(
    hub: Hub, cache: Path, name: str
) -> None:
    hub.add(ID, V2)
    blob = (download(ID, None) / name).resolve()
    blob.write_bytes(blob.read_bytes()[:-4])
    assert refused().endswith(f"delete {cache / 'models--acme--vit'} to have it downloaded again")


@pytest.mark.parametrize("name", ["0_CLIPModel/model.safetensors", "1_Dense/model.safetensors"])
def test_damaged_or_missing_weights_of_a_module_are_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, V2)
    (folder / name).write_bytes(V2[name][:-4])
    with pytest.raises(CheckpointError, match=f"{name}: cut short"):
        check_files(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: the file is missing"):
        check_files(folder)


@pytest.mark.parametrize(
    "name",
    [
        *("modules.json", "config_sentence_transformers.json", "0_CLIPModel/merges.txt"),
        *("1_Dense/config.json", "1_Dense/model.safetensors", "0_CLIPModel/model.safetensors"),
    ],
)
def test_each_file_of_a_module_is_in_the_fingerprint(tmp_path: Path, name: str) -> None:
    before = fingerprint(write(tmp_path, V2))
    (tmp_path / name).write_bytes(V2[name].replace(b"{", b"{ ", 1) + b" ")
    assert fingerprint(tmp_path) != before


@pytest.mark.parametrize("name", ["1_Dense/config.json", "config_sentence_transformers.json"])
def test_without_modules_json_a_folder_of_modules_is_not_whole(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, {**FILES, name: b"{}"})
    with pytest.raises(CheckpointError, match=r"modules\.json: the file is missing, so that the"):
        check_files(folder)


def test_a_modules_json_that_leads_nowhere_is_not_overlooked(tmp_path: Path) -> None:
    folder = write(tmp_path, FILES)
    (folder / "modules.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"modules\.json: the file that it links to is miss"):
        check_files(folder)


def test_an_adapter_beside_a_model_is_not_ignored(tmp_path: Path, hub: Hub) -> None:
    adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS}
    folder = write(tmp_path / "local", FILES | adapter)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: an adapter lies beside"):
        check_files(folder)
    hub.add(ID, FILES | adapter)
    assert "adapter_config.json: an adapter lies beside the weights" in refused()


# modules.json itself


def test_classes_of_all_versions_are_known(tmp_path: Path) -> None:
    names = [
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
        "sentence_transformers.models.LayerNorm",
        "sentence_transformers.models.Dropout",
    ]
    (tmp_path / "modules.json").write_bytes(modules(*((name, "a") for name in names)))
    kinds = ["Transformer", "Pooling", "Normalize", "LayerNorm", "Dropout"]
    assert read_modules(tmp_path) == tuple(Module(kind, "a") for kind in kinds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "sentence_transformers.models.Router",
            "sentence_transformers.models.WeightedLayerPooling",
        ),
        *("sentence_transformers.models.Asym", "custom_st.Transformer", "transformers.CLIPModel"),
        "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling",
        "sentence_transformers.multi_vector_encoder.modules.dense.Dense",
    ],
)
def test_a_module_that_raylens_does_not_have_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "modules.json").write_bytes(modules((f"{OLD}Transformer", ""), (name, "1_x")))
    with pytest.raises(CheckpointError) as caught:
        read_modules(tmp_path)
    assert f"modules.json: the module in '1_x' is a {name}, which raylens" in str(caught.value)


@pytest.mark.parametrize("path", ["../x", "/etc", "..", ".", "a/b", "a*", "[ab]", "a\n"])
def test_modules_are_folders_of_the_checkpoint_alone(tmp_path: Path, path: str) -> None:
    (tmp_path / "modules.json").write_bytes(modules((f"{OLD}Transformer", path)))
    with pytest.raises(CheckpointError, match="which is not a folder in its own"):
        read_modules(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[", b"{}", b"[]", b"[1]", b'[{"type": "x"}]', b'[{"path": ""}]'),
        modules((f"{OLD}Dense", "0_Dense")),
        modules((f"{OLD}Transformer", ""), (f"{OLD}Transformer", "1_Transformer")),
    ],
)
def test_a_list_that_says_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "modules.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"modules\.json: "):
        read_modules(tmp_path)


def test_a_file_of_openclips_beside_a_module_changes_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path, V2 | {"0_CLIPModel/open_clip_config.json": b"{}"})
    (folder / "0_CLIPModel/config.json").write_bytes(b'{"model_type": "bert"}')
    check_files(folder)
    before = fingerprint(folder)
    weights = folder / "0_CLIPModel/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert fingerprint(folder) != before
