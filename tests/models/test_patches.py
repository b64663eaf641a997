"""With `pooling: patches`, an image has a vector for each patch: transformers', in their order."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models.encoder import Encoder
from deployments.models.engines.openvino import OpenvinoEngine
from deployments.models.export import prepare
from deployments.settings import ModelSettings
from tests.models.comparison import compare, in_torch
from tests.models.conftest import Tiny, in_float32, update
from tests.models.encoders import FakeModel, encode
from tests.models.odd_images import odd_images
from tests.models.reference import TransformersReference

FILES = {name: odd_images()[name] for name in ("640 x 480", "31 x 33", "RGBA", "CMYK")}


def load(folder: Path, **others: Any) -> Encoder:
    return Encoder.load(in_float32(folder, pooling="patches", device="cpu", **others))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param("DINOv2", (256, 32), marks=pytest.mark.slow),
        ("DINOv2, registers", (49, 32)),
        ("DINOv3", (49, 32)),
        ("DeiT", (49, 32)),
        ("CLIP", (49, 32)),
        ("SigLIP", (49, 32)),
        ("ConvNeXt", (49, 32)),
        ("DINOv3, ConvNeXt", (49, 32)),
        ("Swin", (49, 64)),
    ],
)
def test_patches_are_the_last_hidden_state_of_transformers(
    tiny: Tiny, name: str, shape: tuple[int, int]
) -> None:
    encoder = load(tiny(name))
    assert (encoder.vectors_per_image, encoder.dimensions) == shape
    assert encoder.text is None
    found = compare(in_torch(encoder), TransformersReference(tiny(name), patches=True), FILES)
    # DINOv3's own processor does not round to whole grey levels, which shows in single patches.
    assert found.image >= (0.9998 if "DINOv3" in name else 0.99999)
    assert found.spread < 0.9


@pytest.mark.parametrize("name", ["DINOv2", "BEiT", "ViT-MAE", "Swin", "Hiera", "ConvNeXt"])
def test_patches_come_row_by_row(tiny: Tiny, name: str) -> None:
    encoder = load(tiny(name))
    side = round((encoder.vectors_per_image or 0) ** 0.5)
    height, width = encoder.preprocessing.pixels.height_width
    plain = np.random.default_rng(0).integers(90, 160, (1, height, width, 3), dtype=np.uint8)
    for row, column in ((0, side - 1), (side // 2, 1), (side - 1, 0)):
        changed = plain.copy()
        top, left = row * height // side, column * width // side
        changed[0, top : top + height // side, left : left + width // side] += 30
        moved = np.linalg.norm(encoder.encode(changed) - encoder.encode(plain), axis=2)
        assert moved.argmax() == row * side + column


@pytest.mark.slow
def test_an_export_gives_the_same_patches(home: Path, tiny: Tiny) -> None:
    settings = in_float32(tiny("DINOv2"), pooling="patches")
    export, settled = prepare(settings)
    assert export.folder != prepare(in_float32(tiny("DINOv2")))[0].folder
    engine = OpenvinoEngine(export, settled, threads=1)
    assert (engine.loaded.vectors_per_image, engine.loaded.dimensions) == (256, 32)
    probes = export.probes()
    assert probes.image_vectors.shape == (8, 256, 32)

    async def run() -> Any:
        await engine.warm_up(images=2, texts=1)
        await engine.prove()
        return await engine.encode(probes.pixels[:3])

    vectors = asyncio.run(run())
    np.testing.assert_allclose(vectors, probes.image_vectors[:3], atol=1e-4)
    np.testing.assert_allclose(vectors, load(tiny("DINOv2")).encode(probes.pixels[:3]), atol=1e-4)


def test_every_patch_counts_when_a_precision_is_tried(tiny: Tiny) -> None:
    encoder = load(tiny("ViT"), precision="bfloat16")
    assert encoder.vectors_per_image == 49
    assert encoder.precision in ("bfloat16", "float32")


def test_patches_have_an_identity_of_their_own(tiny: Tiny) -> None:
    mean = Encoder.load(in_float32(tiny("ViT"), pooling="mean", device="cpu"))
    assert load(tiny("ViT")).identity() != mean.identity()


def test_a_family_whose_patches_are_unknown_is_refused(tiny: Tiny, changed: Any) -> None:
    folder = changed("ViT")
    update(folder / "config.json", {"model_type": "acme", "architectures": ["Acme"]})
    with pytest.raises(CheckpointError, match="whose pooling raylens does not know"):
        Encoder.load(ModelSettings(id=str(folder), pooling="patches"))


def test_a_model_that_gives_one_vector_where_several_should_be_is_refused() -> None:
    with pytest.raises(CheckpointError, match="does not give several vectors for an image"):
        encode(FakeModel(), several=True)


def test_warming_up_refuses_another_number_of_vectors() -> None:
    model = FakeModel(lambda flat: flat.reshape(len(flat), 3, -1))
    encoder = encode(model, several=True)
    assert (encoder.vectors_per_image, encoder.dimensions) == (3, 24)
    encoder.warm_up(4)
    model.change = lambda flat: flat.reshape(len(flat), 6, -1)
    with pytest.raises(CheckpointError, match="not one for each item"):
        encoder.warm_up(4)
