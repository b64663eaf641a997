"""Exports in folders and object stores: what `raylens export --to` fills, and replicas read.

A store is a folder, or a URI that pyarrow reads (s3://, gs://); every export is a folder in it by
its key. Knows nothing of what is in there but that the manifest comes last.
"""

import shutil
from pathlib import Path
from typing import Any

from deployments.models.checkpoint import CheckpointError
from deployments.models.exported import MANIFEST
from deployments.models.storage import written_aside


def push(export: Path, store: str) -> str:
    """Copies an export into a store, and says where it is there. Raises CheckpointError."""
    names = sorted((path.name for path in export.iterdir()), key=lambda name: name == MANIFEST)
    if "://" not in store:
        place = Path(store).expanduser() / export.name
        try:
            shutil.rmtree(place, ignore_errors=True)
            with written_aside(place) as aside:
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
        raise CheckpointError(f"{store}: cannot be written ({_first_line(error)})") from error
    return f"{path}/{export.name}"


def pull(store: str, key: str, folder: Path) -> bool:
    """Copies the export of that key into `folder`; whether the store has it.

    Raises CheckpointError if the store cannot be read.
    """
    system, path = _open(store)
    from pyarrow import fs

    try:
        found = system.get_file_info(f"{path}/{key}/{MANIFEST}")
        if found.type != fs.FileType.File:
            return False
        with written_aside(folder) as aside:
            fs.copy_files(
                f"{path}/{key}",
                str(aside),
                source_filesystem=system,
                destination_filesystem=fs.LocalFileSystem(),
            )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{store}: cannot be read ({_first_line(error)})") from error
    return True


def _open(store: str) -> tuple[Any, str]:
    try:
        from pyarrow import fs
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{store}: object stores need pyarrow: pip install 'raylens[s3]'"
        ) from error
    try:
        system, path = fs.FileSystem.from_uri(store)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{store}: cannot be opened ({_first_line(error)})") from error
    return system, path.rstrip("/")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
