"""From file and text to vector, raylens gives what transformers gives, for every family.

`make parity` prints the same for more images.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification, DeiTForImageClassificationWithTeacher

from deployments.models.encoder import Encoder
from deployments.models.families import FAMILIES
from deployments.models.precision import Settled
from deployments.pixels.decode import decode
from deployments.settings import ModelSettings
from deployments.wire import PixelSpec
from tests.models.comparison import Comparison, compare, in_openvino, in_torch, unit
from tests.models.conftest import Exported, Tiny, update
from tests.models.families import TINY, kind
from tests.models.odd_images import odd_images
from tests.models.reference import TransformersReference, image_processor, quiet, upright_rgb

Changed = Callable[..., Path]

LEAST_COSINE = 0.9999
SOME = (
    *("8 x 8", "31 x 33", "225 x 223", "640 x 480", "1:40", "40:1, large", "grey of 16 bits"),
    *("RGBA", "CMYK", "turned by 90 degrees", "palette with a clear colour", "GIF"),
)
FILES = {name: odd_images()[name] for name in SOME}  # all of them would take a minute
QUICK = {"CLIP", "SigLIP", "ViT", "DINOv2", "ConvNeXt", "ResNet"}
# `make parity` compares these too; what is special about each is tested here by another.
ELSEWHERE = {
    *("CLIPSeg", "GroupViT", "BLIP", "BLIP, captions", "BLIP, vision alone", "AIMv2, vision alone"),
    *("TIPSv2, vision alone", "CLIP, classifier", "SigLIP, classifier", "data2vec", "ViT-MSN"),
    *("I-JEPA", "MLCD", "Pixio", "FocalNet", "LeViT", "PVT", "PVT v2", "SegFormer", "CvT"),
    *("PoolFormer", "SwiftFormer"),
}
HERE = [name for name in TINY if name not in ELSEWHERE]
DUAL = [name for name, tiny in TINY.items() if tiny.tokenizer is not None]
CLASSIFIERS = [name for name, tiny in TINY.items() if "ForImageClassification" in tiny.model]
QUICK_CLASSIFIERS = {"ViT, classifier", "DeiT, classifier", "CLIP, classifier", "Swin", "ResNet"}


def encode(folder: Path, **settings: Any) -> Encoder:
    return Encoder.load(ModelSettings(id=str(folder), precision="float32", threads=1, **settings))


def measure(ours: Path, theirs: Path, **settings: Any) -> Comparison:
    return compare(in_torch(encode(ours, **settings)), TransformersReference(theirs), FILES)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in HERE]
)
def test_vectors_are_those_of_transformers(tiny: Tiny, name: str) -> None:
    check(name, measure(tiny(name), tiny(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_exported_models_give_the_vectors_of_transformers(
    tiny: Tiny, exported: Exported, name: str
) -> None:
    settled = Settled("float32", "float32, because a test says so")
    check(
        name,
        compare(in_openvino(exported(name), settled), TransformersReference(tiny(name)), FILES),
    )


def check(name: str, found: Comparison) -> None:
    assert found.image >= LEAST_COSINE
    assert found.spread < 0.99
    if name in DUAL:
        assert found.text is not None
        assert found.text_spread is not None
        assert found.probability is not None
        assert found.text >= LEAST_COSINE
        assert found.text_spread < 0.99
        assert found.probability < 1e-3


def test_the_bundled_model_gives_what_transformers_gives(encoder: Encoder) -> None:
    found = compare(in_torch(encoder), TransformersReference(encoder.checkpoint.folder), FILES)
    assert found.image >= LEAST_COSINE
    assert found.spread < 0.99


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n in QUICK_CLASSIFIERS else pytest.mark.slow)
        for n in CLASSIFIERS
    ],
)
def test_a_classifiers_vector_is_what_its_head_was_trained_on(tiny: Tiny, name: str) -> None:
    with quiet():
        if name == "DeiT, classifier":
            model: Any = DeiTForImageClassificationWithTeacher.from_pretrained(tiny(name))
            head = model.cls_classifier
        else:
            model = AutoModelForImageClassification.from_pretrained(tiny(name))
            head = model.classifier if hasattr(model, "classifier") else model.head
            if name == "SwiftFormer":  # the mean of both heads'
                head = lambda read: (model.head(read) + model.dist_head(read)) / 2  # noqa: E731
    data = FILES["640 x 480"]
    with torch.inference_mode():
        inputs = image_processor(tiny(name))(upright_rgb(data))
        output = model.eval()(**inputs)
        expected = output.get("cls_logits", output.logits)  # without a distilled one's second head
        encoder = encode(tiny(name))
        pixels = decode(data, encoder.preprocessing.pixels, max_pixels=10**8).pixels
        found = head(torch.from_numpy(encoder.encode(pixels[None])))
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_faster_resizing_hardly_changes_a_tolerant_familys_vectors(tiny: Tiny, name: str) -> None:
    if not FAMILIES[kind(tiny(name))].tolerant:
        return
    encoder = encode(tiny(name))
    spec = encoder.preprocessing.pixels
    if not isinstance(spec, PixelSpec):
        return
    assert spec.exact, "in float32, resizing should be exact"
    photos = [FILES[n] for n in ("640 x 480", "225 x 223", "1:40", "RGBA")]
    exact, faster = (
        unit(encoder.encode(np.stack([decode(p, s, max_pixels=10**8).pixels for p in photos])))
        for s in (spec, replace(spec, exact=False))
    )
    assert (exact * faster).sum(axis=1).min() >= 0.99999


# Proof that the tests above can fail: even a small mistake shows.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("CLIP", {"image_std": [0.229, 0.224, 0.225]}),
        ("CLIP", {"resample": 2}),
        ("CLIP", {"size": 232}),
        ("SigLIP", {"image_mean": [0.485, 0.456, 0.406]}),
        ("SigLIP", {"resample": 2}),
        ("ViT", {"resample": 3}),
        ("DINOv2", {"size": {"shortest_edge": 224}}),
        ("EfficientNet", {"include_top": False}),
        ("MobileViT", {"do_flip_channel_order": False}),
        ("ConvNeXt", {"crop_pct": 1.0}),
        ("ALIGN", {"rescale_offset": False}),
    ],
)
def test_a_mistake_in_the_pixels_shows(
    tiny: Tiny, changed: Changed, name: str, mistake: dict[str, Any]
) -> None:
    found = measure(changed(name, processor=mistake), tiny(name))
    assert found.image < LEAST_COSINE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pooling"),
    [("ViT", "mean"), ("ViT", "pooler"), ("DeiT", "mean"), ("BEiT", "cls"), ("ConvNeXt", "mean")],
)
def test_a_mistake_in_the_pooling_shows(tiny: Tiny, name: str, pooling: str) -> None:
    assert measure(tiny(name), tiny(name), pooling=pooling).image < LEAST_COSINE


@pytest.mark.parametrize("name", ["CLIP", "SigLIP", "ALIGN", "AltCLIP", "Chinese-CLIP"])
def test_a_mistake_in_the_tokens_shows(tiny: Tiny, name: str) -> None:
    encoder = encode(tiny(name))
    assert encoder.text is not None
    right = np.random.default_rng(0).integers(3, 90, (20, 9)).astype(np.int32)
    right[:, -1] = encoder.tokenize(["a"])[0, -1]  # CLIP pools at the end
    wrong = right.copy()
    wrong[:, 4] += 1
    vectors, others = (unit(encoder.encode_text(tokens)) for tokens in (right, wrong))
    assert (vectors * others).sum(axis=1).min() < LEAST_COSINE


def test_a_mistake_in_the_padding_shows(tiny: Tiny, changed: Changed) -> None:
    folder = changed("SigLIP 2")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        update(folder / name, {"pad_token": "<eos>"})
    found = measure(folder, tiny("SigLIP 2"))
    assert found.text is not None
    assert found.text < LEAST_COSINE <= found.image
