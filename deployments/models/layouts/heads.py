"""What sentence-transformers puts behind a model: its modules from Pooling to Normalize, in torch.

Each does what the library's class of that name does in inference, as of version 6.2. Knows nothing
of files.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from deployments.models.layouts.halves import Vision

Feature = Literal["token_embeddings", "sentence_embedding"]
"""What modules hand on: (N, L, D) for the tokens of a text or the patches of an image, (N, D)."""
TOKENS: Feature = "token_embeddings"
VECTOR: Feature = "sentence_embedding"


class Heads(nn.Module):
    """A model, and sentence-transformers' modules behind it."""

    def __init__(self, model: nn.Module, gives: Feature, heads: nn.ModuleList) -> None:
        """`model` gives a `gives`, or a pair of it and a mask (N, L) of what is text."""
        super().__init__()
        self.model = model
        self.heads = heads
        self._gives = gives

    def forward(self, values: Tensor) -> Tensor:
        """What `model` takes to float32 (N, D)."""
        output = self.model(values)
        found, mask = output if isinstance(output, tuple) else (output, None)
        features = {self._gives: found}
        for head in self.heads:
            features = head(features, mask)
        vectors: Tensor = features[VECTOR].float()
        return vectors


class ImageTokens(nn.Module):
    """A vision model up to its last hidden state."""

    def __init__(self, vision: Vision) -> None:
        super().__init__()
        self.vision = vision

    def forward(self, values: Tensor) -> Tensor:
        """Normalised (N, 3, H, W) to (N, L, D)."""
        hidden: Tensor = self.vision.output(values).last_hidden_state
        # (N, D, height, width), from convolutional networks
        return hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden


class Pooling(nn.Module):
    """Several poolings are put one after another."""

    def __init__(self, modes: Sequence[str]) -> None:
        super().__init__()
        self._modes = modes

    def forward(self, features: dict[str, Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        tokens = features[TOKENS].float()
        real = torch.ones_like(tokens[:, :, 0]) if mask is None else mask.float()
        vectors = torch.cat([self._pool(mode, tokens, real) for mode in self._modes], dim=-1)
        return {**features, VECTOR: vectors}

    def _pool(self, mode: str, tokens: Tensor, real: Tensor) -> Tensor:
        """Texts begin at the first token: they are padded behind."""
        number = real.sum(dim=1, keepdim=True)
        if mode == "cls":
            return tokens[:, 0]
        if mode == "max":
            return tokens.masked_fill(real[:, :, None] == 0, float("-inf")).amax(dim=1)
        if mode == "lasttoken":
            last = (number.long() - 1)[:, :, None].expand(-1, -1, tokens.shape[2])
            return tokens.gather(1, last)[:, 0]
        if mode == "weightedmean":
            real = real * real.cumsum(dim=1)
            number = real.sum(dim=1, keepdim=True)
        if mode == "mean_sqrt_len_tokens":
            number = number.sqrt()
        return (tokens * real[:, :, None]).sum(dim=1) / number.clamp(min=1e-9)


class Dense(nn.Module):
    """A linear layer, with or without bias, activation and a residual around it."""

    def __init__(
        self,
        width: tuple[int, int],
        *,
        bias: bool,
        activation: nn.Module,
        is_residual: bool,
        source: str,
        target: str,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(*width, bias=bias)
        self.residual: nn.Module | None = None
        if is_residual:
            same = width[0] == width[1]
            self.residual = nn.Identity() if same else nn.Linear(*width, bias=False)
        self._activation = activation
        self._source, self._target = source, target

    def forward(self, features: dict[str, Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        values = features[self._source].to(self.linear.weight.dtype)
        found = self._activation(self.linear(values))
        if self.residual is not None:
            found = found + self.residual(values)
        return {**features, self._target: found}


class Normalize(nn.Module):
    """To length 1."""

    def __init__(self, source: str, target: str) -> None:
        super().__init__()
        self._source, self._target = source, target

    def forward(self, features: dict[str, Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        values = features[self._source].float()
        return {**features, self._target: nn.functional.normalize(values, dim=-1)}


class LayerNorm(nn.Module):
    """Of the vector."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, features: dict[str, Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        return {**features, VECTOR: self.norm(features[VECTOR].to(self.norm.weight.dtype))}


class Truncate(nn.Module):
    """The first numbers of the vector: `truncate_dim` of the whole model."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self._dimensions = dimensions

    def forward(self, features: dict[str, Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        return {**features, VECTOR: features[VECTOR][:, : self._dimensions]}
