"""Reads an embeddings file of any kind, vectors as they are needed."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from raylens.embeddings.files import (
    Block,
    EmbeddingsError,
    EmbeddingsFile,
    JsonLines,
    NpyFile,
    ParquetFile,
    ParquetFolder,
    Record,
    Vectors,
    blocks_of,
)

_KINDS: dict[str, type[ParquetFile | NpyFile | JsonLines]] = {
    ".parquet": ParquetFile,
    ".npy": NpyFile,
    ".jsonl": JsonLines,
}


class Embeddings:
    """The rows of a file, in its order. Those that failed are there too, as NaNs.

    ```python
    embeddings = read("photos.parquet")
    embeddings.vectors[0]               # float32, (D,)
    embeddings.records([0])[0].source   # "/photos/cat.jpg"
    ```

    Attributes:
        model, revision: of the model that made the vectors; None if the file is silent.
        dimensions: D; 0 if the file does not show it, because all its rows failed.
    """

    def __init__(self, file: EmbeddingsFile, path: Path) -> None:
        self._file = file
        self._path = path
        self._norms = np.full(len(file), -1.0, np.float32)
        self.model = file.model
        self.revision = file.revision
        self.dimensions = file.dimensions

    def __len__(self) -> int:
        return len(self._file)

    @cached_property
    def vectors(self) -> Vectors:
        """(N, D), mapped from the disk and read-only.

        What Parquet and JSON hold is first written to a file in the folder for temporary files,
        which goes away with this process; `blocks` and what uses it are the faster for it. Raises
        EmbeddingsError if there is no space.
        """
        if isinstance(self._file, NpyFile):
            return self._file.vectors
        if not len(self) or not self.dimensions:
            return np.zeros((len(self), self.dimensions), np.float32)
        with tempfile.TemporaryFile(prefix="raylens-") as file:
            try:
                for block in self.blocks():
                    # Written, not assigned to a map, where a full disk would end the process.
                    file.write(np.ascontiguousarray(block.vectors).data)
                file.flush()
            except OSError as error:
                raise EmbeddingsError(
                    f"cannot write the vectors to {tempfile.gettempdir()}: {error.strerror}"
                ) from None
            return np.memmap(file, np.float32, mode="r", shape=(len(self), self.dimensions))

    def blocks(self) -> Iterator[Block]:
        """All vectors, a block of rows at a time: memory stays flat."""
        mapped = self.__dict__.get("vectors")  # only if it was asked for before
        with _reading(self._path):
            yield from self._file.blocks() if mapped is None else blocks_of(mapped)

    def norms(self, block: Block) -> Vectors:
        """The lengths of a block's vectors, computed once: NaN where a cosine has no meaning,
        because the row failed or is all zeros."""
        norms = self._norms[block.first : block.first + len(block.vectors)]
        if (norms == -1).any():  # those of a folder's parts end elsewhere than those of a map
            norms[:] = np.sqrt(np.einsum("nd,nd->n", block.vectors, block.vectors))
            norms[norms == 0] = np.nan
        return norms

    def good(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The rows that have a vector, by a pass over all unless there was one before."""
        if (self._norms == -1).any():
            for block in self.blocks():
                self.norms(block)
        return np.flatnonzero(np.isfinite(self._norms))

    def records(self, rows: Sequence[int]) -> list[Record]:
        """Source, size, hash and error of some rows."""
        with _reading(self._path):
            return self._file.records(rows)


def read(path: str | Path) -> Embeddings:
    """Opens the file that `raylens embed` wrote, or the folder that `raylens bulk` did. Raises
    EmbeddingsError for all that is wrong with it."""
    path = Path(path)
    if path.is_dir():
        with _reading(path):
            return Embeddings(ParquetFolder(path), path)
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise EmbeddingsError(f"{path} does not end in {', '.join(_KINDS)}")
    if not path.is_file():
        raise EmbeddingsError(f"there is no file {path}")
    with _reading(path):
        return Embeddings(kind(path), path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except EmbeddingsError as error:
        raise EmbeddingsError(f"{path} cannot be used: {error}") from None
    except OSError as error:  # pyarrow raises them too, about what it cannot parse
        raise EmbeddingsError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise EmbeddingsError(f"{path} is no embeddings file: {error}") from None
