"""Text models of transformers by themselves, as sentence-transformers' modules need them.

raylens serves them only beside an image model, into whose space they were trained: `model.text_id`.
"""

from typing import Any

from torch import Tensor, nn

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, read_json
from deployments.checkpoints.layout import CONFIG
from deployments.models.family import Family
from deployments.models.loading import load_model
from deployments.models.texts import CheckpointTokenizer, read_tokenizer

# Encoders in which an attention mask hides the padding. True: positions start after the pad token's
# id, which leaves fewer.
_POSITIONS_FROM_PAD = {
    **{"bert": False, "distilbert": False, "electra": False},
    **{"camembert": True, "mpnet": True, "roberta": True, "xlm-roberta": True},
}
_NO_POOLER = Family("cls", ())


class TextTokens(nn.Module):
    """A text model up to its last hidden state."""

    def __init__(self, model: nn.Module, *, pad_id: int) -> None:
        super().__init__()
        self.backbone = model
        self._pad_id = pad_id

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """int32 (N, L), padded with -1 after each text, to (N, L, D) and a mask (N, L) of what is
        text."""
        real = tokens >= 0
        ids = tokens.where(real, self._pad_id).long()
        output = self.backbone(input_ids=ids, attention_mask=real.long())
        return output.last_hidden_state, real


def load_text_model(
    checkpoint: Checkpoint, *, max_tokens: int | None
) -> tuple[TextTokens, CheckpointTokenizer, int]:
    """The text model in a checkpoint's folder, its tokenizer, and how many tokens it reads at most:
    `max_tokens`, or fewer where it has fewer positions.

    Raises CheckpointError for a family that raylens does not know, and if a file does not fit.
    """
    path = checkpoint.folder / CONFIG
    config = read_json(path)
    kind = str(config.get("model_type"))
    if kind not in _POSITIONS_FROM_PAD or config.get("is_decoder"):
        raise CheckpointError(
            f"{path}: raylens does not know how to feed text models of the family {kind!r}; it "
            f"knows {', '.join(sorted(_POSITIONS_FROM_PAD))}. Choose one of these"
        )
    model: Any = load_model(checkpoint, _NO_POOLER)
    own = model.config
    positions: int = own.max_position_embeddings
    if _POSITIONS_FROM_PAD[kind]:
        if type(own.pad_token_id) is not int:
            raise CheckpointError(
                f"{path}: pad_token_id is {own.pad_token_id!r}, from which {kind} counts positions;"
                " correct it"
            )
        positions -= own.pad_token_id + 1
    limit = min(positions, max_tokens or positions)
    tokenizer = read_tokenizer(
        checkpoint.folder,
        max_tokens=limit,
        embeddings=model.get_input_embeddings().num_embeddings,
    )
    return TextTokens(model, pad_id=tokenizer.pad_id), tokenizer, limit
