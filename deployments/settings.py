"""Every setting once: its name with the unit, its default, and when to change it.

Read from `applications[].args` of the Serve config, with `RAYLENS_<SECTION>__<KEY>` of the
environment on top. Knows nothing of what the settings steer.
"""

import os
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from deployments.keys import ApiKey, KeysError, read_keys

MIB = 1024 * 1024

# Read by the command line and the clients, not by the service.
CLIENT_VARIABLES = frozenset({"RAYLENS_URL", "RAYLENS_API_KEY"})
Positive = Annotated[int, Field(ge=1)]
WantedPrecision = Literal["auto", "fastest", "float32", "bfloat16", "float16", "int8"]
Seconds = Annotated[float, Field(gt=0)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$")]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(ip_network)]


class SettingsError(ValueError):
    """A setting is wrong. The message names the key and what it may be."""


def _on_or_off(value: object) -> object:
    """YAML reads a bare `on` or `off` as true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _absolute(place: str) -> str:
    """Replicas run in folders of their own."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Batching(_Section):
    """How images become batches. `user_config` changes these without a restart."""

    max_batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Images per forward pass. 8 suits a CPU; raise it to 32 or 64 on a GPU."""
    max_text_batch_size: Annotated[int, Field(ge=1, le=1024)] = 32
    """Texts per forward pass. They are cheaper than images, so more of them fit into one."""
    batch_linger_ms: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Pause after a batch, so that callers who were just answered can join the next one."""


class ModelSettings(Batching):
    """Which checkpoint is served, and on what."""

    id: str = Field("efficientnet-lite0", min_length=1)
    """`efficientnet-lite0` (bundled), a local checkpoint folder, or a Hugging Face id."""
    revision: str | None = None
    """Commit, tag or branch of a Hugging Face id. Pin it in production."""
    aliases: tuple[str, ...] = ()
    """Other names that a request's `model` may use, for clients that hard-code one."""
    matryoshka: bool = False
    """True only if the model was trained so that its vectors may be truncated (`dimensions`)."""
    pooling: Literal["auto", "cls", "mean", "pooler", "projection"] = "auto"
    """`auto` is what the family's authors use. Others are for experiments; with all but the
    projection, a CLIP-like model embeds images only."""
    precision: WantedPrecision = "auto"
    """`auto` is bfloat16, or a GPU's float16, where there are instructions for it; `fastest` takes
    int8 before that. What gives other vectors than float32 on real photos is not used. Unlike
    processors of a cluster need `float32`: vectors of different precisions are never mixed."""
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = "auto"
    """`auto` exports a model for CPUs to OpenVINO, once; what cannot be exported runs in PyTorch.
    `on` refuses to start instead, and makes CUDA graphs on a GPU. `off` always runs PyTorch."""
    exports: Annotated[str, AfterValidator(_absolute)] | None = None
    """A folder or s3:// URI that `raylens export --to` filled; replicas then export nothing."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU when the cluster has one. `cuda` refuses to start without one."""
    threads: Positive | Literal["auto"] = "auto"
    """Threads of each model replica. Lower it when several replicas share a machine."""
    stuck_after_s: Seconds = 60.0
    """A forward pass that takes longer makes the replica unhealthy, and Serve replaces it."""

    @property
    def name(self) -> str:
        """What callers call it: the id, or a folder's own name, because paths are not for them."""
        if self.id.startswith(("/", ".", "~")):
            return Path(self.id).expanduser().absolute().name
        return self.id


class Limits(_Section):
    """What one caller may ask for. Raise them for trusted callers on larger machines."""

    max_items: Positive = 512
    max_image_bytes: Positive = 20 * MIB
    max_image_pixels: Positive = 50_000_000
    max_body_bytes: Positive = 64 * MIB
    max_inflight_bytes: Positive = 512 * MIB
    """Of all bodies under way, per ingress replica: beyond it callers get 429. As much again of
    images that were fetched or read: beyond it they wait. Lower it where memory is short."""
    max_labels: Positive = 1000
    max_text_chars: Positive = 8192
    request_timeout_s: Seconds = 30.0
    """Every request is answered within this time, whatever its headers say."""
    max_queued_items: Positive = 4096
    """Items accepted but not yet answered, per ingress replica; beyond it callers get 429."""


# The limits that callers are told of.
PUBLIC_LIMITS = (
    *("max_items", "max_image_bytes", "max_image_pixels"),
    *("max_body_bytes", "max_labels", "max_text_chars"),
)


class Fetch(_Section):
    """How images are fetched by URL. Private addresses are refused unless allowed here."""

    allow_hosts: tuple[HostName, ...] = ()
    """Host names that may resolve to any address, e.g. an object store inside the network."""
    allow_cidrs: tuple[Network, ...] = ()
    """Networks that may be dialled although they are not public, e.g. 10.1.0.0/16."""
    allow_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (80, 443)
    timeout_s: Seconds = 10.0
    """From the first look-up to the last byte, redirects included."""
    idle_timeout_s: Seconds = 5.0
    """The longest wait for a connection or for the next bytes."""
    max_redirects: Annotated[int, Field(ge=0, le=10)] = 3
    max_connections: Positive = 64
    max_connections_per_host: Positive = 8


class Decode(_Section):
    """How image bytes become pixels."""

    threads: Positive | Literal["auto"] = "auto"
    """Decode threads of each ingress replica; `auto` is the number of processors."""
    mode: Literal["exact", "fast"] = "exact"
    """`exact` keeps vectors at a cosine of 0.9999 with those of the authors' code. `fast` decodes
    large JPEGs at a reduced size, which loses more; the README tells how much."""
    max_cpu_s: Seconds = 10.0
    """Processor time for an image; 50 megapixels take two. Raise it for larger ones."""
    max_memory_bytes: Annotated[int, Field(ge=64 * MIB)] = 1024 * MIB
    """Memory for an image, in its decode process; 50 megapixels take up to 600 MiB."""
    allow_tiff: bool = False
    """Accept TIFF as well. Its decoders have the longest record of security bugs."""


class Cache(_Section):
    """Vectors of images and texts that were embedded before, kept by content."""

    max_bytes: Annotated[int, Field(ge=0)] = 128 * MIB
    """Of each ingress replica; 50,000 vectors of 512 dimensions. 0 turns the cache off."""


class Auth(_Section):
    """Who may call: everybody, or with keys here who has one; /livez and /readyz are for all."""

    keys_file: Path | None = None
    """Made by `raylens keys add`, and read again when it changes."""
    keys: tuple[ApiKey, ...] | None = None
    """Further ones, as a line of that file says them; for a secret in the environment."""
    max_concurrency: Positive = 64
    """Requests of a key under way, per ingress replica, unless it has a number of its own."""


class Settings(BaseSettings):
    """All of raylens's own settings; see the sections."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="RAYLENS_", env_nested_delimiter="__"
    )

    model: ModelSettings = ModelSettings()
    """The model that answers requests which name none."""
    models: tuple[ModelSettings, ...] = ()
    """Further models, each with replicas of its own; a request's `model` selects one."""
    limits: Limits = Limits()
    fetch: Fetch = Fetch()
    decode: Decode = Decode()
    cache: Cache = Cache()
    auth: Auth = Auth()
    image_roots: tuple[Path, ...] = ()
    """Folders whose files callers may name by path. None: every path is refused."""

    @model_validator(mode="after")
    def _models_are_told_apart(self) -> Self:
        for what, names in (
            ("are both called", [{m.name, *m.aliases} for m in (self.model, *self.models)]),
            ("would both have the deployment", [{name} for name in self.deployments]),
        ):
            seen: set[str] = set()
            for own in names:
                for name in sorted(own & seen):
                    raise ValueError(
                        f"models: two of them {what} {name!r}; remove one, or serve it from a "
                        "folder of another name"
                    )
                seen |= own
        return self

    @property
    def deployments(self) -> list[str]:
        """The models' deployments, as the Serve config's `deployments` calls them: `Embedder`, and
        for each of `models` `Embedder-` with the last part of its name."""
        return ["Embedder", *(f"Embedder-{Path(model.name).name}" for model in self.models)]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings  # the environment overrides the file


def load_settings(args: Mapping[str, Any]) -> Settings:
    """Settings from a Serve config's `args` and this process's environment.

    Raises SettingsError, which names each wrong key and says what it may be.
    """
    _refuse_unknown_variables()
    if "RAYLENS_MODEL__ID" in os.environ and isinstance(args.get("model"), Mapping):
        # What the file says of its own model is not said of this one.
        own = ("revision", "aliases", "pooling", "matryoshka")
        args = {**args, "model": {k: v for k, v in args["model"].items() if k not in own}}
    try:
        settings = Settings(**args)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(e) for e in error.errors())) from None
    except ValueError as error:  # 'error parsing value for field "models" from source …'
        name = str(error).split('"')[1].upper()
        sentence = f"RAYLENS_{name}: lists and sections are JSON, e.g. '[\"photos\"]'"
        raise SettingsError(sentence) from None
    for root in settings.image_roots:
        if not root.is_dir():
            raise SettingsError(f"image_roots: {str(root)!r} is not a folder on this machine")
    # Absolute, because replicas run in folders of their own.
    update: dict[str, Any] = {"image_roots": tuple(r.absolute() for r in settings.image_roots)}
    keys_file = settings.auth.keys_file
    if keys_file is not None:
        try:
            read_keys(keys_file)
        except KeysError as error:
            raise SettingsError(f"auth.keys_file: {error}") from None
        update["auth"] = settings.auth.model_copy(update={"keys_file": keys_file.absolute()})
    return settings.model_copy(update=update)


def _refuse_unknown_variables() -> None:
    sections = {f"RAYLENS_{name.upper()}" for name in Settings.model_fields}
    for name in os.environ:
        ours = name.startswith("RAYLENS_") and name not in CLIENT_VARIABLES
        if ours and name.split("__")[0] not in sections:
            raise SettingsError(
                f"{name}: no such setting; the sections are {', '.join(sorted(sections))}"
            )


# Where pydantic speaks of Python's types.
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
            else:  # a place in a tuple of sections
                section = get_args(section)[0]
        return f"{key}: no such setting; there are {', '.join(section.model_fields)}"
    if not key:
        return str(error["ctx"]["error"])
    hidden = error["loc"][0] == "auth" or isinstance(error["input"], dict)
    shown = "" if hidden else f", not {error['input']!r}"
    return f"{key}: {_IN_YAML.get(error['type'], error['msg'])}{shown}"
