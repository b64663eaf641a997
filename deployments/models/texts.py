"""A checkpoint's tokenizer as one JSON string that the `tokenizers` library reads by itself.

Texts are tokenised in the ingress, which has neither the checkpoint nor transformers. The reference
is AutoTokenizer's output; padding is left to `towers`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from deployments.checkpoints.checkpoint import CheckpointError, first_line, read_json
from deployments.models import siglip_tokenizer

_CONFIG = "tokenizer_config.json"

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
    """For `tokenizers.Tokenizer.from_str`; adds special tokens, neither truncates nor pads."""
    pad_id: int
    """0 where there is none, which is never read."""
    pad_left: bool
    """Whether rows are padded before the text instead of after it."""


def read_tokenizer(
    folder: Path, *, max_tokens: int, reads_padding: bool = True
) -> CheckpointTokenizer:
    """The tokenizer in a checkpoint's folder, independent of transformers.

    Raises CheckpointError if a file is missing or damaged, if a model that `reads_padding` has no
    pad token, or if the result, truncated to
    `max_tokens` ids, differs from the checkpoint's own tokenizer for any of a set of texts.
    """
    tokenizer = _load(folder)
    pad_id = tokenizer.pad_token_id
    if pad_id is None and reads_padding:
        raise CheckpointError(f"{folder / _CONFIG}: names no pad_token; add the model's own")
    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
    elif type(tokenizer).__name__ == "SiglipTokenizer":
        backend = siglip_tokenizer.convert(tokenizer)
    else:
        raise CheckpointError(
            f"{folder}: its {type(tokenizer).__name__} exists in Python alone, which raylens "
            "cannot serve; choose a checkpoint with a tokenizer.json"
        )
    json = backend.to_str()
    _compare(json, tokenizer, max_tokens, folder)
    return CheckpointTokenizer(json, pad_id or 0, tokenizer.padding_side == "left")


def _load(folder: Path) -> Any:
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
    files = dict(getattr(tokenizer_class, "vocab_files_names", {}))
    whole = files.pop("tokenizer_file", None)
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


def _compare(json: str, tokenizer: Any, max_tokens: int, folder: Path) -> None:
    ours = Tokenizer.from_str(json)
    ours.enable_truncation(max_tokens)
    specials = tokenizer.all_special_tokens
    probes = [*_PROBES, *(f"{s} a cat{s}a Dog {s.upper()} {s}bird" for s in specials)]
    for text in probes:
        theirs = tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]
        if not theirs:
            raise CheckpointError(
                f"{folder}: its tokenizer makes no tokens of {text[:40]!r}, so its model cannot "
                "read that; choose another checkpoint"
            )
        if ours.encode(text).ids != theirs:
            raise CheckpointError(
                f"{folder}: its tokenizer, as raylens would use it, reads {text[:40]!r} "
                "differently from transformers; choose another checkpoint or report this one"
            )
