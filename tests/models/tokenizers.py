"""Tiny tokenizers of each family, trained on the spot and laid out like the published folders.

Each function writes tokenizer files alone; `config.json` comes from the model that is saved there.
"""

import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from deployments.models.siglip_tokenizer import unicode_rules

NO_LIMIT = int(1e30)  # how transformers writes that a tokenizer has no model_max_length
CORPUS = [
    "a photo of a cat and a dog on the table",
    "a photo of the cats, a photo of the dogs, a photo of the tables",
    "photographs of houses and of mountains in the morning light",
    "someone is walking, someone was running, someone will be sleeping",
    "the lights of the city at night, seen from the mountain",
    "children playing with a ball in the park near the river",
    "two photos of the same house, taken in 1984 and 2024.",
    "A man is running; a woman isn't! (They're late?)",
    "the quick brown fox jumps over the lazy dog #1 @home <unk>",
    "un café près de la forêt, naïve über straße",
    "Tiếng Việt có dấu",
    "мир и привет, кот на столе",
    "ὁ κόσμος και η γάτα Ἀθήνα πόλις",
    "北京的一只猫 和 一只狗 照片",
    "東京の猫の写真 です ガギグ",
    "한국어 고양이 사진",
    "\u0645\u0651\u064e\u062f \u0645\u0651\u064e",  # accents in the order in which they are typed
]


class Vocabulary(NamedTuple):
    """What a model's text_config has to say about its tokenizer."""

    size: int
    bos: int | None
    eos: int
    pad: int


def clip_tokenizer(
    folder: Path, *, vocab_size: int = 700, pad_token: str = "<|endoftext|>"
) -> Vocabulary:
    """Like openai/clip-vit-base-patch32; OpenCLIP's converted checkpoints may pad with "!"."""
    splits = [
        pre_tokenizers.Split(Regex(r"'s|'t|'re|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    _train(tokenizer, trainers.BpeTrainer(vocab_size=vocab_size, end_of_word_suffix="</w>"))
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = merges[: vocab_size - 2 * len(alphabet) - 2]
    words = [*alphabet, *(f"{char}</w>" for char in alphabet), *(a + b for a, b in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]  # EOS has the largest id, which CLIP relies on
    ids = {word: number for number, word in enumerate(words)}

    tokenizer = Tokenizer(
        models.BPE(ids, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", ids["<|endoftext|>"]), ("<|startoftext|>", ids["<|startoftext|>"])
    )
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    specials = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad_token,
    }
    _save(folder, tokenizer, "CLIPTokenizer", specials, model_max_length=77, do_lower_case=True)
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return Vocabulary(len(ids), ids["<|startoftext|>"], ids["<|endoftext|>"], ids[pad_token])


def siglip_tokenizer(
    folder: Path, *, lower_case: bool = True, normaliser: str = "nmt_nfkc"
) -> Vocabulary:
    """Like google/siglip-base-patch16-224. Nothing reads the tokenizer.json written here."""
    pieces = _pieces(normaliser)
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    specials = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    stripping = {"lstrip": True, "rstrip": True, "single_word": False, "normalized": False}
    _save(
        folder,
        tokenizer,
        "SiglipTokenizer",
        specials,
        model_max_length=64,
        do_lower_case=lower_case,
        model_input_names=["input_ids"],
        added_tokens_decoder={
            str(number): {"content": token, "special": True, **stripping}
            for number, token in [(1, "</s>"), (2, "<unk>")]
        },
    )
    (folder / "spiece.model").write_bytes(_sentencepiece(normaliser))
    return Vocabulary(len(pieces), None, 1, 1)


def siglip2_tokenizer(folder: Path, *, lower_case: bool = False) -> Vocabulary:
    """Like google/siglip2-base-patch16-224, whose tokenizer is Gemma's and keeps the case; with
    `lower_case`, like transformers' own Siglip2Tokenizer.
    """
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    _train(tokenizer, trainers.BpeTrainer(vocab_size=400))
    trained = json.loads(tokenizer.to_str())["model"]
    words = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *trained["vocab"]]
    ids = {word: number for number, word in enumerate(words)}

    tokenizer = Tokenizer(
        models.BPE(
            ids,
            [tuple(pair) for pair in trained["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "<eos>"], special_tokens=[("<eos>", ids["<eos>"])]
    )
    tokenizer.add_special_tokens(specials)
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding(length=64, pad_id=0, pad_token="<pad>")
    _save(
        folder,
        tokenizer,
        "Siglip2Tokenizer" if lower_case else "GemmaTokenizer",
        {f"{token[1:-1]}_token": token for token in specials},
        model_max_length=NO_LIMIT,
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_input_names=["input_ids"],
    )
    return Vocabulary(len(ids), ids["<bos>"], ids["<eos>"], ids["<pad>"])


def tipsv2_tokenizer(folder: Path) -> Vocabulary:
    """Like google/tipsv2-b14: lower case, no special token around a text, none in an empty one."""
    specials = ["<pad>", "<unk>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    _train(tokenizer, trainers.BpeTrainer(vocab_size=300))
    trained = json.loads(tokenizer.to_str())["model"]
    words = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *trained["vocab"]]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer.model = models.BPE(
        ids,
        [tuple(pair) for pair in trained["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer.add_special_tokens(specials)
    named = {"pad_token": "<pad>", "unk_token": "<unk>"}
    _save(folder, tokenizer, "Tipsv2Tokenizer", named, model_max_length=64)
    return Vocabulary(len(ids), None, 1, 0)


def bert_tokenizer(folder: Path, *, vocabulary_alone: bool = False) -> Vocabulary:
    """Like kakaobrain/align-base; Chinese-CLIP's folders have the vocabulary file alone."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=400, special_tokens=specials))
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    if not vocabulary_alone:
        names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        named = dict(zip(names, specials, strict=True))
        _save(folder, tokenizer, "BertTokenizer", named, model_max_length=512, do_lower_case=True)
    words = sorted(ids, key=lambda word: ids[word])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    return Vocabulary(len(ids), ids["[CLS]"], ids["[SEP]"], ids["[PAD]"])


def xlm_roberta_tokenizer(folder: Path, *, model_max_length: int = 512) -> Vocabulary:
    """Like BAAI/AltCLIP and, with another vocabulary, facebook/metaclip-2-worldwide-*."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((token, 0.0) for token in specials), *_pieces()[3:], ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.Precompiled(unicode_rules(_sentencepiece()))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"], special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([*specials, AddedToken("<mask>", lstrip=True)])
    named = {
        **{"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"},
        **{"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
    }
    _save(folder, tokenizer, "XLMRobertaTokenizer", named, model_max_length=model_max_length)
    return Vocabulary(len(pieces), 0, 2, 1)


@cache
def _sentencepiece(normaliser: str = "nmt_nfkc") -> bytes:
    """A unigram model in sentencepiece's own format, with SigLIP's ids for special tokens."""
    from sentencepiece import SentencePieceTrainer

    written = BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_writer=written,
        vocab_size=400,
        hard_vocab_limit=False,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name=normaliser,
        num_threads=1,
        minloglevel=2,
    )
    return written.getvalue()


def _pieces(normaliser: str = "nmt_nfkc") -> list[tuple[str, float]]:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_proto=_sentencepiece(normaliser))
    return [(model.id_to_piece(n), model.get_score(n)) for n in range(model.get_piece_size())]


def _train(tokenizer: Tokenizer, trainer: Any) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator(CORPUS * 4, trainer)


def _save(
    folder: Path, tokenizer: Tokenizer, name: str, specials: dict[str, str], **config: Any
) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": name, **specials, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(specials))
