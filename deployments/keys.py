"""API keys as they are stored: one JSON line each, with a name, a hash and the key's limits."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class KeysError(ValueError):
    """A key file cannot be used. The message says why, and quotes no line of it."""


class ApiKey(BaseModel):
    """One line. The key itself is 256 random bits, so a plain SHA-256 is beyond guessing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rate: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$")] | None = None
    """Rate limit, such as "600/minute", for each ingress replica. None: unlimited."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Requests in flight, for each ingress replica. None: `auth.max_concurrency`."""
    created: str | None = None


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """All keys of a file. Raises KeysError."""
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise KeysError(f"{path} is not a regular file")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise KeysError(
            f"cannot read {path} ({error.strerror}); `raylens keys add` makes it"
        ) from None
    except UnicodeDecodeError:
        raise KeysError(f"{path} is not text") from None
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            key = ApiKey.model_validate_json(line)
        except ValidationError as error:
            what = error.errors(include_input=False)[0]
            where = "".join(f"{part}: " for part in what["loc"])
            raise KeysError(f"{path}, line {number}: {where}{what['msg']}") from None
        if key.name in keys:
            raise KeysError(f"{path}, line {number}: a second key named {key.name}")
        keys[key.name] = key
    return tuple(keys.values())
