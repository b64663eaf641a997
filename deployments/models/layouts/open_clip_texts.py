"""OpenCLIP's text towers: fed and pooled as open_clip's `encode_text` does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deployments.checkpoints.checkpoint import CheckpointError, first_line
from deployments.checkpoints.open_clip import OpenClipConfig
from deployments.models.layouts import open_clip_tokenizers
from deployments.models.layouts.layout import TextHalf
from deployments.models.texts import CheckpointTokenizer
from deployments.wire import TextSpec


@dataclass(frozen=True, slots=True)
class Rows:
    """What follows the tokens of a text, as open_clip's tokenizer pads it."""

    length: int | None
    """None where a batch may be as long as its longest text, as nothing looks at what is beyond."""
    pad_id: int
    pad_left: bool = False
    dropped_id: int | None = None
    """A token in whose place the model reads a 0 (`strip_sep_token`)."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """(N, L) padded with -1 to int64 (N, `length`)."""
        real = tokens >= 0
        tokens = tokens.long().where(real, self.pad_id)
        if self.length is not None:
            missing = self.length - tokens.shape[1]
            tokens = nn.functional.pad(tokens, (0, missing), value=self.pad_id)
        if self.pad_left:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
            shifted = positions + real.sum(1, keepdim=True)
            tokens = tokens.gather(1, shifted % tokens.shape[1])
        if self.dropped_id is not None:
            tokens = tokens.where(tokens != self.dropped_id, 0)
        return tokens


class TextTower(nn.Module):
    """open_clip's module and the rows that it is fed with."""

    def __init__(self, text: Any, rows: Rows) -> None:
        super().__init__()
        self.text = text
        self._rows = rows

    def forward(self, tokens: Tensor) -> Tensor:
        """int32 (N, L), padded with -1 after each text, to float32 (N, D), not normalised."""
        vectors: Tensor = self.text(self._rows(tokens))
        return vectors.float()


class CausalTransformer(nn.Module):
    """A text tower's transformer, for texts of any length: its mask is for the longest."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer

    def get_cast_dtype(self) -> Any:
        return self.transformer.get_cast_dtype()

    def forward(self, values: Tensor, attn_mask: Tensor) -> Tensor:
        length = values.shape[1]
        result: Tensor = self.transformer(values, attn_mask=attn_mask[:length, :length])
        return result


def read_text(library: Any, model: Any, folder: Path, config: OpenClipConfig) -> TextHalf:
    """The text half of `model`, open_clip's CustomTextCLIP or CoCa. Raises CheckpointError."""
    tokenizer = open_clip_tokenizers.build(library, folder, config)
    text = model.text
    text.output_tokens = False  # CoCa's captions need them
    rows = _rows(text, tokenizer)
    if rows.length is None and config.text_model is None:
        text.transformer = CausalTransformer(text.transformer)
    json = open_clip_tokenizers.written(
        tokenizer, folder=folder, embeddings=_embeddings(text), rows=rows
    )
    bias = model.logit_bias
    spec = TextSpec(
        max_tokens=tokenizer.context_length,
        score="softmax" if bias is None else "sigmoid",
        logit_scale=model.logit_scale.exp().item(),
        logit_bias=0.0 if bias is None else bias.item(),
    )
    tower = TextTower(text, rows)
    _try(tower, folder, spec.max_tokens)
    # How rows are padded is the tower's own business, so that the last three are not read.
    read = CheckpointTokenizer(json, pad_id=rows.pad_id, pad_left=rows.pad_left, eos_id=None)
    return TextHalf(tower, spec, read)


def _rows(text: Any, tokenizer: Any) -> Rows:
    own = getattr(tokenizer, "tokenizer", None)  # of transformers
    if own is None:
        rows = Rows(tokenizer.context_length, pad_id=0)
        last = tokenizer.eot_token_id
    else:
        rows = Rows(
            tokenizer.context_length,
            own.pad_token_id,
            pad_left=own.padding_side == "left",
            dropped_id=own.sep_token_id if tokenizer.strip_sep_token else None,
        )
        last = own.eos_token_id
    if rows.pad_left or rows.dropped_id is not None:
        return rows
    if hasattr(text, "pooler"):  # a tower of transformers, which masks its own pad token
        looks_away = text.config.pad_token_id == rows.pad_id
    else:
        # Where attention is causal, a text's last token sees nothing beyond. Pooled is the largest
        # token, which padding must not be, or the first `eos`.
        looks_away = text.attn_mask is not None and text.cls_emb is None
        looks_away &= text.pool_type == "eos" or (
            text.pool_type == "argmax" and rows.pad_id in (0, last)
        )
    return Rows(None, rows.pad_id) if looks_away else rows


def _embeddings(text: Any) -> int:
    """How many tokens it knows."""
    embedding = getattr(text, "token_embedding", None)
    if embedding is None:
        embedding = text.transformer.get_input_embeddings()
    number: int = embedding.num_embeddings
    return number


@torch.inference_mode()
def _try(tower: TextTower, folder: Path, length: int) -> None:
    """Raises CheckpointError for a tower that cannot read the longest text."""
    try:
        tower(torch.ones((1, length), dtype=torch.int32))
    except Exception as error:  # whatever torch or a model class raises
        raise CheckpointError(
            f"{folder}: its text tower cannot read {length} tokens, its context_length "
            f"({type(error).__name__}: {first_line(error)}); correct open_clip_config.json"
        ) from error
