"""What raylens does not do of sentence-transformers is refused in a sentence, never passed over."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.checkpoints.integrity import check_files
from deployments.checkpoints.modules import read_modules
from deployments.models.encoder import Encoder
from deployments.models.layouts import choice, sentence_transformers
from deployments.models.layouts.head_files import read_heads
from deployments.models.layouts.reading import read_reading
from deployments.settings import ModelSettings
from tests.models.conftest import Tiny, in_float32, update
from tests.models.sentence_transformers_checkpoints import (
    BOTH,
    PATCHES,
    WHOLE,
    XLM_ROBERTA,
    Head,
    dense,
    pooling,
    write_multilingual,
    write_st,
    write_weights,
)

FILE = "sentence_bert_config.json"


def refused_reading(folder: Path, **keys: Any) -> str:
    (folder / FILE).write_text(json.dumps({**BOTH, **keys}))
    with pytest.raises(CheckpointError, match=FILE) as refused:
        read_reading(folder, "Transformer")
    return str(refused.value)


@pytest.mark.parametrize(
    "keys",
    [
        {"do_lower_case": True},
        {"tokenizer_name_or_path": "acme/other"},
        {"model_args": {"output_hidden_states": True}},
        {"processor_kwargs": {"model_max_length": 9}},
        {"processing_kwargs": {"image": {"size": 336}}},
        {"processing_kwargs": {"text": {"padding": "longest"}}},
        {"processing_kwargs": {"text": [1]}},
        {"model_kwargs": 5},
        {"query_expansion": {"length": 32}},
        {"max_seq_length": 0},
        {"transformer_task": "fill-mask"},
        {"module_output_name": "causal_logits"},
        {"module_output_name": None},
        {"modality_config": {**BOTH["modality_config"], "message": {"method": "forward"}}},
        {"modality_config": {"image": {"method": "forward", "method_output_name": "logits"}}},
        {"modality_config": {"image": "forward"}},
        {"what_is_this": 1},
    ],
    ids=str,
)
def test_another_way_of_reading_is_refused(tmp_path: Path, keys: dict[str, Any]) -> None:
    (name,) = keys
    sentence = refused_reading(tmp_path, **keys)
    assert name in sentence or "does not embed" in sentence


@pytest.mark.parametrize(
    "keys",
    [
        {"max_seq_length": None, "do_lower_case": False, "model_args": {}, "unpad_inputs": None},
        {"model_kwargs": {"attn_implementation": "sdpa", "torch_dtype": "float16"}},
        {"query_length": 32, "document_length": 300, "query_expansion": None},
    ],
    ids=str,
)
def test_what_leaves_vectors_as_they_are_is_not(tmp_path: Path, keys: dict[str, Any]) -> None:
    (tmp_path / FILE).write_text(json.dumps({**BOTH, **keys}))
    read = read_reading(tmp_path, "Transformer")
    assert (read.image, read.text, read.max_tokens) == ("features", "features", None)


def test_a_transformer_of_an_old_version_reads_texts_alone(tmp_path: Path) -> None:
    assert read_reading(tmp_path, "Transformer").image is None
    assert read_reading(tmp_path, "CLIPModel").image == "features"


# Heads


def heads(folder: Path, *written: Head) -> None:
    modules = [{"type": "sentence_transformers.models.CLIPModel", "path": ""}]
    for number, head in enumerate(written, start=1):
        place = folder / f"{number}_{head.kind}"
        place.mkdir()
        (place / "config.json").write_text(json.dumps(head.keys))
        write_weights(place, head)
        modules.append({"type": f"sentence_transformers.models.{head.kind}", "path": place.name})
    (folder / "modules.json").write_text(json.dumps(modules))


def refused_heads(folder: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        read_heads(folder, read_modules(folder)[1:], "sentence_embedding")
    return str(refused.value)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (dense(4, 2, "torch.nn.functional.relu"), "1_Dense/config.json: activation_function is"),
        (dense(4, 2, "acme.modules.Swish"), "1_Dense/config.json: activation_function is"),
        (dense(4, 2, "torch.nn.Linear"), "1_Dense/config.json: activation_function is"),
        (dense(4, 2, temperature=0.1), "1_Dense/config.json: raylens does not know what temp"),
        (dense(4, 2, module_input_name="cls_token_embeddings"), "works on 'cls_token_embeddings'"),
        (dense(4, 2, module_input_name="token_embeddings"), "which nothing before it in modules"),
        (dense(4, 2, use_residual="no"), "1_Dense/config.json: use_residual is 'no'"),
        (pooling("cls"), "1_Pooling/config.json: this Pooling works on token_embeddings"),
    ],
    ids=lambda value: value.kind if isinstance(value, Head) else "",
)
def test_an_unknown_head_is_refused(tmp_path: Path, head: Head, said: str) -> None:
    heads(tmp_path, head)
    assert said in refused_heads(tmp_path)


@pytest.mark.parametrize("mode", ["attention", [], ["mean", "x"], [["mean"]], None])
def test_an_unknown_pooling_is_refused(tmp_path: Path, mode: object) -> None:
    heads(tmp_path, Head("Pooling", {"embedding_dimension": 4, "pooling_mode": mode}))
    assert "1_Pooling/config.json: pooling_mode is" in refused_heads(tmp_path)


@pytest.mark.parametrize(
    "weights",
    [
        {"linear.weight": (2, 4)},
        {"linear.weight": (2, 4), "linear.bias": (2,), "residual.weight": (2, 4)},
        {"linear.weight": (4, 2), "linear.bias": (2,)},
    ],
    ids=["missing", "unread", "of another shape"],
)
def test_weights_are_exactly_those_of_the_configuration(
    tmp_path: Path, weights: dict[str, tuple[int, ...]]
) -> None:
    heads(tmp_path, dense(4, 2))
    tensors = {name: torch.zeros(shape) for name, shape in weights.items()}
    save_file(tensors, tmp_path / "1_Dense/model.safetensors")
    sentence = refused_heads(tmp_path)
    assert "1_Dense/model.safetensors: should hold linear.weight (2, 4)" in sentence


def test_a_head_as_large_as_no_file_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    heads(tmp_path, dense(4, 2))
    update(tmp_path / "1_Dense/config.json", {"in_features": 2**30})
    assert "should hold linear.weight (2, 1073741824)" in refused_heads(tmp_path)


def test_tokens_that_nothing_pools_are_refused(tmp_path: Path) -> None:
    heads(tmp_path)
    with pytest.raises(CheckpointError, match=r"modules\.json: none of its modules makes one"):
        read_heads(tmp_path, read_modules(tmp_path)[1:], "token_embeddings")


# The model as a whole


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_st(tmp_path_factory.mktemp("clip"), [dense(24, 20)])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"default_prompt_name": "query", "prompts": {"query": "query: "}},
            "begin with the prompt",
        ),
        ({"default_prompt_name": "query", "prompts": {}}, "begin with the prompt"),
        ({"similarity_fn_name": "dot"}, "similarity_fn_name is 'dot'"),
        ({"model_type": "SparseEncoder"}, "the model is a SparseEncoder"),
        ({"truncate_dim": "all"}, "truncate_dim is 'all'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_said_of_the_whole_model_is_not_ignored(
    clip: Path, keys: dict[str, Any], said: str
) -> None:
    path = clip / "config_sentence_transformers.json"
    before = path.read_text()
    path.write_text(json.dumps({**WHOLE, **keys}))
    try:
        with pytest.raises(CheckpointError, match=r"config_sentence_transformers\.json: ") as found:
            choice.load(Checkpoint("acme", None, clip), ModelSettings(id=str(clip)))
    finally:
        path.write_text(before)
    assert said in str(found.value)


def refused(folder: Path, **settings: Any) -> str:
    with pytest.raises(CheckpointError) as found:
        Encoder.load(in_float32(folder, **settings))
    return str(found.value)


def test_model_pooling_contradicts_the_modules(clip: Path) -> None:
    assert "model.pooling is 'cls', but modules.json of" in refused(clip, pooling="cls")


def test_texts_padded_to_the_longest_are_refused_where_padding_is_read(tmp_path: Path) -> None:
    sentence = refused(write_st(tmp_path, family="SigLIP"))
    assert f"{FILE}: texts would be padded to the longest of each batch" in sentence
    assert '{"text": {"padding": "max_length", "max_length": 64}}' in sentence


def test_a_text_model_alone_is_refused_with_what_would_do(tmp_path: Path, clip: Path) -> None:
    folder = write_multilingual(tmp_path / "text")
    sentence = refused(folder)
    assert "model 'text' reads texts alone, as " in sentence
    assert "set model.id to that one and model.text_id to this one" in sentence


def test_a_text_model_of_another_space_is_refused(tmp_path: Path, tiny: Tiny) -> None:
    other = write_multilingual(tmp_path / "text", to=23)
    assert "24 numbers for an image and 23 for a text" in refused(tiny("CLIP"), text_id=str(other))


def test_a_text_id_that_is_no_text_model_is_refused(clip: Path, tiny: Tiny, tmp_path: Path) -> None:
    assert "which has no modules.json" in refused(clip, text_id=str(tiny("CLIP")))
    assert "which is no text model alone" in refused(clip, text_id=str(clip))
    text = write_multilingual(tmp_path / "text")
    sentence = refused(tiny("ViT"), text_id=str(text))
    assert "model.id is no model of images and texts, whose logit scale is needed" in sentence
    update(text / "config.json", {"model_type": "gpt2"})
    checkpoint = Checkpoint("clip", None, clip)
    loaded = choice.load(checkpoint, ModelSettings(id=str(clip)))
    with pytest.raises(CheckpointError, match="text models of the family 'gpt2'"):
        sentence_transformers.with_text_of(loaded, Checkpoint("text", None, text))


@pytest.mark.parametrize(
    ("family", "reading", "head"),
    [
        ("SigLIP 2 NaFlex", BOTH, dense(32, 20)),
        ("SigLIP 2 NaFlex, vision alone", PATCHES, pooling("mean")),
    ],
    ids=["features", "hidden"],
)
def test_naflex_before_modules_is_refused(
    tmp_path: Path, family: str, reading: dict[str, Any], head: Head
) -> None:
    folder = write_st(tmp_path, [head], family=family, reading=reading)
    assert "takes patches (NaFlex)" in refused(folder)


def test_a_text_model_whose_positions_depend_on_a_pad_id_that_is_not_there_is_refused(
    tmp_path: Path, tiny: Tiny
) -> None:
    text = write_multilingual(tmp_path / "text", family=XLM_ROBERTA)
    update(text / "config.json", {"pad_token_id": None})
    assert "config.json: pad_token_id is None" in refused(tiny("CLIP"), text_id=str(text))


def test_a_pickled_head_is_refused(tmp_path: Path) -> None:
    folder = write_st(tmp_path, [dense(24, 20)])
    (folder / "1_Dense/model.safetensors").rename(folder / "1_Dense/pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"1_Dense/model\.safetensors: .* pickles"):
        check_files(folder)
