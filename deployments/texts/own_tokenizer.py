"""A checkpoint's own tokenizer, for one that the `tokenizers` library cannot express.

It needs transformers, which loads torch: 260 MB and two seconds. So it runs in a process of its
own, `python -m deployments.texts.own_tokenizer FOLDER MAX_TOKENS`, which reads a JSON list of texts
from each line of its input, and answers in a line with a list of [ids, truncated].
"""

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# A text takes less than a millisecond. A process that exceeds these limits hangs, and is killed.
_START_S = 120.0
_ANSWER_S = 20.0
_KEY = "own"


def pack(folder: Path, names: Sequence[str]) -> str:
    """The files of `folder` that are in `names`, as the JSON that `OwnTokenizer` takes."""
    files = {name: folder / name for name in names}
    return json.dumps(
        {_KEY: {n: b64encode(f.read_bytes()).decode() for n, f in files.items() if f.is_file()}}
    )


def is_packed(text: str) -> bool:
    return text.startswith(f'{{"{_KEY}"')


class OwnTokenizer:
    """Asks the process, and starts it again if it has died. For one thread at a time."""

    def __init__(self, packed: str, *, max_tokens: int) -> None:
        """Returns when the process answers. Raises RuntimeError if it does not."""
        self._files: dict[str, str] = json.loads(packed)[_KEY]
        for name in self._files:
            if name in ("", "..") or Path(name).name != name:
                raise RuntimeError(f"the tokenizer holds {name!r}, which is not a file's name")
        self._max_tokens = max_tokens
        self._process: subprocess.Popen[str] | None = None
        self._finalize: Callable[[], Any] = lambda: None
        self.encode([])

    def encode(self, texts: Sequence[str]) -> list[tuple[list[int], bool]]:
        """The ids of each text, and whether it was cut to fit. Raises RuntimeError."""
        for _ in range(2):
            try:
                if self._process is None:
                    self._process = self._start()
                return _ask(self._process, texts, within_s=_ANSWER_S)
            except (OSError, EOFError):
                self._finalize()
                self._process = None
        raise RuntimeError("the process of the checkpoint's own tokenizer does not answer")

    def _start(self) -> subprocess.Popen[str]:
        with TemporaryDirectory(prefix="raylens-tokenizer-") as folder:
            for name, data in self._files.items():
                Path(folder, name).write_bytes(b64decode(data))
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", __name__, folder, str(self._max_tokens)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._finalize = weakref.finalize(self, _end, process)
            _ask(process, [], within_s=_START_S)  # then it has read the files
        return process


def _ask(
    process: subprocess.Popen[str], texts: Sequence[str], *, within_s: float
) -> list[tuple[list[int], bool]]:
    """Raises EOFError or OSError if the process has ended, or has been killed as too late."""
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    watchdog = threading.Timer(within_s, process.kill)
    watchdog.start()
    try:
        process.stdin.write(json.dumps(texts) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
    if not line.endswith("\n"):
        raise EOFError
    return [(ids, truncated) for ids, truncated in json.loads(line)]


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    # Closing its input writes what is left to be written, which fails if the process has died.
    with suppress(OSError), process:  # closes its pipes and waits
        pass


def main() -> None:
    folder, max_tokens = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the service
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    for line in sys.stdin:
        read = [_read(tokenizer, text, max_tokens) for text in json.loads(line)]
        print(json.dumps(read), file=answers, flush=True)


def _read(tokenizer: Any, text: str, max_tokens: int) -> tuple[list[int], bool]:
    whole = tokenizer(text, verbose=False)["input_ids"]
    ids = tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]
    return ids, len(whole) > len(ids)


if __name__ == "__main__":
    main()
