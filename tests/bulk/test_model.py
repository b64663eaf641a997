"""What an actor's model must be like."""

import asyncio
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.bulk import model
from deployments.checkpoints.checkpoint import CheckpointError
from deployments.settings import ModelSettings
from deployments.wire import Loaded
from tests.fakes import CARD, PATCHES


@pytest.mark.parametrize("card", [CARD, PATCHES])
def test_a_model_that_gives_several_vectors_is_refused(
    card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Loaded(**{field.name: getattr(card, field.name) for field in fields(Loaded)})

    async def load_engine(*_: object, **__: object) -> Any:
        return SimpleNamespace(loaded=loaded)

    monkeypatch.setattr(model, "load_engine", load_engine)
    if card is CARD:
        assert asyncio.run(model.loaded_model(ModelSettings(), has_gpu=False)) == loaded
        return
    with pytest.raises(CheckpointError, match="patches' gives 4 vectors for each image, and bulk"):
        asyncio.run(model.loaded_model(ModelSettings(), has_gpu=False))
