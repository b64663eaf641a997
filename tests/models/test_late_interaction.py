"""ColPali's vectors are those of transformers, and its scores are those of its processor."""

import asyncio
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ColModernVBertConfig, Idefics3ImageProcessorPil

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.models.encoder import Encoder
from deployments.models.engines.openvino import OpenvinoEngine
from deployments.models.export import prepare
from deployments.models.families import FAMILIES, choose_family
from deployments.models.layouts.colpali import halves
from deployments.models.probes import least_cosine
from deployments.service.vectors import maxsim_ranking
from deployments.texts.tokenizer import TextTokenizer
from deployments.wire import pad_tokens
from tests.models.comparison import TEXTS, compare, in_torch
from tests.models.conftest import in_float32, update
from tests.models.late_interaction import IMAGE_TOKENS, ColPaliReference, write
from tests.models.odd_images import odd_images

FILES = {name: odd_images()[name] for name in ("640 x 480", "31 x 33", "RGBA")}
SHORT = [text for text in TEXTS if len(text) < 500]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("colpali") / "model")


@pytest.fixture(scope="module")
def late(folder: Path) -> Encoder:
    return Encoder.load(in_float32(folder, device="cpu"))


@pytest.fixture(scope="module")
def reference(folder: Path) -> ColPaliReference:
    return ColPaliReference(folder)


def test_images_and_texts_are_those_of_transformers(
    late: Encoder, reference: ColPaliReference
) -> None:
    found = compare(in_torch(late), reference, FILES, SHORT)
    assert found.image >= 0.99999
    assert found.text is not None
    assert found.text >= 0.99999
    assert found.spread < 0.9
    prompt = reference.processor(images=[np.zeros((8, 8, 3), np.uint8)])["input_ids"].shape[1]
    assert late.vectors_per_image == prompt > IMAGE_TOKENS
    assert late.pooling == "tokens"


def test_scores_are_those_of_its_processor(late: Encoder, reference: ColPaliReference) -> None:
    queries = [reference.text(text) for text in SHORT[:4]]
    documents = [reference.text(text) for text in SHORT[4:]]
    expected = reference.scores(queries, documents)
    for query, row in zip(queries, expected, strict=True):
        # One by one, because the processor pads documents with zeros, which may be the largest.
        alone = [reference.scores([query], [document])[0, 0] for document in documents]
        ranks = maxsim_ranking(query.numpy(), [document.numpy() for document in documents])
        np.testing.assert_allclose(
            [alone[index] for index, _ in ranks], [s for _, s in ranks], 1e-5
        )
        assert [score for _, score in ranks] == sorted((s for _, s in ranks), reverse=True)
        assert (row >= np.array(alone) - 1e-4).all()


def test_a_texts_vectors_do_not_depend_on_its_batch(late: Encoder) -> None:
    tokens = late.tokenize(SHORT[:4])
    together = late.encode_text(tokens)
    for text, row, vectors in zip(SHORT, tokens, together, strict=False):
        length = int((row >= 0).sum())
        alone = late.encode_text(late.tokenize([text]))
        np.testing.assert_allclose(vectors[:length], alone[0], atol=1e-5)
        assert not vectors[length:].any()


def test_a_long_text_is_cut_and_keeps_what_stands_behind_it(late: Encoder) -> None:
    assert late.tokenizer_json is not None
    tokenizer = TextTokenizer(late.tokenizer_json, max_tokens=40)
    short, long = (tokenizer.encode([text])[0] for text in ("a cat", "a cat and a dog " * 50))
    assert (short.truncated, long.truncated) == (False, True)
    assert len(long.ids) == 40
    assert long.ids[-11:] == short.ids[-11:]
    assert late.encode_text(pad_tokens([long.ids])).shape == (1, 40, 24)


@pytest.mark.slow
def test_an_export_gives_the_same_vectors(home: Path, folder: Path, late: Encoder) -> None:
    export, settled = prepare(in_float32(folder))
    engine = OpenvinoEngine(export, settled, threads=1)
    assert engine.loaded.vectors_per_image == late.vectors_per_image
    tokens = late.tokenize(SHORT)

    async def run() -> Any:
        await engine.warm_up(images=2, texts=2)
        await engine.prove()
        return await engine.encode_text(tokens), await engine.encode(export.probes().pixels)

    texts, images = asyncio.run(run())
    np.testing.assert_allclose(texts, late.encode_text(tokens), atol=1e-4)
    np.testing.assert_allclose(images, late.encode(export.probes().pixels), atol=1e-4)


@pytest.mark.parametrize("pooling", ["auto", "cls", "pooler"])
def test_colmodernvbert_is_refused_because_its_images_differ_in_vectors(
    tmp_path: Path, pooling: Any
) -> None:
    config = {"model_type": ColModernVBertConfig.model_type}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="more or fewer vectors of an image"):
        choose_family(Checkpoint("acme", None, tmp_path), pooling)
    processor: Any = Idefics3ImageProcessorPil()
    images = [Image.new("RGB", size) for size in ((80, 80), (80, 20))]
    tiles = [processor([image])["pixel_values"].shape[1] for image in images]
    assert tiles[0] > tiles[1] > 1


def test_another_language_model_is_refused(late: Encoder) -> None:
    text = SimpleNamespace(model_type="gemma2")
    config = SimpleNamespace(vlm_config=SimpleNamespace(text_config=text))
    rules = FAMILIES["colpali"].text
    assert rules is not None
    with pytest.raises(CheckpointError, match="language model is of the type 'gemma2'"):
        halves(late.checkpoint, SimpleNamespace(config=config), rules)


def test_a_tokenizer_without_padding_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    update(copy / "tokenizer_config.json", {"pad_token": None})
    (copy / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="no bos_token and pad_token"):
        Encoder.load(in_float32(copy, device="cpu"))


@pytest.mark.parametrize("key", ["visual_prompt_prefix", "query_prefix"])
def test_a_prompt_that_is_no_text_is_refused(folder: Path, tmp_path: Path, key: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    update(copy / "processor_config.json", {key: None})
    with pytest.raises(CheckpointError, match=rf"processor_config\.json: {key} is None"):
        Encoder.load(in_float32(copy, device="cpu"))


def test_padding_is_not_compared_by_the_least_cosine(late: Encoder) -> None:
    vectors = late.encode_text(late.tokenize(SHORT[:3]))
    assert least_cosine(vectors, vectors) == pytest.approx(1.0)
    wrong = torch.from_numpy(vectors).clone().numpy()
    wrong[0, -1] = 1.0  # where there should be nothing
    assert least_cosine(vectors, wrong) < 0.5
