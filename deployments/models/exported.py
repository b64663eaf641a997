"""An exported model on disk: its towers in OpenVINO's IR, and all else that serving it needs.

`export` makes one, with torch, and `engines.openvino` runs it. Imports neither library, so that a
replica finds its export at once.
"""

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter, ValidationError

from deployments.checkpoints import bundled, open_clip
from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.finding import find_checkpoint, find_text_checkpoint
from deployments.checkpoints.integrity import identity
from deployments.checkpoints.storage import user_cache
from deployments.models.cpu import cpu_key
from deployments.models.precision import Settled
from deployments.settings import BUNDLED_ID, ModelSettings, is_local
from deployments.wire import ImageSpec, Pixels, Precision, TextSpec, Tokens

MANIFEST = "manifest.json"
REFUSAL = "refusal.txt"
TOKENIZER = "tokenizer.json"
PROBES = "probes.npz"
# Begins each line of the exporting process's own log, to tell it from what libraries print.
LOG_PREFIX = "raylens: "
# An export depends on the versions of these, and of these if they are installed.
_PACKAGES = ("openvino", "tokenizers", "torch", "transformers")
_OPTIONAL = ("ftfy", "open_clip_torch", "timm", "torchvision")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class NotExportableError(Exception):
    """The model has to run in torch; the message says why, as a clause."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """An export's metadata. Written last, so that a folder with one is complete."""

    id: str
    revision: str | None
    identity: str
    """The model's, in hexadecimal, whatever precision it runs in."""
    dimensions: int
    vectors_per_image: int | None
    """As in `Loaded.vectors_per_image`."""
    pixels: ImageSpec
    tolerant: bool
    """As in `LoadedCheckpoint.tolerant`."""
    text: TextSpec | None
    borrowed: dict[str, str]
    """The other repositories on the hub that files were taken from, each with its commit. They are
    not in the key, which is made without them."""


_MANIFEST = TypeAdapter(Manifest)
_SETTLED: TypeAdapter[Settled | str] = TypeAdapter(Settled | str)


@dataclass(frozen=True, slots=True)
class Probes:
    """The inputs that an export is tested on, and the float32 vectors that torch gave for them."""

    pixels: Pixels
    image_vectors: NDArray[np.float32]
    tokens: Tokens
    text_vectors: NDArray[np.float32]
    """These two have no rows for a model without a text tower."""


@dataclass(frozen=True, slots=True)
class Export:
    """A complete export: its folder and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def key(self) -> str:
        return self.folder.name

    def tower(self, name: str, precision: Precision) -> Path:
        """The IR of `image` or `text`; for int8, the image tower has another, in 8-bit integers."""
        quantised = precision == "int8" and name == "image"
        return self.folder / (f"{name}-int8.xml" if quantised else f"{name}.xml")

    def tokenizer(self) -> str | None:
        """The JSON for `TextTokenizer`, of a model with a text tower."""
        return (self.folder / TOKENIZER).read_text() if self.manifest.text is not None else None

    def probes(self) -> Probes:
        """Raises CheckpointError if they are damaged."""
        path = self.folder / PROBES
        try:
            with np.load(path) as arrays:
                return Probes(**arrays)
        except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
            raise CheckpointError(f"{path}: is damaged; delete {self.folder}") from error

    def identity(self, precision: Precision) -> bytes:
        """The model's; in int8 with a hash of the quantised weights, which differ by machine."""
        identity = bytes.fromhex(self.manifest.identity)
        if precision == "int8":
            with self.tower("image", "int8").with_suffix(".bin").open("rb") as file:
                identity += hashlib.file_digest(file, "sha256").digest()
        return identity

    def settled(self, wanted: str) -> Settled | None:
        """What was settled on a processor like this one; None if nothing has been yet.

        Raises NotExportableError if no precision passed there.
        """
        try:
            found = _SETTLED.validate_json(_settled_file(self.key, wanted).read_bytes())
        except (OSError, ValidationError):
            return None
        if isinstance(found, str):
            raise NotExportableError(found)
        return found


class ExportRequest(BaseModel):
    """The input of the exporting process."""

    model: ModelSettings
    to: str | None = None
    """A store to copy the export to."""


class Outcome(BaseModel):
    """Its output: an export and its precision on this machine, or why there is none."""

    folder: Path | None = None
    settled: Settled | None = None
    refusal: str | None = None
    copied_to: str | None = None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_bytes(_MANIFEST.dump_json(manifest, indent=2))


def keep_settled(export: Export, wanted: str, found: Settled | str) -> None:
    """Stores, for later starts on such a processor, what was settled or why no precision passes.
    Raises OSError.
    """
    file = _settled_file(export.key, wanted)
    aside = file.with_suffix(".new")
    try:
        aside.write_bytes(_SETTLED.dump_json(found))
        aside.replace(file)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def cache_root() -> Path:
    """Where exports are made. Raises CheckpointError for a user without a home folder."""
    return user_cache() / "raylens" / "exported"


def find(settings: ModelSettings, key: str | None = None) -> Export | None:
    """The configured model's export, if it is on this machine: in the cache, or in a folder that
    `settings.exports` names. `key` is its `export_key`, if known.

    A pinned model (see `is_pinned`) needs neither its checkpoint nor a network for this.
    Raises CheckpointError if the checkpoint is needed and cannot be found, NotExportableError if
    the model was tried before and cannot be exported.
    """
    key = key or export_key(settings)
    roots = [cache_root()]
    if settings.exports is not None and "://" not in settings.exports:
        roots.append(Path(settings.exports))
    return next((found for root in roots if (found := read(root / key)) is not None), None)


def read(folder: Path) -> Export | None:
    """The export in `folder`, if it is complete and of what this machine's copies of repositories
    it borrows from are. Raises NotExportableError for a refusal."""
    try:
        if (folder / REFUSAL).exists():
            raise NotExportableError((folder / REFUSAL).read_text())
        manifest = _MANIFEST.validate_json((folder / MANIFEST).read_bytes())
        if not all(open_clip.is_current(*lender) for lender in manifest.borrowed.items()):
            return None
        return Export(folder, manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise CheckpointError(
            f"{folder}: cannot be read as an export; correct its permissions or delete it"
        ) from error


def export_key(settings: ModelSettings) -> str:
    """The name of the configured model's export: a hash of all that it is made of and made with."""
    if is_pinned(settings):
        weights = [(settings.id, settings.revision or bundled.REVISION)]
        if settings.text_id is not None:
            weights.append((settings.text_id, settings.text_revision or ""))
    else:
        found = [find_checkpoint(settings), find_text_checkpoint(settings)]
        weights = [identity(checkpoint) for checkpoint in found if checkpoint is not None]
    parts = (*weights, settings.pooling, settings.max_num_patches, _made_with())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def is_pinned(settings: ModelSettings) -> bool:
    """Whether the settings alone determine the weights: the bundled ones, or those of commits."""
    if settings.id == BUNDLED_ID:
        return settings.revision is None and settings.text_id is None
    pinned = [(settings.id, settings.revision)]
    if settings.text_id is not None:
        pinned.append((settings.text_id, settings.text_revision))
    return all(not is_local(id) and _COMMIT.fullmatch(rev or "") is not None for id, rev in pinned)


@cache
def _made_with() -> tuple[str, ...]:
    """A hash of raylens's own code that makes exports, and the versions of the packages."""
    code = hashlib.sha256()
    top = Path(__file__).parent.parent
    made_by = [top / "wire.py"]
    for folder in (top / "checkpoints", top / "models", top / "texts"):
        made_by += sorted(folder.rglob("*.py"))
    for path in made_by:
        code.update(path.read_bytes())
    found = [code.hexdigest()]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError as error:
            raise CheckpointError(
                f"{package} is not installed; pip install 'raylens[server]'"
            ) from error
    for package in _OPTIONAL:
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return tuple(found)


def _settled_file(key: str, wanted: str) -> Path:
    return cache_root() / f"{key}-{cpu_key()}-{wanted}.json"
