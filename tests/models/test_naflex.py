"""Images of every aspect ratio share batches, and none of them changes another's vector."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Siglip2VisionConfig
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models import ir
from deployments.models.encoder import Encoder
from deployments.models.graphs import GraphTower
from deployments.models.layouts.naflex import PatchEmbeddings
from deployments.pixels.patches import cut
from deployments.wire import PatchSpec, Pixels
from tests.models.conftest import Exported, Tiny
from tests.models.encoders import load
from tests.models.gpu import FakeRecorder
from tests.models.odd_images import picture
from tests.models.reference import TransformersReference, image_processor

pytestmark = pytest.mark.usefixtures("threads")

Changed = Callable[..., Path]

NAFLEX = "SigLIP 2 NaFlex"
# (width, height), whose grids are narrow and wide, nearly full and half empty.
SIZES = ((256, 256), (640, 80), (80, 640), (9, 7), (1000, 4), (31, 33), (2000, 90))
IMAGES = [Image.fromarray(picture(*size, seed=seed)) for seed, size in enumerate(SIZES)]


def cut_all(encoder: Encoder) -> Pixels:
    spec = encoder.preprocessing.pixels
    assert isinstance(spec, PatchSpec)
    return np.stack([cut(image, spec) for image in IMAGES])


@pytest.fixture(scope="module")
def encoder(tiny: Tiny) -> Encoder:
    return load(tiny(NAFLEX))


def test_a_vector_is_the_same_alone_and_in_a_batch_of_mixed_shapes(encoder: Encoder) -> None:
    stack = cut_all(encoder)
    alone = np.concatenate([encoder.encode(image[None]) for image in stack])
    np.testing.assert_allclose(encoder.encode(stack), alone, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(stack))
    np.testing.assert_allclose(encoder.encode(stack[order]), alone[order], atol=1e-5)


def test_what_is_behind_an_images_last_patch_does_not_count(encoder: Encoder) -> None:
    stack = cut_all(encoder)
    before = encoder.encode(stack)
    spec = encoder.preprocessing.pixels
    assert isinstance(spec, PatchSpec)
    for image, number in zip(stack, spec.grids(stack).prod(axis=1), strict=True):
        image[1 + number :] = 255
        assert number <= 256
    np.testing.assert_allclose(encoder.encode(stack), before, atol=1e-5)
    stack[:, 1] = 255
    assert np.abs(encoder.encode(stack) - before).max(axis=1).min() > 1e-3


def test_the_same_patches_in_another_grid_are_another_image(encoder: Encoder) -> None:
    stack = np.repeat(cut_all(encoder)[:1], 2, axis=0)
    assert stack[0, 0].reshape(-1)[:4].tolist() == [16, 0, 16, 0]
    stack[1, 0].reshape(-1)[:4] = [8, 0, 32, 0]
    one, other = encoder.encode(stack)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.slow
def test_exported_models_take_every_shape_too(encoder: Encoder, exported: Exported) -> None:
    stack = cut_all(encoder)
    expected = encoder.encode(stack)
    model = ir.read(exported(NAFLEX).tower("image", "float32"))
    compiled = ir.compile(model, "float32", threads=1)
    np.testing.assert_allclose(ir.run(compiled, stack), expected, atol=2e-5)
    np.testing.assert_allclose(ir.run(compiled, stack[4:5]), expected[4:5], atol=2e-5)


@pytest.mark.parametrize("side", [16, 5])
def test_positions_are_those_of_transformers_in_every_grid(side: int) -> None:
    config = Siglip2VisionConfig(
        hidden_size=8, num_attention_heads=1, num_patches=side**2, patch_size=2
    )
    own = Siglip2VisionEmbeddings(config)
    torch.nn.init.normal_(own.position_embedding.weight)
    most = 300
    # Not those of one column: torch 2.13 gives all of its rows the same on a CPU, because of the
    # order in which transformers keeps the table in memory.
    shapes = [(h, w) for h in range(1, most // 2 + 1) for w in {2, max(2, most // h)}]
    grids = torch.tensor([shape for shape in shapes if shape[0] * shape[1] <= most])
    nothing = torch.zeros(len(grids), most, 12)
    with torch.inference_mode():
        found, expected = PatchEmbeddings(own)(nothing, grids), own(nothing, grids)
    shown = torch.arange(most) < grids.prod(1, keepdim=True)
    torch.testing.assert_close(found[shown], expected[shown], atol=1e-5, rtol=0)
    assert found.isfinite().all()


def test_positions_in_one_column_are_those_of_one_row(encoder: Encoder) -> None:
    embeddings: Any = encoder.image_tower.vision.backbone.embeddings  # type: ignore[union-attr]
    table = embeddings.position_embedding.weight.data
    nothing = torch.zeros(1, 256, 768)
    with torch.inference_mode():
        row = embeddings(nothing, torch.tensor([[1, 100]]))[0, :100]
        kept = table.clone()
        table.copy_(kept.view(16, 16, -1).transpose(0, 1).reshape(256, -1))
        column = embeddings(nothing, torch.tensor([[100, 1]]))[0, :100]
        table.copy_(kept)
    torch.testing.assert_close(row, column, atol=1e-5, rtol=0)


def test_a_batch_filled_up_for_cuda_graphs_has_the_same_vectors(encoder: Encoder) -> None:
    stack = torch.from_numpy(cut_all(encoder)[:5])
    with torch.inference_mode():
        found = GraphTower(encoder.image_tower, FakeRecorder)(stack)
        torch.testing.assert_close(found, encoder.image_tower(stack), atol=1e-5, rtol=0)


def test_mean_pooling_is_over_the_patches_that_an_image_has(tiny: Tiny) -> None:
    folder = tiny(NAFLEX)
    encoder = load(folder, pooling="mean")
    assert encoder.text is None
    found = encoder.encode(cut_all(encoder))
    model = TransformersReference(folder).model.vision_model
    process = image_processor(folder)
    for image, vector in zip(IMAGES, found, strict=True):
        inputs = process(image)
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state[inputs["pixel_attention_mask"] == 1]
        np.testing.assert_allclose(vector, hidden.mean(dim=0), atol=2e-5)


def test_more_patches_give_the_vectors_of_a_processor_that_makes_them(
    tiny: Tiny, changed: Changed
) -> None:
    finer, theirs = (
        load(tiny(NAFLEX), max_num_patches=300),
        changed(NAFLEX, processor={"max_num_patches": 300}),
    )
    found = finer.encode(cut_all(finer))
    np.testing.assert_allclose(found, TransformersReference(theirs).images(IMAGES), atol=2e-5)


def test_another_number_of_patches_is_another_identity(encoder: Encoder, tiny: Tiny) -> None:
    folder = tiny(NAFLEX)
    assert load(folder, max_num_patches=64).identity() != encoder.identity()
    assert load(folder, max_num_patches=256).identity() == encoder.identity()


def test_other_models_refuse_a_number_of_patches(tiny: Tiny) -> None:
    with pytest.raises(CheckpointError, match=r"max_num_patches is set, but .* of one size; rem"):
        load(tiny("SigLIP 2"), max_num_patches=64)


@pytest.mark.parametrize(
    ("name", "processor"),
    [
        (
            NAFLEX,
            {"image_processor_type": "SiglipImageProcessor", "size": {"height": 64, "width": 64}},
        ),
        ("SigLIP 2", {"image_processor_type": "Siglip2ImageProcessor"}),
    ],
)
def test_a_model_with_another_ones_processor_is_refused(
    changed: Changed, name: str, processor: dict[str, Any]
) -> None:
    folder = changed(name, processor=processor)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: its image processor is"):
        load(folder)


def test_patches_of_another_size_than_the_models_are_refused(changed: Changed) -> None:
    with pytest.raises(CheckpointError, match=r"cannot embed an image of 128 x 128 pixels"):
        load(changed(NAFLEX, processor={"patch_size": 8}))


def test_a_checkpoint_without_its_text_half_embeds_images(
    encoder: Encoder, changed: Changed
) -> None:
    found = load(changed(NAFLEX, without=("text_", "logit_")))
    assert found.text is None
    np.testing.assert_array_equal(found.encode(cut_all(found)), encoder.encode(cut_all(encoder)))


def test_a_classifiers_vector_is_the_mean_that_its_head_reads(changed: Changed) -> None:
    folder = changed(NAFLEX, config={"architectures": ["Siglip2ForImageClassification"]})
    file = folder / "model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if not k.startswith(("text_", "logit_"))}
    kept["classifier.weight"] = torch.zeros(2, 2)
    save_file(kept, file, metadata={"format": "pt"})
    found, mean = load(folder), load(folder, pooling="mean")
    np.testing.assert_array_equal(found.encode(cut_all(found)), mean.encode(cut_all(mean)))


def test_a_vision_model_without_its_head_says_so(changed: Changed) -> None:
    folder = changed(
        f"{NAFLEX}, vision alone", config={"vision_use_head": False}, without=("head.",)
    )
    with pytest.raises(CheckpointError, match=r"has no pooler; choose another model\.pooling"):
        load(folder)
    load(folder, pooling="mean").warm_up(1)
