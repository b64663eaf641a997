"""A model on the hub, and the sentence with which its download is refused."""

import numpy as np
import pytest
from safetensors.numpy import save

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.hub import download
from deployments.checkpoints.integrity import check_files

ID = "acme/vit"
LARGE = save({"weight": np.zeros(1_000_000, np.float32)})


def refused(id: str = ID, revision: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_files(download(id, revision))
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence
