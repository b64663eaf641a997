"""A family is pooled as its authors do; other poolings do what they say; none is guessed."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.models.encoder import Encoder
from deployments.models.families import FAMILIES, choose_family
from deployments.models.layouts.halves import read_text_spec
from deployments.models.loading import load_model
from deployments.settings import ModelSettings
from tests.models.conftest import Tiny
from tests.models.families import TINY, kind
from tests.models.tiny import build

Changed = Callable[..., Path]


def encode(folder: Path, pooling: Any = "auto") -> Encoder:
    return Encoder.load(ModelSettings(id=str(folder), pooling=pooling, precision="float32"))


def noise(encoder: Encoder) -> NDArray[np.uint8]:
    shape = (3, *encoder.preprocessing.pixels.height_width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def chosen(config: dict[str, Any], folder: Path, pooling: Any = "auto") -> Any:
    (folder / "config.json").write_text(json.dumps(config))
    return choose_family(Checkpoint("acme", None, folder), pooling)


def test_every_family_of_the_table_has_a_checkpoint_to_be_tested_with(tiny: Tiny) -> None:
    elsewhere = {"colpali"}  # tests/models/late_interaction.py
    assert {kind(tiny(name)) for name in TINY} == set(FAMILIES) - elsewhere


WITHOUT_POOLER = {"ViT, classifier", "DeiT, classifier", "AIMv2, vision alone"}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_every_pooling_that_a_family_offers_gives_finite_vectors(tiny: Tiny, name: str) -> None:
    folder = tiny(name)
    family = choose_family(Checkpoint(name, None, folder), "auto")
    for pooling in (family.pooling, *family.others):
        if name in WITHOUT_POOLER and pooling == "pooler":
            continue
        encoder = encode(folder, pooling)
        encoder.warm_up(2)
        assert (encoder.text is None) == (family.text is None or pooling != "projection")


# How many tokens come before the patches, according to the papers.
PREFIXES = {"CLIP": 1, "ViT": 1, "DeiT": 2, "BEiT": 1, "DINOv2": 1, "DINOv2, registers": 5}
PREFIXES |= {"DINOv3": 5, "ViT-MAE": 1, "SigLIP": 0, "Swin": 0, "Hiera": 0}
PREFIXES |= {"FLAVA": 1, "ViT-MSN": 1, "I-JEPA": 0, "MLCD": 1, "Pixio": 8, "PVT": 1, "BLIP": 1}


@pytest.mark.parametrize("name", PREFIXES)
def test_mean_pooling_is_over_the_patches_alone(tiny: Tiny, name: str) -> None:
    folder = tiny(name)
    encoder = encode(folder, "mean")
    hidden = hidden_states(encoder, folder)
    expected = hidden[:, PREFIXES[name] :].mean(dim=1)
    np.testing.assert_allclose(encoder.encode(noise(encoder)), expected, atol=2e-5)


@pytest.mark.parametrize("name", ["CLIP", "ViT", "DeiT", "DINOv2, registers"])
def test_cls_pooling_takes_the_first_token(tiny: Tiny, name: str) -> None:
    folder = tiny(name)
    encoder = encode(folder, "cls")
    expected = hidden_states(encoder, folder)[:, 0]
    np.testing.assert_allclose(encoder.encode(noise(encoder)), expected, atol=2e-5)


def test_mean_pooling_of_a_feature_map_is_over_its_positions(tiny: Tiny) -> None:
    folder = tiny("ConvNeXt")
    encoder = encode(folder, "mean")
    expected = hidden_states(encoder, folder).mean(dim=(2, 3))
    np.testing.assert_allclose(encoder.encode(noise(encoder)), expected, atol=2e-5)


def hidden_states(encoder: Encoder, folder: Path) -> torch.Tensor:
    spec = encoder.preprocessing
    values = noise(encoder) * np.array(spec.scale) + np.array(spec.shift)
    pixel_values = torch.from_numpy(values).permute(0, 3, 1, 2).float()
    options = {"mask_ratio": 0.0} if kind(folder) == "vit_mae" else {}
    model = AutoModel.from_pretrained(folder, **options).eval()
    family = FAMILIES.get(kind(folder))
    model = getattr(model, family.part if family else "", model)
    with torch.inference_mode():
        hidden: torch.Tensor = model(pixel_values=pixel_values).last_hidden_state
    return hidden


def test_a_masked_autoencoder_sees_every_patch_and_gives_the_same_bits_twice(tiny: Tiny) -> None:
    encoder = encode(tiny("ViT-MAE"))
    pixels = noise(encoder)
    first = encoder.encode(pixels)
    np.testing.assert_array_equal(encoder.encode(pixels), first)
    for corner in (np.s_[:32, :32], np.s_[-32:, -32:], np.s_[96:128, 96:128]):
        blank = pixels.copy()
        blank[0][corner] = 0
        assert np.abs(encoder.encode(blank)[0] - first[0]).max() > 1e-3


def test_a_pooling_that_the_family_does_not_have_is_refused(tiny: Tiny) -> None:
    said = r"model\.pooling is 'projection', which vit models .* cls, pooler, mean, patches$"
    with pytest.raises(CheckpointError, match=said):
        encode(tiny("ViT"), "projection")
    with pytest.raises(CheckpointError, match=r"may be projection, pooler, mean, patches$"):
        encode(tiny("SigLIP"), "cls")


@pytest.mark.parametrize("pooling", ["auto", "mean", "projection"])
def test_an_unknown_family_is_refused_and_the_known_ones_are_listed(
    tmp_path: Path, pooling: str
) -> None:
    with pytest.raises(CheckpointError) as refused:
        chosen({"model_type": "yolos"}, tmp_path, pooling)
    sentence = str(refused.value)
    assert "model 'acme' is of the family 'yolos'" in sentence
    assert all(family in sentence for family in FAMILIES)
    assert "set model.pooling to cls or pooler" in sentence


def test_an_unknown_family_is_served_with_a_pooling_that_needs_no_knowledge(
    changed: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import ViTMSNConfig, ViTMSNModel

    from tests.models.tiny import VIT

    others = {name: family for name, family in FAMILIES.items() if name != "vit_msn"}
    monkeypatch.setattr("deployments.models.families.FAMILIES", others)
    folder = changed("ViT")
    torch.manual_seed(0)
    model = ViTMSNModel(ViTMSNConfig(**VIT)).eval()
    model.save_pretrained(folder)
    encoder = encode(folder, "cls")
    expected = hidden_states(encoder, folder)[:, 0]
    np.testing.assert_allclose(encoder.encode(noise(encoder)), expected, atol=2e-5)
    with pytest.raises(CheckpointError, match="cannot embed an image"):
        encode(folder, "pooler")  # it has none


def test_a_config_without_a_model_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is of the family 'None'"):
        chosen({"architectures": None}, tmp_path)


@pytest.mark.parametrize("names", [5, [["CLIPModel"]], [{}], True])
def test_architectures_that_are_no_names_name_none(tmp_path: Path, names: object) -> None:
    assert chosen({"architectures": names, "model_type": "vit"}, tmp_path).pooling == "cls"


@pytest.mark.parametrize("name", ["CLIP, vision alone", "CLIP, vision projected"])
def test_without_architectures_the_weights_say_whether_there_is_a_projection(
    tiny: Tiny, changed: Changed, name: str
) -> None:
    folder = changed(name, config={"architectures": None})
    expected, found = encode(tiny(name)), encode(folder)
    assert found.dimensions == expected.dimensions
    np.testing.assert_array_equal(found.encode(noise(found)), expected.encode(noise(expected)))


def test_a_vision_model_without_its_head_says_so(changed: Changed) -> None:
    folder = changed("SigLIP, vision alone", config={"vision_use_head": False}, without=("head.",))
    with pytest.raises(CheckpointError, match=r"has no pooler; choose another model\.pooling"):
        encode(folder)
    encode(folder, "mean").warm_up(1)


@pytest.mark.parametrize("name", ["CLIP, vision alone", "SigLIP, vision alone"])
def test_vision_models_saved_by_older_transformers_give_the_same_vectors(
    tiny: Tiny, changed: Changed, name: str
) -> None:
    from safetensors.torch import load_file, save_file

    folder = changed(name)
    path = folder / "model.safetensors"
    weights = {f"vision_model.{key}": values for key, values in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    new, old = encode(tiny(name)), encode(folder)
    np.testing.assert_array_equal(old.encode(noise(old)), new.encode(noise(new)))


@pytest.mark.parametrize(
    ("name", "max_tokens", "score"),
    [
        ("CLIP", 77, "softmax"),
        ("MetaCLIP 2", 77, "softmax"),
        ("SigLIP", 64, "sigmoid"),
        ("SigLIP 2", 64, "sigmoid"),
        ("SigLIP 2 NaFlex", 64, "sigmoid"),
        ("ALIGN", 64, "softmax"),
        ("AltCLIP", 512, "softmax"),
        ("Chinese-CLIP", 52, "softmax"),
        ("CLIPSeg", 77, "softmax"),
        ("GroupViT", 77, "softmax"),
        ("AIMv2", 77, "softmax"),
        ("FLAVA", 77, "softmax"),
        ("TIPSv2", 64, "softmax"),
        ("BLIP, retrieval", 35, "softmax"),
    ],
)
def test_texts_are_limited_and_scored_as_in_training(
    tiny: Tiny, name: str, max_tokens: int, score: str
) -> None:
    checkpoint = Checkpoint(name, None, tiny(name))
    family = choose_family(checkpoint, "auto")
    assert family.text is not None
    model: Any = load_model(checkpoint, family)
    spec = read_text_spec(model, family.text)
    assert (spec.max_tokens, spec.score) == (max_tokens, score)
    scale = {"ALIGN": 10, "TIPSv2": 10, "BLIP, retrieval": math.exp(2.6592)}.get(name, 20)
    assert spec.logit_scale == pytest.approx(scale)
    assert spec.logit_bias == pytest.approx(-2 if score == "sigmoid" else 0)


@pytest.mark.parametrize("architectures", [["CLIPVisionModel"], ["CLIPModel"], "CLIPVisionModel"])
def test_whatever_config_json_says_the_weights_say_whether_there_is_a_projection(
    tiny: Tiny, changed: Changed, architectures: Any
) -> None:
    folder = changed("CLIP, vision projected", config={"architectures": architectures})
    expected, found = encode(tiny("CLIP, vision projected")), encode(folder)
    np.testing.assert_array_equal(found.encode(noise(found)), expected.encode(noise(expected)))


@pytest.mark.parametrize("name", ["SigLIP", "CLIP"])
@pytest.mark.parametrize("is_projected", [False, True])
def test_a_dual_encoder_saved_without_its_text_half_embeds_images(
    tiny: Tiny, changed: Changed, name: str, is_projected: bool
) -> None:
    folder = changed(name, config={"architectures": ["CLIPVisionModel"]})
    weights = load_file(folder / "model.safetensors")
    gone = ("text_", "logit_") if is_projected else ("text_", "logit_", "visual_projection")
    kept = {name: values for name, values in weights.items() if not name.startswith(gone)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    expected = encode(tiny(name), "auto" if is_projected and name == "CLIP" else "pooler")
    found = encode(folder)
    np.testing.assert_array_equal(found.encode(noise(found)), expected.encode(noise(expected)))
    assert found.text is None


@pytest.mark.parametrize("name", ["SigLIP", "CLIP", "MetaCLIP 2"])
def test_a_classifier_made_of_a_dual_encoders_half_embeds_what_its_head_reads(
    tiny: Tiny, changed: Changed, name: str
) -> None:
    gone = ("text_", "logit_", "visual_projection")
    folder = changed(name, config={"architectures": None}, without=gone)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = torch.zeros(2, 32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    expected, found = encode(tiny(name), "mean"), encode(folder)
    np.testing.assert_array_equal(found.encode(noise(found)), expected.encode(noise(expected)))


@pytest.mark.parametrize("has_head", [False, True])
def test_aimv2_pools_by_its_head_where_it_has_one(tmp_path: Path, has_head: bool) -> None:
    tiny = TINY["AIMv2, vision alone"]
    folder = build(replace(tiny, options={**tiny.options, "use_head": has_head}), tmp_path)
    assert encode(folder).pooling == ("pooler" if has_head else "mean")


def test_blip_embeds_in_the_space_of_its_retrieval_only_where_that_was_trained(
    changed: Changed, tiny: Tiny
) -> None:
    folder = changed("BLIP, retrieval", config={"architectures": ["BlipModel"]})
    expected, found = encode(tiny("BLIP, retrieval")), encode(folder)
    assert found.text is not None
    np.testing.assert_array_equal(found.encode(noise(found)), expected.encode(noise(expected)))
    captioner = encode(tiny("BLIP, captions"))
    assert (captioner.pooling, captioner.text) == ("pooler", None)
