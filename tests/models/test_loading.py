"""A checkpoint is loaded without running its own code or using a random weight."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.models.families import choose_family
from deployments.models.loading import load_model
from tests.models.conftest import Tiny, update

Changed = Callable[..., Path]


def load(folder: Path, pooling: Any = "auto") -> Any:
    checkpoint = Checkpoint("acme", None, folder)
    return load_model(checkpoint, choose_family(checkpoint, pooling))


def test_weights_of_half_precision_are_loaded_as_float32(changed: Changed) -> None:
    folder = changed("ViT")
    weights = load_file(folder / "model.safetensors")
    halves = {name: values.half() for name, values in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    update(folder / "config.json", {"dtype": "float16"})
    model = load(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training


@pytest.mark.parametrize("named", ["flash_attention_2", "kernels-community/flash-attn2", 5])
def test_a_files_attention_is_passed_over(changed: Changed, named: object) -> None:
    model = load(changed("CLIP", config={"attn_implementation": named}))
    assert model.vision_model.config._attn_implementation == "sdpa"


def test_heads_and_decoders_are_dropped_without_a_word(
    tiny: Tiny, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert type(load(tiny("EfficientNet"))).__name__ == "EfficientNetModel"
    assert type(load(tiny("ViT-MAE"))).__name__ == "ViTMAEModel"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "pooling", "missing"),
    [
        ("ViT", "auto", "layernorm.weight"),
        ("BEiT", "auto", "pooler.layernorm.weight"),
        ("ViT, classifier", "pooler", "pooler.dense.weight"),
        ("CLIP", "auto", "visual_projection.weight"),
        ("CLIP", "auto", "text_model.final_layer_norm.weight"),
        ("CLIP", "auto", "logit_scale"),
        ("CLIP", "mean", "vision_model.pre_layrnorm.weight"),
        ("SigLIP", "auto", "logit_bias"),
        ("ALIGN", "auto", "temperature"),
        ("FLAVA", "auto", "image_projection.weight"),
        ("CvT", "auto", "layernorm.weight"),
        ("data2vec", "auto", "pooler.layernorm.weight"),
    ],
)
def test_a_missing_weight_that_is_used_is_never_left_random(
    changed: Changed, name: str, pooling: str, missing: str
) -> None:
    prefixes = ("", "vit.", "beit.", "flava.", "data2vec_vision.")
    without = () if name == "ViT, classifier" else tuple(f"{p}{missing}" for p in prefixes)
    folder = changed(name, without=without)
    with pytest.raises(CheckpointError) as refused:
        load(folder, pooling)
    assert "'acme': its files lack" in str(refused.value)
    assert missing in str(refused.value)
    assert ("another model.pooling (" in str(refused.value)) == (name != "CvT")  # it has no other


@pytest.mark.parametrize(
    ("name", "pooling", "missing"),
    [
        ("ViT", "auto", ("pooler.",)),
        ("ViT", "mean", ("pooler.",)),
        ("DeiT", "auto", ("pooler.",)),
        ("BEiT", "mean", ("beit.pooler.",)),
        ("Hiera", "mean", ("hiera.pooler.",)),
        ("ALIGN", "auto", ("text_model.pooler.",)),
        ("CLIP", "pooler", ("text_", "visual_projection", "logit_scale")),
        ("SigLIP", "mean", ("text_model.", "logit_")),
        ("FLAVA", "auto", ("flava.multimodal_model.", "flava.image_model.pooler.", "mlm_head.")),
    ],
)
def test_a_missing_weight_that_is_not_used_does_not_matter(
    changed: Changed, name: str, pooling: str, missing: tuple[str, ...]
) -> None:
    load(changed(name, without=missing), pooling)


def test_parts_that_a_pooling_does_not_need_are_not_loaded(tiny: Tiny) -> None:
    whole, vision = load(tiny("CLIP")), load(tiny("CLIP"), "mean")
    names = {name.partition(".")[0] for name in vision.state_dict()}
    assert names == {"vision_model"}
    assert {name.partition(".")[0] for name in whole.state_dict()} == {
        *("vision_model", "visual_projection", "text_model", "text_projection", "logit_scale")
    }


def test_weights_of_the_wrong_shape_are_refused(changed: Changed) -> None:
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        load(changed("ViT", config={"intermediate_size": 48}))


def test_a_repositorys_own_code_is_not_run(changed: Changed, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    own = {"AutoModel": "acme.Acme", "AutoConfig": "acme.AcmeConfig"}
    folder = changed("ViT", config={"model_type": "acme", "auto_map": own})
    (folder / "acme.py").write_text(f"open({str(marker)!r}, 'w')")
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        load(folder, "cls")
    assert not marker.exists()


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("CLIP", "vision_model.encoder.layers.0.self_attn.q_proj.weight_scale"),
        ("CLIP", "text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"),
        ("DINOv2", "embeddings.register_tokens"),
        ("ViT", "encoder.layer.0.attention.attention.query.lora_A.default.weight"),
        ("ViT, classifier", "vit.encoder.layer.0.attention.attention.query.lora_A.default.weight"),
        ("Swin", "swin.encoder.layers.0.blocks.0.attention.self.query.weight_scale"),
    ],
)
def test_a_weight_of_a_used_part_that_nothing_reads_is_refused(
    changed: Changed, name: str, extra: str
) -> None:
    folder = changed(name)
    rewrite(folder, lambda weights: weights.update({extra: torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"hold 1 weights .* does not read"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "ending"), [("DINOv2", "mask_token"), ("ResNet", "num_batches_tracked")]
)
def test_what_is_read_in_training_alone_may_be_missing(
    changed: Changed, name: str, ending: str
) -> None:
    folder = changed(name)

    def leave_out(weights: dict[str, torch.Tensor]) -> None:
        gone = [key for key in weights if key.endswith(ending)]
        assert gone
        for key in gone:
            del weights[key]

    rewrite(folder, leave_out)
    assert load(folder) is not None


def test_a_class_of_the_repositorys_own_is_refused(changed: Changed) -> None:
    """Its own code may do more than the class of transformers, which would be loaded instead."""
    folder = changed("CLIP", config={"architectures": ["LLM2CLIPModel"]})
    with pytest.raises(CheckpointError, match=r"config\.json: the model is a LLM2CLIPModel, which"):
        load(folder)
