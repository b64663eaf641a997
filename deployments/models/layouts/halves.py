"""The halves of a model of transformers as torch modules, pooled as its family's authors do.

Knows nothing of files or of pixels as people send them.
"""

from math import exp, inf
from typing import Any

import torch
from torch import Tensor, nn

from deployments.models.family import Family, TextRules
from deployments.wire import TextSpec


class Vision(nn.Module):
    """The vision model, and the family's pooling."""

    def __init__(self, model: Any, family: Family) -> None:
        """`model` as `loading.load_model` gives it; only its vision half is kept."""
        super().__init__()
        self.backbone = getattr(model, family.part, model)
        self.projection = getattr(model, family.projection or "", None) or nn.Identity()
        if isinstance(getattr(self.backbone, "pooler", None), nn.AvgPool2d):
            # EfficientNet's window is far larger than the feature map, which converters reject;
            # the mean is the same.
            self.backbone.pooler = nn.AdaptiveAvgPool2d(1)
        self._pooling: str = family.pooling
        if family.pooling == "projection":
            self._pooling = "cls" if family.projects_cls else "pooler"
        self._pooled = family.pooled
        config = getattr(self.backbone, "config", None)
        self._prefix_tokens = family.prefix_tokens + getattr(config, "num_register_tokens", 0)
        self._hides_patches = family.hides_patches

    def forward(self, values: Tensor) -> Tensor:
        """Normalised (N, 3, H, W) to (N, D), or to (N, P, D) of the P patches."""
        vectors: Tensor = self.projection(self._pool(self.output(values)))
        return vectors

    def output(self, values: Tensor) -> Any:
        """What the vision model itself gives."""
        if self._hides_patches:
            # No patch is masked, but they would still be shuffled by random noise, and sums would
            # differ from call to call in their last bits. This noise keeps them in order.
            patches = self.backbone.embeddings.patch_embeddings.num_patches
            # Not len(values), which the tracer would take for a constant.
            order = torch.arange(patches, device=values.device).expand(values.shape[0], -1)
            return self.backbone(pixel_values=values, noise=order)
        return self.backbone(pixel_values=values)

    def _pool(self, output: Any) -> Tensor:
        if self._pooling == "pooler":
            pooled: Tensor | None = getattr(output, self._pooled)
            if pooled is None:
                raise ValueError("the model has no pooler; choose another model.pooling")
            return pooled.flatten(1) if pooled.ndim == 4 else pooled  # (N, C, 1, 1), from ResNet
        hidden: Tensor = output.last_hidden_state
        if self._pooling == "cls":
            return hidden[:, 0]
        if hidden.ndim == 4:  # (N, C, height, width), from convolutional networks
            patches = hidden.flatten(2).transpose(1, 2)
        else:
            patches = hidden[:, self._prefix_tokens :]
        return patches if self._pooling == "patches" else patches.mean(dim=1)


class TextTower(nn.Module):
    """The family's padding, the text model of a dual encoder, and the projection."""

    def __init__(
        self,
        model: Any,
        rules: TextRules,
        *,
        max_tokens: int,
        pad_id: int,
        pad_left: bool,
        eos_id: int | None = None,
    ) -> None:
        """`model` as `loading.load_model` gives it; only its text half is kept.

        `pad_id`, `pad_left` and `eos_id` are the tokenizer's.
        """
        super().__init__()
        self.backbone = getattr(model, rules.part)
        if rules.pooling == "eos":
            # config.json is often wrong: with 2, the model would pool at the largest id, which may
            # be an added token; with one that no text has, at the first token.
            assert hasattr(self.backbone, "eos_token_id")  # noqa: S101  (else this has no effect)
            self.backbone.eos_token_id = eos_id
        self.projection = getattr(model, rules.projection, None) or nn.Identity()
        self._rules = rules
        self._max_tokens = max_tokens
        self._pad_id = pad_id
        self._pad_left = pad_left

    def forward(self, tokens: Tensor) -> Tensor:
        """int32 (N, L), padded with -1 after each text, to float32 (N, D), not normalised."""
        output = self.backbone(**self._inputs(tokens.long()))
        if self._rules.pooling == "cls":
            vectors: Tensor = self.projection(output.last_hidden_state[:, 0])
        else:
            vectors = self.projection(output.pooler_output)
        return vectors.float()

    def _inputs(self, tokens: Tensor) -> dict[str, Tensor]:
        real = tokens >= 0
        if self._rules.padding == "eos":
            last = tokens.gather(1, real.sum(1, keepdim=True) - 1)
            return {"input_ids": tokens.where(real, last)}
        tokens = tokens.where(real, self._pad_id)
        if self._rules.padding == "mask":
            return {"input_ids": tokens, "attention_mask": real.long()}
        tokens = nn.functional.pad(
            tokens, (0, self._max_tokens - tokens.shape[1]), value=self._pad_id
        )
        if self._pad_left:
            positions = torch.arange(self._max_tokens, device=tokens.device)
            shifted = positions + real.sum(1, keepdim=True)
            tokens = tokens.gather(1, shifted % self._max_tokens)
        return {"input_ids": tokens}


def embeddings_of(model: Any) -> int:
    """How many tokens a dual encoder's text half knows."""
    number: int = model.config.text_config.vocab_size  # else loading its weights would have failed
    return number


def read_text_spec(model: Any, rules: TextRules) -> TextSpec:
    """What the ingress has to know about a dual encoder's text half and its scores."""
    config = model.config.text_config
    positions = config.max_position_embeddings
    if rules.positions_from_pad:
        positions -= config.pad_token_id + 1
    if hasattr(model, "temperature"):  # ALIGN divides by it
        scale = 1 / model.temperature.item()
    elif hasattr(model, "logit_scale"):
        scale = min(model.logit_scale.exp().item(), getattr(model.config, "max_logit_scale", inf))
    else:  # BLIP's class for retrieval has none; what config.json says is where training began
        scale = exp(model.config.logit_scale_init_value)
    bias = model.logit_bias.item() if hasattr(model, "logit_bias") else 0.0
    return TextSpec(
        max_tokens=min(positions, rules.max_tokens or positions),
        score=rules.score,
        logit_scale=scale,
        logit_bias=bias,
    )
