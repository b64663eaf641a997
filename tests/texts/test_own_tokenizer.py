"""The process of a checkpoint's own tokenizer is started again when it dies or hangs."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from deployments.texts import own_tokenizer
from deployments.texts.own_tokenizer import OwnTokenizer, pack
from tests.until import until

A_CAT = ([100, 35, 102, 100, 119, 1], False)  # a byte's value and 3, and then </s>


@pytest.fixture
def packed(tmp_path: Path) -> str:
    config = {"tokenizer_class": "ByT5Tokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return pack(tmp_path, ["tokenizer_config.json", "there is none"])


def child() -> psutil.Process:
    (found,) = (
        process
        for process in psutil.Process().children()
        if own_tokenizer.__name__ in process.cmdline()
    )
    return found


@pytest.mark.slow
def test_a_process_that_died_or_hangs_is_replaced(
    packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = OwnTokenizer(packed, max_tokens=9)
    assert tokenizer.encode(["a cat", "a\ncat and two dogs"])[0] == A_CAT
    assert tokenizer.encode(["a\ncat and two dogs"])[0][1]
    process = child()
    process.kill()
    until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert tokenizer.encode(["a cat"]) == [A_CAT]
    monkeypatch.setattr(own_tokenizer, "_ANSWER_S", 0.2)
    os.kill(child().pid, signal.SIGSTOP)
    assert tokenizer.encode(["a cat"]) == [A_CAT]
    process = child()
    del tokenizer
    process.wait(10)


def test_files_that_cannot_be_loaded_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="does not answer"):
        OwnTokenizer(pack(tmp_path, []), max_tokens=9)


@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere/x", "a/b", "..", ""])
def test_a_file_is_never_written_elsewhere(name: str) -> None:
    with pytest.raises(RuntimeError, match="which is not a file's name"):
        OwnTokenizer(json.dumps({"own": {name: ""}}), max_tokens=9)
