"""A checkpoint's tokenizer as one JSON string, for `deployments.texts.tokenizer.TextTokenizer`.

Texts are tokenised in the ingress, which has neither the checkpoint nor transformers. So the string
is for the `tokenizers` library, or, where that would read some text differently, the checkpoint's
own files. The reference is AutoTokenizer's output; padding is left to `towers`.
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Steps

from deployments.checkpoints.checkpoint import CheckpointError, first_line, read_json
from deployments.models import siglip_tokenizer
from deployments.texts import own_tokenizer
from deployments.texts.tokenizer import TextTokenizer

logger = logging.getLogger("ray.serve")

_CONFIG = "tokenizer_config.json"
# What AutoTokenizer reads besides a vocabulary.
_FILES = ("config.json", _CONFIG, "special_tokens_map.json", "added_tokens.json")

# What tokenizers differ in: case, accents, spaces, scripts, length.
_PROBES = (
    *("", " ", "\n\t ", "a", "!!", "...a photo, of a CAT!  (really?)", "it's we'll I'D don't"),
    *("  two  spaces, and one behind ", "line\none\r\nline\u2028two\x1cthree\x00four\x7f"),
    *("naïve café, nai\u0308ve cafe\u0301", "Tie\u0302\u0301ng Việt", "İstanbul ΟΔΟΣ ΌΣΟ. straße"),
    *("мир, привет", "北京的一只猫。", "東京タワー \uff76\uff9e", "한국어 \u1112\u1161\u11ab"),
    *("สวัสดี น้ำ", "مُحَمَّد", "שָׁלוֹם", "हिन्दी", "ﬁne ½ ㎏ №5 \uff21\uff11", "x" * 200),
    *("🎉🎉 👩\u200d👧 🏳️\u200d🌈 👍🏽 🇩🇪", "\ufffd \ue000\ue001 \u0378", "1234567890 3.14 1,000"),
    *("a\u00a0b\u200bc\ufeffd\u3000e▁f_g", "#hash @name https://example.org/?q=1&r=2"),
    "a photo of a dog " * 100,
)


@dataclass(frozen=True, slots=True)
class CheckpointTokenizer:
    """How a checkpoint's texts become ids, and how rows of ids are padded."""

    json: str
    """For `TextTokenizer`; adds special tokens, neither truncates nor pads."""
    pad_id: int
    """0 where there is none, which is never read."""
    pad_left: bool
    """Whether rows are padded before the text instead of after it."""
    eos_id: int | None
    """The token at the end of each text; None where there is none."""


def read_tokenizer(
    folder: Path,
    *,
    max_tokens: int,
    embeddings: int = sys.maxsize,
    reads_padding: bool = True,
    pools_at_eos: bool = False,
    lower_cases_gemma: bool = False,
) -> CheckpointTokenizer:
    """The tokenizer in a checkpoint's folder.

    `embeddings`: how many tokens the model knows; those that were added beyond are read as plain
    text. `reads_padding`: whether what stands in padding matters. `pools_at_eos`: whether the model
    pools at the token that ends a text. `lower_cases_gemma`: texts are lower-cased first if it is
    Gemma's. Raises CheckpointError if a file is missing or damaged, if a token that the model needs
    has no name, or if a text gives no tokens, or one that the model does not know.
    """
    tokenizer = load_tokenizer(folder)
    pad_id = tokenizer.pad_token_id
    if pad_id is not None and pad_id >= embeddings:
        pad_id = None
    if pad_id is None and reads_padding:
        raise CheckpointError(
            f"{folder / _CONFIG}: names no pad_token that the model knows; add the model's own"
        )
    if tokenizer.eos_token_id is None and pools_at_eos:
        raise CheckpointError(
            f"{folder / _CONFIG}: names no eos_token, where the model pools; add the model's own"
        )
    if lower_cases_gemma and _is_gemma(tokenizer):
        backend = tokenizer.backend_tokenizer
        backend.normalizer = Steps([Lowercase(), backend.normalizer])
    written = convert(tokenizer, embeddings)
    expected = _expected(tokenizer, max_tokens, embeddings, folder)
    other = differing(written, expected, max_tokens) if written is not None else None
    if written is None or other is not None:
        logger.warning(
            f"{folder}: the tokenizers library cannot express its {type(tokenizer).__name__}"
            + (f" (it reads {other[:40]!r} differently)" if other is not None else "")
            + ", which therefore reads all texts itself, in a process beside each ingress replica."
        )
        added = tokenizer.get_added_vocab()
        if any(number >= embeddings for number in added.values()):
            raise CheckpointError(
                f"{folder}: its {type(tokenizer).__name__} has added tokens for which its model "
                "has no embeddings; remove them or choose another checkpoint"
            )
        written = own_tokenizer.pack(folder, [*tokenizer.vocab_files_names.values(), *_FILES])
        if differing(written, expected, max_tokens) is not None:
            raise CheckpointError(
                f"{folder}: its {type(tokenizer).__name__} reads texts differently when it is "
                "loaded again; choose another checkpoint or report this one"
            )
    return CheckpointTokenizer(
        written,
        pad_id=pad_id or 0,
        pad_left=tokenizer.padding_side == "left",
        eos_id=tokenizer.eos_token_id,
    )


def _is_gemma(tokenizer: Any) -> bool:
    """By its kind of vocabulary, because repositories name several classes."""
    model = tokenizer.backend_tokenizer.model if tokenizer.is_fast else None
    return isinstance(model, BPE) and model.byte_fallback


def convert(tokenizer: Any, embeddings: int) -> str | None:
    """Its JSON for the `tokenizers` library; None if it exists in Python alone."""
    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
    elif type(tokenizer).__name__ == "SiglipTokenizer":
        backend = siglip_tokenizer.convert(tokenizer)
    else:
        return None
    written = json.loads(backend.to_str())
    added = written["added_tokens"]
    written["added_tokens"] = [token for token in added if token["id"] < embeddings]
    return json.dumps(written)


def load_tokenizer(folder: Path) -> Any:
    """As AutoTokenizer reads it. Raises CheckpointError."""
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # Rust's, sentencepiece's, json's or transformers' own
        reason = first_line(error)
        if isinstance(error, ImportError):  # the class needs a package
            raise CheckpointError(f"{folder}: its tokenizer cannot be loaded: {reason}") from error
        for path in sorted(folder.glob("*.json")):
            read_json(path)
        if (folder / _CONFIG).is_file():
            name = str(read_json(folder / _CONFIG).get("tokenizer_class"))
            _refuse_missing(folder, getattr(transformers, name.removesuffix("Fast"), None))
        raise CheckpointError(
            f"{folder}: its tokenizer cannot be loaded ({type(error).__name__}: {reason}); "
            "download its tokenizer files again"
        ) from error
    # Without a vocabulary, transformers makes one up from the special tokens alone.
    _refuse_missing(folder, type(tokenizer))
    return tokenizer


def _refuse_missing(folder: Path, tokenizer_class: Any) -> None:
    import transformers

    files = dict(getattr(tokenizer_class, "vocab_files_names", {}))
    whole = files.pop("tokenizer_file", None)
    if isinstance(tokenizer_class, type) and issubclass(
        tokenizer_class, transformers.TokenizersBackend
    ):
        whole = "tokenizer.json"  # which some do not name
    if whole is not None and (folder / whole).is_file():
        return
    missing = [name for name in files.values() if not (folder / name).is_file()]
    if whole is not None and len(missing) == len(files):  # none of its parts either
        missing = [whole]
    if missing:
        raise CheckpointError(
            f"{folder / missing[0]}: the file is missing, and this model cannot read texts without"
            " it"
        )


def _expected(
    tokenizer: Any, max_tokens: int, embeddings: int, folder: Path
) -> dict[str, list[int]]:
    """What the checkpoint's own tokenizer makes of texts of all kinds."""
    found = {
        text: tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]
        for text in of_all_kinds(tokenizer, embeddings)
    }
    for text, ids in found.items():
        if not ids and text.strip():  # of a blank text, some make none; the ingress refuses it
            raise CheckpointError(
                f"{folder}: its tokenizer makes no tokens of {text[:40]!r}, so its model cannot "
                "read that; choose another checkpoint"
            )
        if max(ids, default=0) >= embeddings:
            raise CheckpointError(
                f"{folder}: its tokenizer makes token {max(ids)} of {text[:40]!r}, and its model "
                f"has embeddings for {embeddings}; download both again"
            )
    return found


def of_all_kinds(tokenizer: Any, embeddings: int) -> list[str]:
    """`probes_with` the special tokens that the model knows."""
    ids = tokenizer.convert_tokens_to_ids(tokenizer.all_special_tokens)
    of_specials = zip(tokenizer.all_special_tokens, ids, strict=True)
    specials = [token for token, number in of_specials if number < embeddings]
    return probes_with(specials)


def probes_with(specials: Sequence[str]) -> list[str]:
    """Texts that tokenizers read differently, also with these special tokens."""
    return [*_PROBES, *(f"{s} a cat{s}a Dog {s.upper()} {s}bird" for s in specials)]


def differing(written: str, expected: dict[str, list[int]], max_tokens: int) -> str | None:
    """The first text that is read differently."""
    read = TextTokenizer(written, max_tokens=max_tokens).encode([*expected])
    pairs = zip(expected.items(), read, strict=True)
    return next((text for (text, ids), encoded in pairs if encoded.ids != ids), None)
