"""Tokens become the model's own vectors, and what does not fit is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.models.encoder import Encoder
from deployments.wire import TextSpec, pad_tokens
from tests.models.conftest import Tiny
from tests.models.encoders import FakeTextTower, encode, encode_both, load

pytestmark = pytest.mark.usefixtures("threads")


def test_texts_are_padded_as_the_family_does_and_do_not_depend_on_their_batch(
    tiny: Tiny,
) -> None:
    for name in ("CLIP", "SigLIP", "SigLIP 2", "AltCLIP"):
        encoder = load(tiny(name))
        long = np.array([[5, 6, 7, 8, 9, 10, 2]], np.int32)
        short = np.array([[5, 6, 2, -1, -1, -1, -1]], np.int32)
        both = encoder.encode_text(np.concatenate([long, short]))
        np.testing.assert_allclose(both[0], encoder.encode_text(long)[0], atol=1e-5)
        np.testing.assert_allclose(both[1], encoder.encode_text(short[:, :3])[0], atol=1e-5)
        assert both.dtype == np.float32
        assert both.shape == (2, encoder.dimensions)


def test_texts_are_padded_on_the_left_where_the_tokenizer_says_so(tiny: Tiny) -> None:
    from deployments.models.families import choose_family
    from deployments.models.layouts.halves import TextTower
    from deployments.models.loading import load_model

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
    assert encode_both().encode_text(tokens)[:, 0].tolist() == [3, 5]


@pytest.mark.parametrize(
    "tokens",
    [
        np.zeros((2, 6), np.int32),
        np.zeros((2, 0), np.int32),
        np.zeros((2, 3), np.int64),
        np.zeros(3, np.int32),
    ],
)
def test_tokens_of_the_wrong_shape_or_type_are_an_error(tokens: Any) -> None:
    with pytest.raises(ValueError, match=r"should be int32 \(N, 1 to 5\), not "):
        encode_both().encode_text(tokens)


def test_a_text_without_a_token_is_an_error() -> None:
    with pytest.raises(ValueError, match="should begin with a token"):
        encode_both().encode_text(np.array([[3, 4], [-1, -1]], np.int32))


def test_texts_for_a_model_without_a_text_tower_are_an_error() -> None:
    with pytest.raises(ValueError, match="no text tower"):
        encode().encode_text(np.ones((1, 1), np.int32))


def test_warming_up_refuses_text_vectors_of_the_wrong_shape() -> None:
    encoder = encode_both()
    encoder.warm_up_text(3)
    encoder.text_tower = FakeTextTower(dimensions=71)
    with pytest.raises(CheckpointError, match="not one for each item of a batch of 3"):
        encoder.warm_up_text(3)


def test_text_and_image_vectors_of_different_lengths_are_refused() -> None:
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


def test_a_clip_whose_tokenizer_has_no_pad_token_is_served(changed: Callable[..., Path]) -> None:
    folder = changed("CLIP")
    expected = load(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    tokens = pad_tokens([[1, 5, 6, 2], [1, 2]])
    assert (load(folder).encode_text(tokens) == expected.encode_text(tokens)).all()


def add_token(folder: Path, number: int, content: str, *, special: bool) -> None:
    """To the tokenizer alone."""
    path = folder / "tokenizer.json"
    written = json.loads(path.read_text())
    token = {"id": number, "content": content, "special": special}
    flags = dict.fromkeys(("normalized", "single_word", "lstrip", "rstrip"), False)
    written["added_tokens"].append({**token, **flags})
    path.write_text(json.dumps(written))


def with_an_added_token(folder: Path) -> None:
    """As textual inversion adds them: behind all others, and in the model's table too."""
    add_token(folder, 700, "<cat-toy>", special=False)
    weights = load_file(folder / "model.safetensors")
    name = "text_model.embeddings.token_embedding.weight"
    weights[name] = torch.cat([weights[name], weights[name][:1] + 0.1])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 701
    (folder / "config.json").write_text(json.dumps(config))


def vectors(encoder: Encoder, *texts: str) -> list[NDArray[np.float32]]:
    return [*encoder.encode_text(encoder.tokenize(texts))]


@pytest.mark.parametrize("eos", [2, 49407, 699])
def test_clip_pools_at_its_tokenizers_end_whatever_config_json_says(
    changed: Callable[..., Path], tiny: Tiny, eos: int
) -> None:
    folder = changed("CLIP")
    with_an_added_token(folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = eos
    (folder / "config.json").write_text(json.dumps(config))
    found, plain = load(folder), load(tiny("CLIP"))
    one, other = vectors(found, "a <cat-toy> on the table", "a <cat-toy> in the park")
    assert not np.allclose(one, other, atol=1e-3)
    (ours,), (theirs,) = vectors(found, "a photo of a cat"), vectors(plain, "a photo of a cat")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("name", ["CLIP", "SigLIP 2", "AltCLIP"])
def test_an_added_token_without_an_embedding_is_read_as_plain_text(
    changed: Callable[..., Path], tiny: Tiny, name: str
) -> None:
    folder = changed(name)
    add_token(folder, 100_000, "[PAD]", special=True)
    (ours,), (theirs,) = (vectors(load(f), "a [PAD] cat") for f in (folder, tiny(name)))
    np.testing.assert_array_equal(ours, theirs)
