"""The bundled model recognises real photos, so its pixels must be prepared as it was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from deployments.models.encoder import Encoder
from deployments.wire import Vectors
from tests.models.conftest import Prepare

pytestmark = pytest.mark.slow

# foolbox names its photos imagenet_<number>_<class>.jpg.
JEEPS = (6, 7)
INSECTS = (18, 19)  # a leafhopper and a dung beetle


def encode(encoder: Encoder, photos: list[Path], prepare: Prepare) -> Vectors:
    stack = np.stack([prepare(photo, encoder.preprocessing.pixels) for photo in photos])
    vectors = np.concatenate([encoder.encode(part) for part in np.split(stack, 5)])
    normalised: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised


def test_18_of_20_photos_are_classified_right(
    encoder: Encoder, bundled_folder: Path, photos: list[Path], prepare: Prepare
) -> None:
    head = AutoModelForImageClassification.from_pretrained(bundled_folder).classifier
    stack = np.stack([prepare(photo, encoder.preprocessing.pixels) for photo in photos])
    with torch.inference_mode():
        found = head(torch.from_numpy(encoder.encode(stack))).argmax(dim=1).tolist()
    labels = [int(photo.stem.rpartition("_")[2]) for photo in photos]
    assert len(labels) == 20
    assert sum(a == b for a, b in zip(found, labels, strict=True)) >= 18


def test_photos_of_one_kind_are_each_others_nearest(
    encoder: Encoder, photos: list[Path], prepare: Prepare
) -> None:
    vectors = encode(encoder, photos, prepare)
    cosines = vectors @ vectors.T - 2 * np.eye(len(photos))
    for one, other in (JEEPS, INSECTS):
        assert cosines[one].argmax() == other
        assert cosines[other].argmax() == one
    assert cosines.max() == cosines[JEEPS]
