"""Exports in folders and object stores, which `raylens export --to` fills and replicas read.

A store is a folder, or a URI that pyarrow understands (s3://, gs://); each export is a folder in
it, named by its key. Knows nothing of an export's files but that the manifest is written last.
"""

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deployments.checkpoints.checkpoint import CheckpointError, first_line
from deployments.checkpoints.storage import written_aside
from deployments.models.exported import MANIFEST


def push(export: Path, store: str) -> str:
    """Copies an export into a store and returns where it is there. Raises CheckpointError."""
    files = [path.name for path in export.iterdir() if not path.name.startswith(".")]
    names = sorted(files, key=lambda name: name == MANIFEST)
    if "://" not in store:
        place = Path(store).expanduser() / export.name
        if place.resolve() == export.resolve():
            return str(place)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(place) as aside:
                aside.chmod(0o755)  # replicas may run as another user
                for name in names:
                    shutil.copyfile(export / name, aside / name)
        except OSError as error:
            raise CheckpointError(f"{place}: cannot be written ({error.strerror})") from error
        return str(place)
    system, path = _open(store)
    from pyarrow import fs

    try:
        if isinstance(system, fs.LocalFileSystem):
            system.create_dir(f"{path}/{export.name}")
        for name in names:
            fs.copy_files(
                str(export / name),
                f"{path}/{export.name}/{name}",
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=system,
            )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{shown(store)}: cannot be written ({first_line(error)})") from error
    return f"{shown(store)}/{export.name}"


def has(store: str, key: str) -> bool:
    """Whether an object store has the export `key`. Raises CheckpointError."""
    system, path = _open(store)
    from pyarrow import fs

    try:
        found = system.get_file_info(f"{path}/{key}/{MANIFEST}")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{shown(store)}: cannot be read ({first_line(error)})") from error
    return bool(found.type == fs.FileType.File)


def pull(store: str, key: str, folder: Path) -> bool:
    """Copies the export `key` from an object store into `folder`. False if it is not there.

    Raises CheckpointError if the store cannot be read.
    """
    if not has(store, key):
        return False
    system, path = _open(store)
    from pyarrow import fs

    try:
        with written_aside(folder) as aside:
            fs.copy_files(
                f"{path}/{key}",
                str(aside),
                source_filesystem=system,
                destination_filesystem=fs.LocalFileSystem(),
            )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{shown(store)}: cannot be read ({first_line(error)})") from error
    return True


def shown(store: str) -> str:
    """A store's name for messages, without the credentials and options that a URI may have."""
    if "://" not in store:
        return store
    parts = urlsplit(store)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _open(store: str) -> tuple[Any, str]:
    try:
        from pyarrow import fs
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{shown(store)}: object stores need pyarrow: pip install 'raylens[s3]'"
        ) from error
    try:
        system, path = fs.FileSystem.from_uri(store)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{shown(store)}: cannot be opened ({first_line(error)})") from error
    return system, path.rstrip("/")
