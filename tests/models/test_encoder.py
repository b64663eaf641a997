"""Pixels and tokens become the model's own vectors, and what does not fit is refused."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.models.encoder import Encoder
from deployments.models.families import Family
from deployments.models.spec import Preprocessing
from deployments.models.towers import ImageTower
from deployments.settings import ModelSettings
from deployments.wire import PixelSpec, ProcessorSpec, TextSpec
from tests.models.conftest import Tiny

Changed = Callable[..., Path]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = Preprocessing(
    pixels=PixelSpec(resize=("exact", 4, 6), resample=3, crop=None),
    scale=tuple(1 / 255 / std for std in STD),  # type: ignore[arg-type]
    shift=tuple(-mean / std for mean, std in zip(MEAN, STD, strict=True)),  # type: ignore[arg-type]
)
POOLER = Family("pooler", ())


class FakeModel(torch.nn.Module):
    """Gives its input back as the pooled vector, and remembers the batch sizes."""

    def __init__(self, change: Callable[[torch.Tensor], Any] = lambda flat: flat) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.change = change
        self.sizes: list[int] = []

    def forward(self, pixel_values: torch.Tensor) -> Any:
        self.sizes.append(len(pixel_values))
        return SimpleNamespace(pooler_output=self.change(pixel_values.flatten(1)))


class FakeTextTower(torch.nn.Module):
    """Gives the first token of each text back, as often as `dimensions` says."""

    def __init__(self, dimensions: int = 72) -> None:
        super().__init__()
        self.dimensions = dimensions

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, :1].float().expand(-1, self.dimensions)


def encode(
    model: torch.nn.Module | None = None, spec: Preprocessing = SPEC, **options: Any
) -> Encoder:
    tower = ImageTower(model or FakeModel(), POOLER, spec)
    checkpoint = Checkpoint("fake", None, Path("fake"))
    options = {"text_tower": None, **options}
    return Encoder(tower, checkpoint=checkpoint, family=POOLER, preprocessing=spec, **options)


def encode_both(tower: torch.nn.Module | None = None) -> Encoder:
    text = TextSpec(max_tokens=5, score="softmax", logit_scale=1.0, logit_bias=0.0)
    return encode(text_tower=tower or FakeTextTower(), text=text, tokenizer_json="{}")


def load(folder: Path, **settings: Any) -> Encoder:
    return Encoder.load(ModelSettings(id=str(folder), precision="float32", **settings))


def noise(size: int, height: int = 224, width: int = 224) -> NDArray[np.uint8]:
    shape = (size, height, width, 3)
    return np.random.default_rng(size).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# Images


def test_scaling_inside_the_graph_is_the_processors_arithmetic() -> None:
    pixels = np.arange(4 * 4 * 6 * 3, dtype=np.uint8).reshape(4, 4, 6, 3)  # every value, 0 to 255
    exact = (pixels.astype(np.float64) / 255 - MEAN) / STD
    expected = exact.transpose(0, 3, 1, 2).reshape(4, -1)
    np.testing.assert_allclose(encode().embed(pixels), expected, atol=1e-6)


def test_channels_are_flipped_after_they_were_scaled() -> None:
    pixels = noise(2, 4, 6)
    straight = encode().embed(pixels).reshape(2, 3, 24)
    flipped = encode(spec=replace(SPEC, flip_channels=True)).embed(pixels).reshape(2, 3, 24)
    np.testing.assert_array_equal(flipped, straight[:, ::-1])


def test_what_a_processor_made_is_taken_as_it_is() -> None:
    own = ProcessorSpec(name="Acme", config="{}", size=(4, 6))
    encoder = encode(spec=Preprocessing(own, scale=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0)))
    values = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    expected = values.transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_array_equal(encoder.embed(values), expected)
    encoder.warm_up(1)
    with pytest.raises(ValueError, match="should be float32"):
        encoder.embed(noise(2, 4, 6))


def test_pixels_are_scaled_in_float32_whatever_the_model_runs_in() -> None:
    tower = ImageTower(FakeModel(), POOLER, SPEC)
    before = tower.scale.clone()
    tower.to(torch.bfloat16).to("cpu")
    assert tower.scale.dtype == tower.shift.dtype == torch.float32
    torch.testing.assert_close(tower.scale, before, atol=0, rtol=0)
    vectors = tower(torch.from_numpy(noise(2, 4, 6)))
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, vectors.bfloat16().float())  # rounded on the way in, once


def test_the_bundled_model_tells_what_it_is(encoder: Encoder) -> None:
    assert encoder.dimensions == 1280
    assert encoder.checkpoint.id == "efficientnet-lite0"
    assert encoder.device in ("cpu", "cuda:0")
    assert encoder.device_reason.startswith(f"{encoder.device}, because ")
    assert encoder.precision_reason
    assert encoder.text is None
    assert encoder.tokenizer_json is None


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
    encoder = encode()
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
        encode().embed(pixels)


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
    "change",
    [lambda flat: flat[:, None], lambda flat: flat.sum(0)[None, None], lambda flat: flat[0]],
)
def test_a_model_without_one_vector_per_image_is_refused(change: Any) -> None:
    with pytest.raises(CheckpointError, match="gives no one vector for an image of 4 x 6"):
        encode(FakeModel(change))


def test_a_model_that_takes_no_images_is_refused() -> None:
    with pytest.raises(CheckpointError, match="cannot embed an image of 4 x 6 pixels"):
        encode(torch.nn.Linear(3, 3))


# Texts


def test_texts_are_filled_up_as_the_family_does_and_do_not_depend_on_their_batch(
    tiny: Tiny,
) -> None:
    for name in ("CLIP", "SigLIP", "SigLIP 2", "AltCLIP"):
        encoder = load(tiny(name))
        long = np.array([[5, 6, 7, 8, 9, 10, 2]], np.int32)
        short = np.array([[5, 6, 2, -1, -1, -1, -1]], np.int32)
        both = encoder.embed_text(np.concatenate([long, short]))
        np.testing.assert_allclose(both[0], encoder.embed_text(long)[0], atol=1e-5)
        np.testing.assert_allclose(both[1], encoder.embed_text(short[:, :3])[0], atol=1e-5)
        assert (both.dtype, both.shape) == (np.float32, (2, encoder.dimensions))


def test_padding_in_front_is_for_tokenizers_that_say_so(tiny: Tiny) -> None:
    from deployments.models.families import choose_family
    from deployments.models.loading import load_model
    from deployments.models.towers import TextTower

    checkpoint = Checkpoint("acme", None, tiny("SigLIP"))
    family = choose_family(checkpoint, "auto")
    assert family.text is not None
    model = load_model(checkpoint, family)
    behind, before = (
        TextTower(model, family.text, max_tokens=64, pad_id=1, pad_left=left)
        for left in (False, True)
    )
    tokens = torch.tensor([[7, 8, 9, -1], [5, -1, -1, -1]], dtype=torch.int32)
    filled = torch.full((2, 64), 1, dtype=torch.int32)
    filled[0, 61:], filled[1, 63] = torch.tensor([7, 8, 9]), 5
    with torch.inference_mode():
        torch.testing.assert_close(before(tokens), behind(filled))


def test_the_towers_share_no_weights(tiny: Tiny) -> None:
    encoder = load(tiny("CLIP"))
    images, texts = (
        {id(value) for value in tower.parameters()}  # type: ignore[union-attr]
        for tower in (encoder.image_tower, encoder.text_tower)
    )
    assert images
    assert texts
    assert not images & texts


def test_read_only_tokens_are_taken() -> None:
    tokens = np.array([[3, 4], [5, -1]], np.int32)
    tokens.flags.writeable = False
    assert encode_both().embed_text(tokens)[:, 0].tolist() == [3, 5]


@pytest.mark.parametrize(
    "tokens",
    [
        np.zeros((2, 6), np.int32),
        np.zeros((2, 0), np.int32),
        np.zeros((2, 3), np.int64),
        np.zeros(3, np.int32),
    ],
)
def test_tokens_of_another_shape_or_type_are_a_mistake(tokens: Any) -> None:
    with pytest.raises(ValueError, match=r"should be int32 \(N, 1 to 5\), not "):
        encode_both().embed_text(tokens)


def test_a_text_without_a_token_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="should begin with a token"):
        encode_both().embed_text(np.array([[3, 4], [-1, -1]], np.int32))


def test_texts_for_a_model_without_a_text_tower_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="no text tower"):
        encode().embed_text(np.ones((1, 1), np.int32))


def test_warming_up_refuses_texts_vectors_that_are_not_finite() -> None:
    encoder = encode_both()
    encoder.warm_up_text(3)
    encoder.text_tower = FakeTextTower(dimensions=71)
    with pytest.raises(CheckpointError, match="not one for each item of a batch of 3"):
        encoder.warm_up_text(3)


def test_vectors_of_texts_and_images_of_different_lengths_are_refused() -> None:
    with pytest.raises(CheckpointError, match="72 numbers for an image and 71 for a text"):
        encode_both(FakeTextTower(dimensions=71))


def test_a_dual_encoder_tells_the_ingress_what_it_needs_for_texts(tiny: Tiny) -> None:
    from tokenizers import Tokenizer

    encoder = load(tiny("SigLIP"))
    assert encoder.text == TextSpec(
        max_tokens=64,
        score="sigmoid",
        logit_scale=pytest.approx(20),  # type: ignore[arg-type]
        logit_bias=-2.0,
    )
    assert encoder.tokenizer_json is not None
    assert Tokenizer.from_str(encoder.tokenizer_json).encode("a cat").ids


# Loading


def test_a_checkpoint_at_odds_with_its_preprocessor_is_refused(changed: Changed) -> None:
    folder = changed("ViT", processor={"size": {"height": 40, "width": 40}})
    with pytest.raises(CheckpointError, match="cannot embed an image of 40 x 40 pixels"):
        load(folder)


def test_the_identity_is_that_of_weights_and_ways_and_not_of_the_place(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder = tiny("ViT")
    copy = shutil.copytree(folder, tmp_path / folder.name)
    identity = load(folder).identity()
    assert load(copy).identity() == identity
    other = Encoder.load(ModelSettings(id=str(copy), precision="bfloat16"))
    assert other.precision == "bfloat16"
    assert other.identity() == identity
    assert load(copy, pooling="mean").identity() != identity
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert load(copy).identity() != identity


def test_the_configured_number_of_threads_is_used(tiny: Tiny) -> None:
    load(tiny("ViT"), threads=1)
    assert torch.get_num_threads() == 1


def test_the_device_can_be_pinned_to_the_cpu(tiny: Tiny) -> None:
    encoder = load(tiny("ViT"), device="cpu")
    assert encoder.device == "cpu"
    assert encoder.device_reason == "this process runs on the CPU"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(CheckpointError, match=r"model\.device is 'cuda', but this P"):
        Encoder.load(ModelSettings(id="/none", device="cuda"))
