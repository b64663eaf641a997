"""Checkpoints in the layout of timm: a config.json with an `architecture` and a `pretrained_cfg`.

timm itself builds the model, renames what older versions saved, and says which pixels it takes, as
in the example on each model's page of the hub: the vector is what the classifier would get.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from deployments.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointError,
    check_present,
    read_json,
    remedy,
)
from deployments.checkpoints.layout import CONFIG
from deployments.models.layouts.layout import LoadedCheckpoint
from deployments.models.layouts.timm_pixels import read_preprocessing
from deployments.models.loading import refuse_incomplete
from deployments.settings import ModelSettings

# In every file that timm has written. Its defaults would stand in for one that is missing.
_NEEDED = ("input_size", "interpolation", "crop_pct", "mean", "std")
# Keys of `pretrained_cfg` that say where else weights are.
_SOURCES = ("source", "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename")
# Arguments of `timm.create_model` that are not of the architecture: these would read other files,
# or give feature maps.
_NOT_OF_THE_MODEL = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_filter_fn"),
    *("pretrained_strict", "pretrained_model_args", "checkpoint_path", "cache_dir"),
    *("features_only", "feature_cfg", "out_indices"),
}
# transformers' TimmWrapper has written both: names with it and names without.
_WRAPPER_PREFIX = "timm_model."


def load(checkpoint: Checkpoint, settings: ModelSettings) -> LoadedCheckpoint:
    """Raises CheckpointError if the model cannot be served, or timm is not installed."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"model {checkpoint.id!r} is one of timm's, and {error.name} is not installed: pip "
            "install 'raylens[timm]'"
        ) from error
    if settings.pooling != "auto":
        raise CheckpointError(
            f"model.pooling is {settings.pooling!r}, but models of timm such as {checkpoint.id!r} "
            "pool as their config.json says; set model.pooling to auto"
        )
    path = checkpoint.folder / CONFIG
    saved = _Saved.read(path)
    if not timm.is_model(saved.architecture):
        raise CheckpointError(
            f"{path}: architecture is {saved.architecture!r}, which timm {timm.__version__} does "
            "not have; choose a checkpoint of one that it has (timm.list_models)"
        )
    model = _build(checkpoint, saved)
    return LoadedCheckpoint(
        vision=PreLogits(model),
        preprocessing=read_preprocessing(path, timm.data.resolve_model_data_config(model)),
        text=None,
        pooling="pre-logits",
        tolerant=False,  # of a thousand architectures, none was measured with real weights
        rules=f"pre-logits of timm's {saved.architecture}",
    )


class PreLogits(nn.Module):
    """A model of timm without its classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: Tensor) -> Tensor:
        """Normalised (N, 3, H, W) to (N, D)."""
        features = self.model.forward_features(values)  # type: ignore[operator]
        vectors: Tensor = self.model.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return vectors


@dataclass(frozen=True, slots=True)
class _Saved:
    """What a config.json says, as timm reads it."""

    architecture: str
    pretrained_cfg: dict[str, Any]
    model_args: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "_Saved":
        from timm.models import _hub

        config = read_json(path)
        if "pretrained_cfg" in config:
            config["model_args"] = config.get("model_args") or {}  # TimmWrapper writes null
        for name in ("pretrained_cfg", "model_args"):
            if not isinstance(config.get(name, {}), dict):
                raise CheckpointError(f"{path}: {name} should be an object; {remedy(path)}")
        if not isinstance(config["architecture"], str):
            raise CheckpointError(f"{path}: architecture should be a name; {remedy(path)}")
        known = config.get("pretrained_cfg", config)  # the keys stood at the top in old files
        missing = [name for name in _NEEDED if known.get(name) is None]
        if missing:
            raise CheckpointError(
                f"{path}: its pretrained_cfg holds no {', '.join(missing)}, so it does not say "
                "what pixels the model takes; add what the model was trained with"
            )
        strange = _NOT_OF_THE_MODEL & config.get("model_args", {}).keys()
        if strange:
            raise CheckpointError(
                f"{path}: model_args holds {', '.join(sorted(strange))}, which a checkpoint that "
                "raylens serves cannot have; remove it"
            )
        try:
            # What newer versions mend in older ones' files; there is no public function for it.
            cfg, architecture, model_args = _hub._parse_model_cfg(config, {})
        except Exception as error:
            raise CheckpointError(f"{path}: timm cannot read it ({error})") from error
        match cfg["input_size"]:
            case [3, int(height), int(width)] if height > 0 and width > 0:
                pass
            case size:
                raise CheckpointError(
                    f"{path}: the model's input_size is {json.dumps(size)}, and raylens has only "
                    "[3, height, width] to give; choose a model of RGB images"
                )
        cfg = {key: value for key, value in cfg.items() if key not in _SOURCES}
        return cls(architecture, cfg, dict(model_args))

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the classifiers; a distilled model has two."""
        names = self.pretrained_cfg.get("classifier") or ()
        return (names,) if isinstance(names, str) else tuple(names)

    def is_head(self, name: str) -> bool:
        """Whether a weight of that name is a classifier's."""
        return name.startswith(tuple(f"{head}." for head in self.heads))

    def without_heads(self) -> "_Saved":
        cfg = {**self.pretrained_cfg, "num_classes": 0, "label_offset": None}
        return _Saved(self.architecture, cfg, {**self.model_args, "num_classes": 0})


def _build(checkpoint: Checkpoint, saved: _Saved) -> nn.Module:
    import timm

    path = checkpoint.folder / "model.safetensors"
    check_present(path)
    try:
        weights = {
            name.removeprefix(_WRAPPER_PREFIX): values
            for name, values in safetensors.torch.load_file(path).items()
        }
        if saved.heads and not any(map(saved.is_head, weights)):
            saved = saved.without_heads()
        with _loading(_Loader(weights, saved.is_head)) as loader:
            model = timm.create_model(
                saved.architecture,
                pretrained=True,
                pretrained_cfg=saved.pretrained_cfg,
                pretrained_model_args=saved.model_args,
                **saved.model_args,
            )
    except Exception as error:  # whatever a model class raises, the checkpoint is to blame
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(f"model {checkpoint.id!r}: timm cannot load it ({reason})") from error
    if loader.loads != 1:
        raise CheckpointError(
            f"model {checkpoint.id!r}: timm {timm.__version__} loads {saved.architecture} in a way "
            "that raylens does not know; choose another architecture"
        )
    refuse_incomplete(checkpoint, type(model).__name__, loader.missing, loader.unread)
    module: nn.Module = model.eval()
    return module


class _Loader:
    """Takes the place of timm's `load_pretrained`, whose way to the weights may lead to the network
    or to a pickle, and which leaves what is missing as it was drawn for some architectures.
    """

    def __init__(self, weights: dict[str, Tensor], is_head: Callable[[str], bool]) -> None:
        self._weights, self._is_head = weights, is_head
        self.loads = 0
        self.missing: list[str] = []
        self.unread: list[str] = []

    def load(
        self,
        original: Callable[..., None],
        model: nn.Module,
        pretrained_cfg: dict[str, Any],
        *,
        strict: bool,
        **others: Any,
    ) -> None:
        self.loads += 1
        if self._shapes(self._weights) == self._shapes(model.state_dict()):
            # Without timm's renaming, which takes some files without a head for older ones.
            used = {name: v for name, v in self._weights.items() if not self._is_head(name)}
            model.load_state_dict(used, strict=False)
            return

        def note(model: nn.Module, keys: Any) -> None:
            self.missing += self._used(_without_tied(model, keys.missing_keys))
            # Where timm is not strict, it knows of published files with parts that are not used,
            # such as DLA's projections and the attention pool of a SigLIP that averages instead.
            self.unread += self._used(keys.unexpected_keys) if strict else ()
            keys.missing_keys.clear()
            keys.unexpected_keys.clear()

        hook = model.register_load_state_dict_post_hook(note)  # type: ignore[no-untyped-call]
        original(model, {**pretrained_cfg, "state_dict": self._weights}, strict=True, **others)
        hook.remove()

    def _shapes(self, weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        return {name: weights[name].shape for name in self._used(weights)}

    def _used(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if not self._is_head(name)]


def _without_tied(model: nn.Module, missing: list[str]) -> list[str]:
    """Without the names that share memory with one that is not missing: saved once, all have it."""
    weights = model.state_dict()
    held = {weights[name].data_ptr() for name in weights.keys() - set(missing)}
    return [name for name in missing if weights[name].data_ptr() not in held]


@contextmanager
def _loading(loader: _Loader) -> Iterator[_Loader]:
    """In it, `timm.create_model` loads the loader's weights."""
    from timm.models import _builder

    original = _builder.load_pretrained
    _builder.load_pretrained = partial(loader.load, original)
    try:
        yield loader
    finally:
        _builder.load_pretrained = original
