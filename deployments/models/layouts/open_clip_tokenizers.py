"""OpenCLIP's tokenizers as one JSON: its byte-pair encoding, and transformers' as it wraps them.

The reference is what open_clip's own objects make of texts, which are tried when a model is loaded.
"""

import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from deployments.checkpoints.checkpoint import CheckpointError, first_line
from deployments.checkpoints.integrity import TOKENIZERS
from deployments.checkpoints.layout import CONFIG, OPEN_CLIP_CONFIG
from deployments.checkpoints.open_clip import OpenClipConfig, find_tokenizer
from deployments.models.texts import convert, probes_with
from deployments.texts import cleaning, own_tokenizer
from deployments.texts.tokenizer import TextTokenizer
from deployments.wire import pad_tokens

# What a file may set of either class. Others would read files of this machine, run the repository's
# code, or cut long texts at random places.
_OPTIONS = {"clean", "additional_special_tokens"}
_HF_OPTIONS = {"clean", "language", "strip_sep_token"}

_MORE_PROBES = (
    *(
        "&lt;b&gt; &amp;amp; &eacute;",
        "sch\u00c3\u00b6n \u00e2\u20ac\u0153quoted",
        "snake_case - _x_",
    ),
    *("'s 'S '\u017f it'S", "!<end_of_text> x<start_of_text>", "<END_OF_TEXT>", "</s><pad>[SEP]"),
    *("(a) [b] {c} \u00abd\u00bb", "\ufb01\u00a0\u2167 \u00b2 \u00bd", "\u0660\u0661 \u06f1"),
    *("\uff57\uff49\uff44\uff45\u3000x", "a\u0345\u1fb3", "\u00d8\u00df \u1e9e \u0130x"),
)


def build(library: Any, folder: Path, config: OpenClipConfig) -> Any:
    """open_clip's own object for the checkpoint's tokenizer. Raises CheckpointError."""
    path = folder / OPEN_CLIP_CONFIG
    options = config.text.get("tokenizer_kwargs") or {}
    if not isinstance(options, dict):
        raise CheckpointError(
            f"{path}: its text_cfg's tokenizer_kwargs should be an object; download it again"
        )
    length = config.text.get("context_length", library.tokenizer.DEFAULT_CONTEXT_LENGTH)
    unknown = set(options) - (_OPTIONS if config.tokenizer is None else _HF_OPTIONS)
    if config.text.get("tokenizer_mode"):
        unknown.add("tokenizer_mode")
    if unknown:
        raise CheckpointError(
            f"{path}: its text_cfg sets {', '.join(sorted(unknown))} for the tokenizer, which "
            "raylens does not know; choose another checkpoint"
        )
    try:
        if config.tokenizer is None:
            return library.tokenizer.SimpleTokenizer(context_length=length, **options)
        found = find_tokenizer(folder, config.tokenizer)
        if found is None:
            raise CheckpointError(
                f"{folder}: has no tokenizer, and that of {config.tokenizer!r} is not in the hub's "
                "local cache; copy its tokenizer.json and tokenizer_config.json there"
            )
        return library.tokenizer.HFTokenizer(
            str(found),
            context_length=length,
            local_files_only=True,
            trust_remote_code=False,
            **options,
        )
    except CheckpointError:
        raise
    except Exception as error:  # open_clip's assertions, Rust's errors, transformers' own
        raise CheckpointError(
            f"{folder}: its tokenizer cannot be loaded ({type(error).__name__}: "
            f"{first_line(error)}); download its tokenizer files again"
        ) from error


def written(
    tokenizer: Any, *, folder: Path, embeddings: int, rows: Callable[[Tensor], Tensor]
) -> str:
    """The JSON of what `build` made.

    `rows` pads (N, L) tokens as the model is fed. Raises CheckpointError if a text would be read
    differently, or as a token that the model, which has `embeddings`, does not know.
    """
    length: int = tokenizer.context_length
    kind = _cleaning(tokenizer)
    own = getattr(tokenizer, "tokenizer", None)  # of transformers
    specials = [*getattr(tokenizer, "cache", ())][:9] if own is None else own.all_special_tokens
    probes = [*probes_with(specials), *_MORE_PROBES]
    expected: Tensor = tokenizer(probes)
    if int(expected.max()) >= embeddings:
        raise CheckpointError(
            f"{folder}: its tokenizer makes token {int(expected.max())}, and its model has "
            f"embeddings for {embeddings}; download both again"
        )
    for candidate in _candidates(tokenizer):
        text = cleaning.wrap(candidate, clean=kind)
        read = TextTokenizer(text, max_tokens=length).encode(probes)
        found = rows(torch.from_numpy(pad_tokens([encoded.ids for encoded in read])))
        if torch.equal(found, expected[:, : found.shape[1]]):
            return text
    raise CheckpointError(
        f"{folder}: raylens cannot read texts as its {type(tokenizer).__name__} does; choose "
        "another checkpoint or report this one"
    )


def _candidates(tokenizer: Any) -> Iterator[str]:
    """Its JSON without what is done to texts first, from the fastest to the surest."""
    own = getattr(tokenizer, "tokenizer", None)  # of transformers
    if own is None:
        yield _byte_pairs(tokenizer)
        return
    converted = convert(own, sys.maxsize)
    if converted is not None:
        yield converted
    folder = Path(own.name_or_path)
    known = (CONFIG, *TOKENIZERS, *own.vocab_files_names.values())
    # The weights may lie in the same folder.
    names = [p.name for p in folder.iterdir() if any(fnmatch(p.name, name) for name in known)]
    yield own_tokenizer.pack(folder, names)


def _cleaning(tokenizer: Any) -> str:
    kinds = {"_clean_lower": "lower", "_clean_whitespace": "whitespace"}
    return kinds.get(tokenizer.clean_fn.__name__, "canonicalize")


def _byte_pairs(tokenizer: Any) -> str:
    """The JSON of a SimpleTokenizer: CLIP's, with special tokens that may stand in a text."""
    vocabulary: dict[str, int] = dict(tokenizer.encoder)
    merges = list(tokenizer.bpe_ranks)
    plain = BPE(vocabulary, merges, end_of_word_suffix="</w>")
    specials = {
        token: vocabulary.pop(token) for token in [*tokenizer.encoder][-_added(tokenizer) :]
    }
    for token, number in specials.items():
        # The pattern below makes it a word, and these last merges make that word one token. They
        # apply nowhere else, as no other word has letters beside punctuation.
        pieces = [piece.value for piece in plain.tokenize(token)]
        joined = pieces[0]
        for piece in pieces[1:]:
            merges.append((joined, piece))
            joined += piece
            vocabulary.setdefault(joined, len(tokenizer.encoder) + len(merges))
        vocabulary[joined] = number
    start, end = list(specials)[:2]
    found = Tokenizer(BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    letters, digits, others = map(_ranges, (r"[\p{L}]+", r"[\p{N}]+", r"[^\s\p{L}\p{N}]+"))
    pattern = f"(?i:{'|'.join(specials)}|'s|'t|'re|'ve|'m|'ll|'d)"
    pattern += f"|[{letters}]+|[{digits}]|[{others}]+"
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    found.post_processor = TemplateProcessing(
        single=[start, "$A", end], special_tokens=[(s, specials[s]) for s in (start, end)]
    )
    return found.to_str()


@cache
def _ranges(pattern: str) -> str:
    """The characters that open_clip's regular expressions find, spelt out: those of the tokenizers
    library have another Unicode's letters."""
    import regex  # as open_clip does

    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    found = [match.group() for match in regex.finditer(pattern, everything, regex.IGNORECASE)]
    return "".join(rf"\x{{{ord(part[0]):x}}}-\x{{{ord(part[-1]):x}}}" for part in found)


def _added(tokenizer: Any) -> int:
    return len(tokenizer.all_special_ids)
