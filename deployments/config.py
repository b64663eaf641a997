"""Reads settings from a Serve config's `args`; `RAYLENS_<SECTION>__<KEY>` variables override them.

`settings` declares them. The messages about wrong ones are written here.
"""

import os
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_settings import SettingsError as NotJsonError

from deployments.keys import KeysError, read_keys
from deployments.settings import Settings

# Read by the command line and the clients, not by the service.
CLIENT_VARIABLES = frozenset({"RAYLENS_URL", "RAYLENS_API_KEY"})

# What describes the model of an `id`, and says nothing of another one.
_OF_ONE_MODEL = frozenset(
    {
        *("revision", "text_id", "text_revision", "aliases", "matryoshka"),
        *("pooling", "max_num_patches"),
    }
)


class SettingsError(ValueError):
    """A setting is wrong. The message names the key and the values it may have."""


def load_settings(args: Mapping[str, Any]) -> Settings:
    """Settings from a Serve config's `args` and this process's environment.

    Raises SettingsError, which names each wrong key and the values it may have.
    """
    _refuse_unknown_variables()
    if "RAYLENS_MODEL__ID" in os.environ and isinstance(args.get("model"), Mapping):
        # In the file, these describe the file's own model, not the one in the variable.
        args = {**args, "model": _of_any_model(args["model"])}
    try:
        settings = Settings(**args)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(e) for e in error.errors())) from None
    except NotJsonError as error:  # 'error parsing value for field "models" from source …'
        field = str(error).split('"')[1]
        section = f"RAYLENS_{field.upper()}"
        names = sorted(name for name in os.environ if name.split("__")[0] == section)
        sentence = f"{' or '.join(names)}: lists and sections are JSON, e.g. '[\"photos\"]'"
        raise SettingsError(sentence) from None
    for root in settings.image_roots:
        if not root.is_dir():
            raise SettingsError(f"image_roots: {str(root)!r} is not a folder on this machine")
    # Absolute, because replicas run in other working directories.
    update: dict[str, Any] = {"image_roots": tuple(r.absolute() for r in settings.image_roots)}
    keys_file = settings.auth.keys_file
    if keys_file is not None:
        try:
            read_keys(keys_file)
        except KeysError as error:
            raise SettingsError(f"auth.keys_file: {error}") from None
        update["auth"] = settings.auth.model_copy(update={"keys_file": keys_file.absolute()})
    return settings.model_copy(update=update)


def for_another_model(args: Mapping[str, Any], id: str) -> dict[str, Any]:
    """A Serve config's `args` with the model `id`, and without what describes its own."""
    kept = _of_any_model(args.get("model") or {})
    kept.pop("exports", None)
    return {**args, "model": {**kept, "id": id}}


def _of_any_model(model: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key not in _OF_ONE_MODEL}


def _refuse_unknown_variables() -> None:
    sections = {f"RAYLENS_{name.upper()}" for name in Settings.model_fields}
    for name in os.environ:
        ours = name.startswith("RAYLENS_") and name not in CLIENT_VARIABLES
        if ours and name.split("__")[0] not in sections:
            raise SettingsError(
                f"{name}: no such setting; the sections are {', '.join(sorted(sections))}"
            )


# Errors for which pydantic's own message names Python types.
_IN_YAML = {
    "tuple_type": "Input should be a list",
    "model_type": "Input should be a section, that is `key: value` lines",
}


def _sentence(error: Any) -> str:
    # A union adds the name of each of its branches to the key.
    parts = (str(part) for part in error["loc"] if "[" not in str(part))
    key = ".".join(parts).removesuffix(".constrained-int")
    if error["type"] == "extra_forbidden":
        section: Any = Settings
        for part in error["loc"][:-1]:
            if isinstance(part, str):
                section = section.model_fields[part].annotation
            else:  # an index into a tuple of sections
                section = get_args(section)[0]
        return f"{key}: no such setting; there are {', '.join(section.model_fields)}"
    if not key:
        return str(error["ctx"]["error"])
    hidden = error["loc"][0] == "auth" or isinstance(error["input"], dict)
    shown = "" if hidden else f", not {error['input']!r}"
    return f"{key}: {_IN_YAML.get(error['type'], error['msg'])}{shown}"
