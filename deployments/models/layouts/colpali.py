"""ColPali (Faysse et al. 2024, arXiv:2407.01449) in transformers: PaliGemma reads an image or a
text, and every token has a vector. They are compared by late interaction, see `maxsim`.

What is fed in is what `ColPaliProcessor` of transformers 5.23 makes: an image's patches before a
prompt, a text between a prompt and ten pad tokens that the model was trained to think in.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, read_json
from deployments.checkpoints.layout import CONFIG
from deployments.models.family import TextRules
from deployments.models.layouts.layout import TextHalf
from deployments.models.texts import CheckpointTokenizer, differing, load_tokenizer, of_all_kinds
from deployments.texts import cleaning
from deployments.wire import TextSpec

_PROCESSOR = "processor_config.json"
_PADS_BEHIND = 10


def halves(checkpoint: Checkpoint, model: Any, rules: TextRules) -> tuple[nn.Module, TextHalf]:
    """What reads images, and what reads texts; both hold the language model.

    `model` is a ColPaliForRetrieval. Raises CheckpointError for a language model whose attention is
    not Gemma's, and for a tokenizer that cannot be used.
    """
    config = model.config.vlm_config.text_config
    if config.model_type != "gemma":
        raise CheckpointError(
            f"{checkpoint.folder / CONFIG}: its language model is of the type "
            f"{config.model_type!r}, and raylens knows ColPali with gemma alone"
        )
    path = checkpoint.folder / _PROCESSOR
    prompts = read_json(path) if path.is_file() else {}
    before_text = prompts.get("query_prefix", "Question: ")
    behind_image = prompts.get("visual_prompt_prefix", "Describe the image.")
    for key, value in (("query_prefix", before_text), ("visual_prompt_prefix", behind_image)):
        if not isinstance(value, str):
            raise CheckpointError(f"{path}: {key} is {value!r}, and should be a text; correct it")
    tokenizer = load_tokenizer(checkpoint.folder)
    prompt = f"{tokenizer.bos_token}{behind_image}\n"
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    spec = TextSpec(
        max_tokens=min(
            rules.max_tokens or config.max_position_embeddings, config.max_position_embeddings
        ),
        score="maxsim",
        logit_scale=1.0,
        logit_bias=0.0,
    )
    converted = _convert(
        tokenizer,
        checkpoint.folder,
        prefix=before_text,
        max_tokens=spec.max_tokens,
        embeddings=config.vocab_size,
    )
    return PageReader(model, ids), TextHalf(TextReader(model), spec, converted)


class _Reader(nn.Module):
    """A language model that looks in both directions, and its projection."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings = model.vlm.get_input_embeddings()
        self.language_model = model.vlm.language_model
        self.projection = model.embedding_proj_layer

    def read(self, embedded: Tensor, real: Tensor) -> Tensor:
        """Embedded tokens (N, L, …) and whether they are no padding, bool (N, L), to float32
        (N, L, D): vectors of length 1, and zeros for padding."""
        hidden_from_all = torch.zeros_like(real, dtype=embedded.dtype).masked_fill(
            ~real, torch.finfo(embedded.dtype).min
        )
        length = embedded.shape[1]
        output = self.language_model(
            inputs_embeds=embedded,
            attention_mask=hidden_from_all[:, None, None, :],
            position_ids=torch.arange(1, length + 1, device=embedded.device)[None],  # from 1
            use_cache=False,
        )
        vectors = self.projection(output.last_hidden_state).float()
        return nn.functional.normalize(vectors, dim=-1) * real[..., None]


class PageReader(_Reader):
    """Images: the patches of the vision tower, and a prompt behind them."""

    prompt: Tensor

    def __init__(self, model: Any, prompt: list[int]) -> None:
        super().__init__(model)
        self.vision_tower = model.vlm.vision_tower
        self.projector = model.vlm.multi_modal_projector
        self.register_buffer("prompt", torch.tensor(prompt), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Normalised (N, 3, H, W) to float32 (N, P, D) of length 1."""
        patches = self.projector(self.vision_tower(values).last_hidden_state)
        prompt = self.embeddings(self.prompt).expand(values.shape[0], -1, -1)
        embedded = torch.cat([patches, prompt.to(patches.dtype)], dim=1)
        return self.read(embedded, torch.ones_like(embedded[..., 0], dtype=torch.bool))


class TextReader(_Reader):
    """Texts, with their prompt and what else belongs to them."""

    def forward(self, tokens: Tensor) -> Tensor:
        """int32 (N, L), padded with -1 after each text, to float32 (N, L, D): of length 1, and
        zeros where the text has ended."""
        embedded = self.embeddings(tokens.long().clamp(min=0))
        return self.read(embedded, tokens >= 0)


def _convert(
    tokenizer: Any, folder: Path, *, prefix: str, max_tokens: int, embeddings: int
) -> CheckpointTokenizer:
    """Its JSON, which adds all that stands around a text; the end is kept if one is truncated.

    Raises CheckpointError if the `tokenizers` library reads some text differently.
    """
    name = type(tokenizer).__name__
    if not tokenizer.is_fast or None in (tokenizer.bos_token, tokenizer.pad_token):
        raise CheckpointError(
            f"{folder}: its {name} has no tokenizer.json, or no bos_token and pad_token, which "
            "ColPali needs; download its tokenizer files again"
        )
    around = f"{tokenizer.pad_token * _PADS_BEHIND}\n"
    behind = tokenizer(around, add_special_tokens=False)["input_ids"]
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.post_processor = TemplateProcessing(
        single="<begin> $A <end>",
        special_tokens=[
            {"id": "<begin>", "ids": [tokenizer.bos_token_id], "tokens": [tokenizer.bos_token]},
            {"id": "<end>", "ids": behind, "tokens": tokenizer.convert_ids_to_tokens(behind)},
        ],
    )
    written = cleaning.wrap(backend.to_str(), prefix=prefix)
    expected = {
        text: tokenizer(f"{tokenizer.bos_token}{prefix}{text}{around}", add_special_tokens=False)[
            "input_ids"
        ]
        for text in of_all_kinds(tokenizer, embeddings)
    }
    expected = {text: ids for text, ids in expected.items() if len(ids) <= max_tokens}
    found = differing(written, expected, max_tokens)
    if found is not None or max(map(max, expected.values())) >= embeddings:
        raise CheckpointError(
            f"{folder}: its {name} makes other tokens of {str(found)[:40]!r} than the tokenizers "
            "library, or tokens that its model does not know; choose another checkpoint"
        )
    return CheckpointTokenizer(written, pad_id=0, pad_left=False, eos_id=None)
