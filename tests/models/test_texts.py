"""Each family's tokenizer, run without transformers, against AutoTokenizer on the same folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from transformers import AutoTokenizer

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models.texts import read_tokenizer
from deployments.texts.tokenizer import Encoded, TextTokenizer
from tests.models import tokenizers
from tests.models.tokenizers import Vocabulary

TEXTS = [
    "",
    " ",
    "a photo of a cat",
    "A Photo of the CATS, and (of) a DOG!!! it's 1984...",
    "  leading,  double\tand\ntrailing spaces \r\n ",
    "🎉🐈 party 👩\u200d👧 🇩🇪 👍🏽",
    "naïve café, nai\u0308ve cafe\u0301 İSTANBUL Straße",
    "ὉΔΌΣ ΣΊΣΥΦΟΣ. ΓΑ\u0301Σ ΣΑΣ",
    "北京的一只猫。東京の猫 ｶﾞｷﾞ \uff21\uff22\uff11",
    "한국어 \u1112\u1161\u11ab\u1100\u116e\u11a8",
    "Tie\u0302\u0301ng Vie\u0323\u0302t có dấu",
    "привет мир مُحَمَّد שָׁלוֹם हिन्दी น้ำ",
    "\u0645\u064f\u062d\u0645\u0651\u064e\u062f \u0645\u064e\u0651",
    "!!! ... ??? #$%&",
    "zero\u200bwidth\u00a0no-break▁underline_\x00\x1c\x7f\ue000\ufffd",
    "a cat </s> a dog <|endoftext|> [SEP] <eos> <unk>cat <pad> <s> [MASK]!",
    "</S> <|ENDOFTEXT|> [sep] < / s >",
    "a photo of one of the five hundred words " * 56,
    "x" * 3000,
    "🎉" * 600,
]


class Family(NamedTuple):
    model_type: str
    build: Callable[[Path], Vocabulary]
    max_tokens: int


FAMILIES = {
    "clip": Family("clip", tokenizers.clip_tokenizer, 77),
    "open_clip": Family("clip", lambda f: tokenizers.clip_tokenizer(f, pad_token="!"), 77),
    "siglip": Family("siglip", tokenizers.siglip_tokenizer, 64),
    "siglip, any case": Family(
        "siglip", lambda f: tokenizers.siglip_tokenizer(f, lower_case=False), 64
    ),
    "siglip2": Family("siglip", tokenizers.siglip2_tokenizer, 64),
    "siglip2, lower case": Family(
        "siglip", lambda f: tokenizers.siglip2_tokenizer(f, lower_case=True), 64
    ),
    "align": Family("align", tokenizers.bert_tokenizer, 64),
    "chinese_clip": Family(
        "chinese_clip", lambda f: tokenizers.bert_tokenizer(f, vocabulary_alone=True), 52
    ),
    "altclip": Family("altclip", tokenizers.xlm_roberta_tokenizer, 512),
    "metaclip_2": Family(
        "metaclip_2", lambda f: tokenizers.xlm_roberta_tokenizer(f, model_max_length=77), 77
    ),
}


def build(folder: Path, name: str) -> Vocabulary:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": FAMILIES[name].model_type}))
    return FAMILIES[name].build(folder)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Family, Vocabulary, Path]:
    return FAMILIES[request.param], build(tmp_path, request.param), tmp_path


def reference(folder: Path, **options: Any) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids: list[list[int]] = tokenizer(TEXTS, **options)["input_ids"]
    return ids


def test_ids_are_those_of_the_checkpoints_own_tokenizer(
    family: tuple[Family, Vocabulary, Path],
) -> None:
    (_, _, most), _, folder = family
    tokenizer = TextTokenizer(read_tokenizer(folder, max_tokens=most).json, max_tokens=most)
    whole = reference(folder)
    assert tokenizer.encode(TEXTS) == [
        Encoded(cut, truncated=len(ids) > most)
        for cut, ids in zip(reference(folder, truncation=True, max_length=most), whole, strict=True)
    ]
    assert max(len(ids) for ids in whole) > most > 50  # both cases were among the texts
    longer = TextTokenizer(read_tokenizer(folder, max_tokens=most).json, max_tokens=100_000)
    assert [encoded.ids for encoded in longer.encode(TEXTS)] == whole


def test_rows_are_padded_as_the_checkpoint_says(
    family: tuple[Family, Vocabulary, Path],
) -> None:
    (_, _, most), vocabulary, folder = family
    found = read_tokenizer(folder, max_tokens=most)
    assert (found.pad_id, found.pad_left) == (vocabulary.pad, False)


def test_truncation_and_padding_are_left_to_the_service(tmp_path: Path) -> None:
    build(tmp_path, "siglip2")
    published = json.loads((tmp_path / "tokenizer.json").read_text())
    written = json.loads(read_tokenizer(tmp_path, max_tokens=64).json)
    assert published["truncation"]
    assert published["padding"]
    assert written["truncation"] is written["padding"] is None


def test_a_checkpoint_may_pad_on_the_left(tmp_path: Path) -> None:
    build(tmp_path, "siglip2")
    configure(tmp_path, padding_side="left")
    assert read_tokenizer(tmp_path, max_tokens=64).pad_left


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_siglip_text_that_ends_in_the_end_token_is_the_same_once_padded(
    tmp_path: Path,
) -> None:
    build(tmp_path, "siglip")
    json_ = read_tokenizer(tmp_path, max_tokens=64).json
    (ours,) = TextTokenizer(json_, max_tokens=64).encode(["a cat</s>"])
    slow = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    with pytest.warns(UserWarning, match="already has"):
        theirs = slow("a cat</s>", padding="max_length", max_length=64)["input_ids"]
    assert ours.ids + [1] * (64 - len(ours.ids)) == theirs


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("clip", "tokenizer.json"),
        ("siglip", "spiece.model"),
        ("siglip2", "tokenizer.json"),
        ("align", "tokenizer.json"),
        ("altclip", "tokenizer.json"),
    ],
)
def test_a_missing_vocabulary_is_named(tmp_path: Path, name: str, file: str) -> None:
    build(tmp_path, name)
    for other in ("vocab.json", "merges.txt", "vocab.txt"):
        (tmp_path / other).unlink(missing_ok=True)
    (tmp_path / file).unlink()
    with pytest.raises(CheckpointError, match=f"{file}: the file is missing"):
        read_tokenizer(tmp_path, max_tokens=64)


def test_half_a_vocabulary_names_the_other_half(tmp_path: Path) -> None:
    build(tmp_path, "clip")
    (tmp_path / "tokenizer.json").unlink()
    assert read_tokenizer(tmp_path, max_tokens=77).pad_id == 699  # its parts are enough
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"merges.txt: the file is missing"):
        read_tokenizer(tmp_path, max_tokens=77)


def test_a_folder_without_any_tokenizer_file_is_refused(tmp_path: Path) -> None:
    build(tmp_path, "chinese_clip")
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer.json: the file is missing"):
        read_tokenizer(tmp_path, max_tokens=52)


@pytest.mark.parametrize(("name", "file"), [("clip", "tokenizer.json"), ("siglip", "spiece.model")])
def test_a_file_cut_short_is_named(tmp_path: Path, name: str, file: str) -> None:
    build(tmp_path, name)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=file):
        read_tokenizer(tmp_path, max_tokens=64)


def test_a_repositorys_own_code_is_not_run(tmp_path: Path) -> None:
    build(tmp_path, "clip")
    (tmp_path / "own.py").write_text("raise SystemExit('run')")
    (tmp_path / "tokenizer.json").unlink()
    configure(tmp_path, tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]})
    with pytest.raises(CheckpointError, match="its tokenizer cannot be loaded"):
        read_tokenizer(tmp_path, max_tokens=77)


def test_a_tokenizer_without_a_padding_token_is_refused_where_padding_is_read(
    tmp_path: Path,
) -> None:
    build(tmp_path, "align")
    configure(tmp_path, pad_token=None, tokenizer_class="PreTrainedTokenizerFast")
    (tmp_path / "special_tokens_map.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json: names no pad_token"):
        read_tokenizer(tmp_path, max_tokens=64)


def keeps_the_last_words(folder: Path) -> None:
    build(folder, "align")
    configure(folder, truncation_side="left")


def exists_in_python_alone(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "align"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))


def has_the_identity_normaliser(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    tokenizers.siglip_tokenizer(folder, normaliser="identity")


@pytest.mark.slow
@pytest.mark.parametrize(
    "write", [keeps_the_last_words, exists_in_python_alone, has_the_identity_normaliser]
)
def test_a_tokenizer_that_cannot_be_converted_exactly_reads_texts_itself(
    tmp_path: Path, write: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    ours = TextTokenizer(read_tokenizer(tmp_path, max_tokens=32).json, max_tokens=32)
    assert "reads all texts itself" in caplog.text
    for text, encoded in zip(TEXTS, ours.encode(TEXTS), strict=True):
        whole = theirs(text)["input_ids"]
        assert encoded.ids == theirs(text, truncation=True, max_length=32)["input_ids"]
        assert encoded.truncated == (len(whole) > 32)


def test_siglip_2_lower_cases_as_transformers_own_tokenizer_does(tmp_path: Path) -> None:
    named, own = tmp_path / "named", tmp_path / "own"
    build(named, "siglip2")
    build(own, "siglip2, lower case")
    written = read_tokenizer(named, max_tokens=64, lower_cases_gemma=True).json
    ours = TextTokenizer(written, max_tokens=64).encode(TEXTS)
    theirs = AutoTokenizer.from_pretrained(own, local_files_only=True)
    expected = [theirs(text, truncation=True, max_length=64)["input_ids"] for text in TEXTS]
    assert [encoded.ids for encoded in ours] == expected
