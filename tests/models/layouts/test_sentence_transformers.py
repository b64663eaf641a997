"""A checkpoint of sentence-transformers gives what that library gives: no module is passed over."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deployments.models.encoder import Encoder
from deployments.models.export import prepare
from deployments.models.exported import export_key
from tests.models.comparison import compare, in_openvino, in_torch, unit
from tests.models.conftest import Tiny, in_float32, update
from tests.models.odd_images import odd_images
from tests.models.sentence_transformers_checkpoints import (
    BOTH,
    NORMALIZE,
    PATCHES,
    dense,
    options,
    pooling,
    write_multilingual,
    write_named,
    write_st,
)
from tests.models.sentence_transformers_reference import SentenceTransformersReference

LEAST_COSINE = 0.9999
FILES = {name: odd_images()[name] for name in ("31 x 33", "640 x 480", "RGBA", "CMYK")}
SOME = (
    *("CLIP, 0_CLIPModel", "CLIP, Dense, Normalize", "ViT, class token, Dense"),
    *("ResNet, Dense on patches", "CLIP, multilingual DistilBERT"),
)


def load(folder: Path, **others: Any) -> Encoder:
    return Encoder.load(in_float32(folder, **others))


def pixels(encoder: Encoder) -> Any:
    height, width = encoder.preprocessing.pixels.height_width
    return np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def with_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP, and in `text` a multilingual text model beside it. Not to be changed."""
    folder = tmp_path_factory.mktemp("multilingual")
    write_named("CLIP, multilingual DistilBERT", folder)
    return folder


@pytest.fixture(scope="module")
def with_dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP in the root, and a Dense in 1_Dense. Not to be changed."""
    return write_st(tmp_path_factory.mktemp("dense"), [dense(24, 20)])


def test_a_dense_head_beside_transformers_files_is_not_ignored(
    with_dense: Path, tiny: Tiny
) -> None:
    encoder, bare = load(with_dense), load(tiny("CLIP"))
    assert (bare.dimensions, encoder.dimensions) == (24, 20)
    weights = load_file(with_dense / "1_Dense/model.safetensors")
    weight, bias = weights["linear.weight"].numpy(), weights["linear.bias"].numpy()
    images, tokens = pixels(bare), bare.tokenize(["a cat", "two dogs"])
    np.testing.assert_allclose(
        encoder.encode(images), bare.encode(images) @ weight.T + bias, atol=1e-5
    )
    np.testing.assert_allclose(
        encoder.encode_text(tokens), bare.encode_text(tokens) @ weight.T + bias, atol=1e-5
    )
    assert encoder.identity() != bare.identity()


def test_after_normalize_vectors_have_length_1_even_unnormalised(tmp_path: Path) -> None:
    encoder = load(write_st(tmp_path, [dense(24, 20), NORMALIZE]))
    vectors = encoder.encode(pixels(encoder)), encoder.encode_text(encoder.tokenize(["a", "b"]))
    np.testing.assert_allclose(np.linalg.norm(np.concatenate(vectors), axis=1), 1, atol=1e-6)


def test_images_pool_over_all_tokens_as_the_file_says(tmp_path: Path, tiny: Tiny) -> None:
    """The library's mean has the class token in it; that of `model.pooling` has not."""
    folder = write_st(tmp_path, [pooling("mean")], family="ViT", reading=PATCHES)
    found, patches = load(folder), load(tiny("ViT"), pooling="mean")
    images = pixels(found)
    assert (unit(found.encode(images)) * unit(patches.encode(images))).sum(1).min() < LEAST_COSINE


def test_heads_can_be_cast(with_dense: Path) -> None:
    encoder = load(with_dense)
    images, tokens = pixels(encoder), encoder.tokenize(["a cat", "a dog"])
    before = encoder.encode(images), encoder.encode_text(tokens)
    assert encoder.text_tower is not None
    encoder.image_tower.to(torch.bfloat16)
    encoder.text_tower.to(torch.bfloat16)
    after = encoder.encode(images), encoder.encode_text(tokens)
    for exact, cast in zip(before, after, strict=True):
        assert cast.dtype == np.float32
        assert (unit(exact) * unit(cast)).sum(1).min() > 0.99


def test_texts_are_cut_where_max_seq_length_says(tmp_path: Path) -> None:
    encoder = load(write_st(tmp_path, reading={**BOTH, "max_seq_length": 9}))
    assert encoder.text is not None
    assert encoder.text.max_tokens == 9
    assert encoder.tokenize(["word " * 50]).shape == (1, 9)


def test_without_text_in_the_modalities_only_images_are_embedded(tmp_path: Path) -> None:
    images = {"image": BOTH["modality_config"]["image"]}
    encoder = load(write_st(tmp_path, reading={**BOTH, "modality_config": images}))
    assert encoder.text is None


# The library itself


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_vectors_are_those_of_the_library(tmp_path: Path, name: str) -> None:
    pytest.importorskip("sentence_transformers")
    write_named(name, tmp_path)
    check(tmp_path, compare(in_torch(load(tmp_path, **options(tmp_path))), of(tmp_path), FILES))


@pytest.mark.slow
def test_what_the_library_itself_saves_is_read(tmp_path: Path, tiny: Tiny) -> None:
    library = pytest.importorskip("sentence_transformers")
    saved = tmp_path / "saved"
    clip = library.SentenceTransformer(str(tiny("CLIP")), device="cpu")
    clip.append(library.sentence_transformer.modules.Dense(24, 16))
    clip.save(str(saved), create_model_card=False)
    check(saved, compare(in_torch(load(saved)), of(saved), FILES))


@pytest.mark.slow
def test_an_exported_multilingual_model_gives_the_vectors_of_the_library(
    with_text: Path, home: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    served = in_openvino(*prepare(in_float32(with_text, **options(with_text))))
    check(with_text, compare(served, of(with_text), FILES))


def of(folder: Path) -> SentenceTransformersReference:
    return SentenceTransformersReference(folder)


def check(folder: Path, found: Any) -> None:
    assert found.image >= LEAST_COSINE, folder
    assert found.spread < 0.99
    if found.text is not None:
        assert found.text >= LEAST_COSINE
        assert found.text_spread < 0.99
        assert found.probability < 1e-3


# A text model beside the image model


def test_the_text_model_replaces_the_image_models_text_half(with_text: Path) -> None:
    bare, both = load(with_text), load(with_text, **options(with_text))
    assert bare.text is not None
    assert both.text == replace(bare.text, max_tokens=128)
    images = pixels(bare)
    np.testing.assert_array_equal(bare.encode(images), both.encode(images))
    assert both.tokenizer_json != bare.tokenizer_json
    assert both.encode_text(both.tokenize(["мир", "a cat"])).shape == (2, 24)


def test_the_text_model_is_part_of_the_models_identity(with_text: Path, tmp_path: Path) -> None:
    other = write_multilingual(tmp_path / "text")
    update(other / "2_Dense/config.json", {"activation_function": "torch.nn.Tanh"})
    settings = [
        in_float32(with_text),
        in_float32(with_text, text_id=str(with_text / "text")),
        in_float32(with_text, text_id=str(other)),
    ]
    assert len({Encoder.load(each).identity() for each in settings}) == 3
    assert len({export_key(each) for each in settings}) == 3


def test_a_text_of_a_batch_does_not_depend_on_the_others(with_text: Path) -> None:
    encoder = load(with_text, **options(with_text))
    texts = ["a cat", "a photo of a dog on a table in the park", ""]
    together = encoder.encode_text(encoder.tokenize(texts))
    alone = np.concatenate([encoder.encode_text(encoder.tokenize([text])) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
