"""Every setting, declared once: its name with the unit, its default, and when to change it.

`config` reads them. docs/configuration.md is generated from these names, defaults and sentences.
"""

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from deployments.keys import ApiKey

MIB = 1024 * 1024

Positive = Annotated[int, Field(ge=1)]
WantedPrecision = Literal["auto", "fastest", "float32", "bfloat16", "float16", "int8"]
Seconds = Annotated[float, Field(gt=0)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$")]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(ip_network)]


def _on_or_off(value: object) -> object:
    """YAML reads a bare `on` or `off` as true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


# Comes with raylens, whatever folders there are.
BUNDLED_ID = "efficientnet-lite0"


def _absolute(place: str) -> str:
    """Absolute, because replicas run in other working directories."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def _absolute_if_local(model_id: str) -> str:
    looks_local = model_id.startswith(("/", "./", "../", "~"))
    is_folder = model_id != BUNDLED_ID and Path(model_id).is_dir()
    return _absolute(model_id) if looks_local or is_folder else model_id


def is_local(model_id: str) -> bool:
    """Whether it is a folder, which may not exist, as settings hold it."""
    return Path(model_id).is_absolute()


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Batching(_Section):
    """How items become batches. `user_config` changes these without a restart."""

    max_batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Images per forward pass. 8 suits a CPU; raise it to 32 or 64 on a GPU."""
    max_text_batch_size: Annotated[int, Field(ge=1, le=1024)] = 32
    """Texts per forward pass. Texts are cheaper than images, so a batch can have more of them."""
    batch_linger_ms: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Pause after a batch, so that callers who were just served can join the next one."""


class ModelSettings(Batching):
    """Which checkpoint is served, and on what hardware."""

    id: Annotated[str, Field(min_length=1), AfterValidator(_absolute_if_local)] = BUNDLED_ID
    """`efficientnet-lite0` (bundled), a local checkpoint folder, or a Hugging Face id."""
    revision: str | None = None
    """Commit, tag or branch of a Hugging Face id. Pin it in production."""
    text_id: Annotated[str, Field(min_length=1), AfterValidator(_absolute_if_local)] | None = None
    """A text model trained into the space of `id`'s images, such as
    `sentence-transformers/clip-ViT-B-32-multilingual-v1`, a folder or a Hugging Face id. It then
    reads all texts instead of `id`'s own."""
    text_revision: str | None = None
    """Commit, tag or branch of a Hugging Face id in `text_id`."""
    aliases: tuple[str, ...] = ()
    """Other names that a request's `model` may use, for clients that hard-code one."""
    matryoshka: bool = False
    """True only if the model was trained so that its vectors can be truncated (`dimensions`)."""
    pooling: Literal["auto", "cls", "mean", "pooler", "projection", "patches"] = "auto"
    """`auto` is what the model's authors use. `patches` gives each image a vector for each of its
    patches. Others are for experiments; with any but `projection`, a CLIP-like model embeds images
    only."""
    max_num_patches: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Patches of an image for a NaFlex model, at most; without it as many as the checkpoint says,
    which is 256. 576 or 1024 show it finer detail, such as text in documents, and are 2.4 or 4.6
    times as much work."""
    precision: WantedPrecision = "auto"
    """`auto` is bfloat16, or float16 on a GPU, if the hardware has instructions for it; `fastest`
    tries int8 first. A precision whose vectors differ from float32's on real photos is not used.
    If the processors of a cluster differ, use `float32`: vectors of different precisions are never
    mixed."""
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = "auto"
    """`auto` exports a model for CPUs to OpenVINO, once; a model that cannot be exported runs in
    PyTorch. `on` refuses to start instead, and uses CUDA graphs on a GPU. `off` always runs
    PyTorch."""
    exports: Annotated[str, AfterValidator(_absolute)] | None = None
    """A folder or s3:// URI that `raylens export --to` has filled; replicas then never export."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU when the cluster has one. `cuda` refuses to start without one."""
    threads: Positive | Literal["auto"] = "auto"
    """Threads of each model replica. Lower it when several replicas share a machine."""
    cold_start: Literal["none", "wait", "refuse"] = "none"
    """For `min_replicas: 0`: first callers `wait` for a replica, or get 503 and Retry-After."""
    stuck_after_s: Seconds = 45.0
    """A forward pass that takes longer makes the replica unhealthy, and Serve replaces it."""

    @model_validator(mode="after")
    def _text_revision_has_an_id(self) -> Self:
        if self.text_revision is not None and self.text_id is None:
            raise ValueError("text_revision is set without text_id; set both, or neither")
        return self

    @property
    def name(self) -> str:
        """The name that callers see: the id, or a folder's name without its path."""
        return Path(self.id).name if self.is_local else self.id

    @property
    def is_local(self) -> bool:
        """Whether the id is a folder, which may not exist."""
        return is_local(self.id)


class Limits(_Section):
    """What requests may ask for. Raise these for trusted callers on larger machines."""

    max_items: Positive = 2048
    """Items in one request."""
    max_image_bytes: Positive = 20 * MIB
    """Bytes of one image as sent, fetched or read from a file."""
    max_image_pixels: Positive = 50_000_000
    """Width times height of one image. Beyond 50 megapixels, raise `decode.max_cpu_s` as well."""
    max_body_bytes: Positive = 64 * MIB
    """Bytes of one request's body. Base64 is a third larger than the images themselves."""
    max_inflight_bytes: Positive = 512 * MIB
    """Bytes of all bodies in flight, per ingress replica; beyond it callers get 429. Images that
    are fetched or read may take as much again. Lower it where memory is short."""
    max_labels: Positive = 1000
    """Labels in one request to `/v1/classify`."""
    max_text_chars: Positive = 8192
    """Characters of one text. Models read far fewer, so this only bounds the work."""
    request_timeout_s: Seconds = 30.0
    """Every request is answered within this time, whatever its headers say."""
    max_wait_s: Seconds = 5.0
    """When what waits already would take longer, callers get 429 at once. Raise it where callers
    would rather wait than retry, such as for bulk work, but not beyond `request_timeout_s`."""
    max_queued_items: Positive = 4096
    """Items accepted but not yet answered, per ingress replica; beyond it callers get 429, however
    soon these would be done. Their requests take memory."""


# The limits that `/v1/models` shows to callers.
PUBLIC_LIMITS = (
    *("max_items", "max_image_bytes", "max_image_pixels"),
    *("max_body_bytes", "max_labels", "max_text_chars"),
)


class Fetch(_Section):
    """How images are fetched by URL. Private addresses are refused unless allowed here."""

    allow_hosts: tuple[HostName, ...] = ()
    """Host names that may resolve to any address, e.g. an object store inside the network."""
    allow_cidrs: tuple[Network, ...] = ()
    """Networks that may be dialled even though they are not public, e.g. 10.1.0.0/16."""
    allow_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (80, 443)
    """Ports that may be dialled."""
    timeout_s: Seconds = 10.0
    """For one image, from the DNS look-up to the last byte, redirects included."""
    idle_timeout_s: Seconds = 5.0
    """The longest wait for a connection, or between the bytes of an image."""
    max_redirects: Annotated[int, Field(ge=0, le=10)] = 3
    """Redirects to follow for one image."""
    max_connections: Positive = 64
    """Connections of each ingress replica. Raise it where images come from many slow servers."""
    max_connections_per_host: Positive = 8
    """Of those, connections to one host. Raise it for an object store of your own."""


class Decode(_Section):
    """How image bytes become pixels."""

    threads: Positive | Literal["auto"] = "auto"
    """Decode threads of each ingress replica; `auto` is the number of processors that the process
    may use, by its affinity or its container's limit."""
    mode: Literal["exact", "fast"] = "exact"
    """`exact` keeps vectors at a cosine of 0.9999 with those of the authors' code. `fast` decodes
    large JPEGs at a reduced size, which loses more: see Speed."""
    max_cpu_s: Seconds = 10.0
    """Processor time per image; 50 megapixels take 2 s. Raise it for larger ones."""
    max_memory_bytes: Annotated[int, Field(ge=64 * MIB)] = 1024 * MIB
    """Memory per image, in its decode process; 50 megapixels take up to 600 MiB."""
    background: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = "#ffffff"
    """The colour behind transparent images. Choose a dark one if yours are white logos."""
    allow_tiff: bool = False
    """Accept TIFF as well. Its decoders have the longest record of security bugs."""


class Cache(_Section):
    """Vectors of images and texts that were embedded before, by content."""

    max_bytes: Annotated[int, Field(ge=0)] = 128 * MIB
    """Per ingress replica; the default holds 50,000 vectors of 512 dimensions. 0 turns the cache
    off."""


class Auth(_Section):
    """Who may call: everyone, or, once keys are set, holders of a key. Health checks, such as
    `/livez` and `/readyz`, and the files of the page never need one."""

    keys_file: Path | None = None
    """Written by `raylens keys add`, and read again when it changes."""
    keys: tuple[ApiKey, ...] | None = None
    """More keys, each in the form of a line of that file; for a secret in the environment."""
    max_concurrency: Positive = 64
    """Requests of one key in flight, per ingress replica, unless the key has its own limit."""


DialectName = Literal["cohere", "immich", "oip", "rerank", "tei", "vllm", "voyage", "weaviate"]


class ApiSettings(_Section):
    """What the HTTP API understands, and how it behaves towards browsers."""

    dialects: tuple[DialectName, ...] = get_args(DialectName)
    """Other services whose clients may call this one as if it were theirs; `rerank` is for several
    of them. Remove those that nobody here uses."""
    cors_origins: tuple[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")], ...] = ()
    """Origins such as `https://app.example` whose pages may call the API from a browser; `*` allows
    all. Without any, browsers refuse such calls."""
    page: bool = True
    """The page at `/` and the explorer of the API at `/docs`, which need no key to be opened. Turn
    them off where only programs call."""
    immich_fallback: Annotated[str, Field(pattern=r"^https?://[^/\s?#]+/?$")] | None = None
    """The address of an Immich machine learning, such as `http://immich-machine-learning:3003`. It
    gets what Immich asks of other models: faces, and texts in photos."""


class Settings(BaseSettings):
    """All of raylens's own settings; see the sections."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="RAYLENS_", env_nested_delimiter="__"
    )

    model: ModelSettings = ModelSettings()
    """The model that answers requests which name none."""
    models: tuple[ModelSettings, ...] = ()
    """More models, each with replicas of its own; a request's `model` selects one."""
    limits: Limits = Limits()
    fetch: Fetch = Fetch()
    decode: Decode = Decode()
    cache: Cache = Cache()
    auth: Auth = Auth()
    api: ApiSettings = ApiSettings()
    image_roots: tuple[Path, ...] = ()
    """Folders whose files callers may name by path. Without any, every path is refused."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what, names in (
            ("are called", [{m.name, *m.aliases} for m in (self.model, *self.models)]),
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
        """The names of the models' deployments in a Serve config: `Embedder`, and for each of
        `models` `Embedder-` plus the last part of its name."""
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
