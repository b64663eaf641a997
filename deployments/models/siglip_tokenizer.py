"""SigLIP's tokenizer, written with the `tokenizers` library.

transformers has it only as Python code around sentencepiece: lower-casing, removal of punctuation
and repeated spaces, then a unigram model with sentencepiece's own Unicode rules, then `</s>`.
"""

import string
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, processors
from tokenizers.models import Unigram
from tokenizers.normalizers import NFC, Lowercase, Normalizer, Precompiled, Prepend, Replace
from tokenizers.normalizers import Sequence as Steps

# A control character: it separates grapheme clusters, and sentencepiece's rules drop it.
_GAP = "\x01"
# Special tokens in a text become one private-use character each while the rest is normalised.
_FIRST_MARK = 0xE000
_NO_MARK = "\uf8ff"
# Python's \s, and what sentencepiece writes for a space.
_SPACES = r"[\s\x1c-\x1f▁]+"
# The Unicode standard's Final_Sigma, with at most two accents or apostrophes before the letter.
_I = r"\p{Case_Ignorable}"
_FINAL_SIGMA = rf"(?<=\p{{Cased}}|\p{{Cased}}{_I}|\p{{Cased}}{_I}{_I})Σ(?!{_I}*+\p{{Cased}})"


def convert(tokenizer: Any) -> Tokenizer:
    """The equivalent of a transformers `SiglipTokenizer`, except that a text which ends in `</s>`
    gets a second one. As that is the padding too, the model cannot tell.
    """
    model = tokenizer.sp_model
    numbers = range(model.get_piece_size())
    added = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    converted = Tokenizer(
        Unigram(
            [(model.id_to_piece(n), model.get_score(n)) for n in numbers],
            unk_id=model.unk_id(),
            byte_fallback=any(model.is_byte(n) for n in numbers),
        )
    )
    rules = unicode_rules(model.serialized_model_proto())
    converted.normalizer = Steps(_steps(added, tokenizer.do_lower_case, rules))
    converted.post_processor = processors.TemplateProcessing(
        single=["$A", tokenizer.eos_token],
        special_tokens=[(tokenizer.eos_token, tokenizer.eos_token_id)],
    )
    converted.add_special_tokens([AddedToken(token, normalized=True) for token in added])
    return converted


def unicode_rules(model: bytes) -> bytes:
    """The `precompiled_charsmap` in the `normalizer_spec` of a sentencepiece model.

    sentencepiece's own classes for this format load only with the newest protobuf.
    """
    from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
    from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]

    message = model
    for number in (3, 2):  # as in sentencepiece_model.proto
        fields = UnknownFieldSet(Empty.FromString(message))
        message = {field.field_number: field.data for field in fields}.get(number, b"")
    return message


def _steps(added: list[str], lower_case: bool, rules: bytes) -> list[Normalizer]:
    marks = [chr(_FIRST_MARK + number) for number in range(len(added))]
    mark = f"[{''.join(marks)}]"
    steps: list[Normalizer] = [Replace(Regex(mark), _NO_MARK)]
    steps += [Replace(token, char) for token, char in zip(added, marks, strict=True)]
    if lower_case:  # as in Python; Lowercase alone does not handle the final sigma
        steps += [Replace(Regex(_FINAL_SIGMA), "ς"), Lowercase()]
    punctuation = "".join(f"\\{char}" for char in string.punctuation)
    steps += [
        Replace(Regex(f"[{punctuation}]+"), ""),
        Replace(Regex(_SPACES), " "),
        Replace(Regex(f"(?<={mark}) +"), ""),
    ]
    if rules:
        steps += _unicode_steps(rules)
    return [
        *steps,
        Replace(Regex(f"^ +| +(?={mark}| |$)"), ""),
        # A space is added to the beginning of a text, but not after a special token.
        Prepend("▁"),
        Replace(Regex(f"^▁(?={mark})"), ""),
        Replace(" ", "▁"),
    ]


def _unicode_steps(rules: bytes) -> list[Normalizer]:
    """sentencepiece's rules, which replace the longest sequence of characters that they know.

    Precompiled replaces whole grapheme clusters or single characters and loses accents in
    between. So it gets the characters one by one, and they are composed afterwards, each accent
    with what precedes it: several at once would be reordered, which sentencepiece does not do.
    """
    between_accents = Regex(r"(?<=\p{M})(?=\p{M})")
    behind_a_letter = Regex(rf"(?<!\p{{M}}){_GAP}")
    return [
        Replace(Regex("(?<=.)(?=.)"), _GAP),
        Precompiled(rules),
        Replace(_GAP, ""),
        Replace(between_accents, _GAP),
        NFC(),
        Replace(behind_a_letter, ""),
        NFC(),
        Replace(_GAP, ""),
    ]
