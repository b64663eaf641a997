"""uint8 pixels become the model's own vectors, equal to what transformers computes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModel, CLIPImageProcessorPil

from deployments.card import PixelSpec
from deployments.models.checkpoint import Checkpoint, CheckpointError
from deployments.models.encoder import Encoder
from deployments.models.spec import Preprocessing
from deployments.settings import Model
from tests.models.conftest import Prepare

Save = Callable[..., Path]
SPEC = Preprocessing(
    pixels=PixelSpec(resize=("exact", 4, 6), resample=3, crop=None),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    rescale_factor=1 / 255,
)


class FakeModel(torch.nn.Module):
    """Gives its input back as the pooled vector, and remembers the batch sizes."""

    def __init__(self, change: Callable[[torch.Tensor], Any] = lambda flat: flat) -> None:
        super().__init__()
        self.change = change
        self.sizes: list[int] = []

    def forward(self, pixel_values: torch.Tensor) -> Any:
        self.sizes.append(len(pixel_values))
        return SimpleNamespace(pooler_output=self.change(pixel_values.flatten(1)))


def encode(model: torch.nn.Module, spec: Preprocessing = SPEC) -> Encoder:
    return Encoder(model, spec, Checkpoint("fake", None, Path("fake")))


def noise(size: int, height: int = 224, width: int = 224) -> NDArray[np.uint8]:
    shape = (size, height, width, 3)
    return np.random.default_rng(size).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_photos_get_the_vectors_that_transformers_gives(
    encoder: Encoder, bundled_folder: Path, photos: list[Path], prepare: Prepare
) -> None:
    processor = CLIPImageProcessorPil.from_pretrained(bundled_folder)
    images = [Image.open(photo) for photo in photos[8:12]]
    values = processor(images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        model = AutoModel.from_pretrained(bundled_folder).eval()
        expected = model(pixel_values=values).pooler_output.numpy()
    stack = np.stack([prepare(photo, encoder.preprocessing.pixels) for photo in photos[8:12]])
    np.testing.assert_allclose(encoder.embed(stack), expected, atol=5e-5)


def test_scaling_inside_the_graph_is_the_processors_arithmetic() -> None:
    pixels = np.arange(4 * 4 * 6 * 3, dtype=np.uint8).reshape(4, 4, 6, 3)  # every value, 0 to 255
    exact = (pixels.astype(np.float64) / 255 - SPEC.mean) / SPEC.std
    expected = exact.transpose(0, 3, 1, 2).reshape(4, -1)
    np.testing.assert_allclose(encode(FakeModel()).embed(pixels), expected, atol=1e-6)


def test_the_bundled_model_tells_what_it_is(encoder: Encoder) -> None:
    assert encoder.dimensions == 1280
    assert encoder.checkpoint.id == "efficientnet-lite0"
    assert encoder.precision == "float32"
    assert encoder.device in ("cpu", "cuda:0")
    assert encoder.device_reason.startswith(f"{encoder.device}, because ")


@pytest.mark.parametrize("size", [1, 3])
def test_vectors_are_finite_float32_rows_and_not_normalised(encoder: Encoder, size: int) -> None:
    vectors = encoder.embed(noise(size))
    assert (vectors.dtype, vectors.shape) == (np.float32, (size, 1280))
    assert np.isfinite(vectors).all()
    assert np.linalg.norm(vectors, axis=1).min() > 2


def test_a_vector_does_not_depend_on_its_batch(encoder: Encoder) -> None:
    stack = noise(8)
    alone = np.concatenate([encoder.embed(image[None]) for image in stack])
    np.testing.assert_allclose(encoder.embed(stack), alone, atol=2e-5)
    np.testing.assert_allclose(encoder.embed(stack[::-1])[::-1], alone, atol=2e-5)


def test_read_only_pixels_are_taken_and_left_alone() -> None:
    pixels = noise(2, 4, 6)
    pixels.flags.writeable = False
    encoder = encode(FakeModel())
    np.testing.assert_array_equal(encoder.embed(pixels), encoder.embed(pixels.copy()))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 6, 4, 3), np.uint8),
        np.zeros((1, 3, 4, 6), np.uint8),
        np.zeros((4, 6, 3), np.uint8),
        np.zeros((1, 4, 6, 3), np.float32),
    ],
)
def test_pixels_of_another_shape_or_type_are_a_mistake(pixels: Any) -> None:
    with pytest.raises(ValueError, match=r"should be uint8 \(N, 4, 6, 3\), not "):
        encode(FakeModel()).embed(pixels)


def test_warming_up_runs_every_batch_size() -> None:
    model = FakeModel()
    encoder = encode(model)
    model.sizes.clear()
    encoder.warm_up(5)
    assert model.sizes == [5]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_warming_up_refuses_vectors_that_are_not_finite(value: float) -> None:
    with pytest.raises(CheckpointError, match="not finite"):
        encode(FakeModel(lambda flat: flat * value)).warm_up(2)


@pytest.mark.parametrize(
    "change", [lambda flat: None, lambda flat: flat[:, None], lambda flat: flat.sum(0)[None, None]]
)
def test_a_model_without_one_vector_per_image_is_refused(change: Any) -> None:
    with pytest.raises(CheckpointError, match="no pooled vector of each image"):
        encode(FakeModel(change))


def test_a_model_that_takes_no_images_is_refused() -> None:
    with pytest.raises(CheckpointError, match="cannot embed an image of 4 x 6 pixels"):
        encode(torch.nn.Linear(3, 3))


def reference(folder: Path, pixels: NDArray[np.uint8]) -> tuple[Any, torch.Tensor]:
    """The checkpoint's model, and pixel_values as its preprocessor would make them."""
    values = torch.from_numpy((pixels / 255 - 0.5) / 0.5).permute(0, 3, 1, 2).float()
    return AutoModel.from_pretrained(folder).eval(), values


def test_a_clip_model_gives_its_projected_vector(save: Save, tiny_clip: Any) -> None:
    folder, pixels = save(tiny_clip), noise(2, 32, 32)
    encoder = Encoder.load(Model(id=str(folder)))
    model, values = reference(folder, pixels)
    with torch.inference_mode():
        expected = model.visual_projection(model.vision_model(values).pooler_output)
    assert encoder.dimensions == 24
    np.testing.assert_allclose(encoder.embed(pixels), expected.numpy(), atol=1e-5)


def test_a_vision_transformer_gives_its_pooled_vector(save: Save, tiny_vit: Any) -> None:
    folder, pixels = save(tiny_vit), noise(2, 32, 32)
    encoder = Encoder.load(Model(id=str(folder)))
    model, values = reference(folder, pixels)
    with torch.inference_mode():
        expected = model(values).pooler_output
    assert encoder.dimensions == 32
    np.testing.assert_allclose(encoder.embed(pixels), expected.numpy(), atol=1e-5)


def test_a_checkpoint_at_odds_with_its_preprocessor_is_refused(save: Save, tiny_vit: Any) -> None:
    folder = save(tiny_vit)
    config = folder / "preprocessor_config.json"
    config.write_text(config.read_text().replace("32", "40"))
    with pytest.raises(CheckpointError, match="cannot embed an image of 40 x 40 pixels"):
        Encoder.load(Model(id=str(folder)))


def test_the_configured_number_of_threads_is_used(save: Save, tiny_vit: Any) -> None:
    Encoder.load(Model(id=str(save(tiny_vit)), threads=1))
    assert torch.get_num_threads() == 1


def test_the_device_can_be_pinned_to_the_cpu(save: Save, tiny_vit: Any) -> None:
    encoder = Encoder.load(Model(id=str(save(tiny_vit)), device="cpu"))
    assert encoder.device == "cpu"
    assert encoder.device_reason == "cpu, because model.device says so"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(CheckpointError, match=r"model\.device is 'cuda', but this P"):
        Encoder.load(Model(id="/none", device="cuda"))
