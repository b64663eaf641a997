"""sentence-transformers' modules behind a model, read from their folders.

What is not known is refused, where the library would ignore it with a warning.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from deployments.checkpoints.checkpoint import CheckpointError, read_json, remedy
from deployments.checkpoints.layout import CONFIG
from deployments.checkpoints.modules import MODULES, Module
from deployments.models.layouts.heads import (
    TOKENS,
    VECTOR,
    Dense,
    Feature,
    LayerNorm,
    Normalize,
    Pooling,
)

# By name, because the library makes an instance of whatever class the file names.
_ACTIVATION = re.compile(r"torch\.nn\.(?:modules\.(?:activation|linear)\.)?(\w+)")
_ACTIVATIONS = (
    *("Identity", "Tanh", "ReLU", "ReLU6", "LeakyReLU", "ELU", "GELU", "SiLU", "Mish"),
    *("Sigmoid", "Softplus", "Hardswish"),
)
# In the order in which the library puts their vectors one after another.
_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_heads(folder: Path, modules: Sequence[Module], gives: Feature) -> nn.ModuleList:
    """The modules behind the model of the checkpoint in `folder`, which gives a `gives`.

    Raises CheckpointError, naming the file, for what the library would not compute either, and for
    what it would ignore.
    """
    heads = nn.ModuleList()
    known: set[str] = {gives}
    for module in modules:
        if module.kind == "Dropout":  # of training alone
            continue
        path = folder / module.path / CONFIG
        keys = _Keys(path, read_json(path) if path.is_file() or module.kind != "Normalize" else {})
        with torch.device("meta"):  # sizes alone, before a file has shown that it has so many
            head, source, target = _READ[module.kind](keys)
        keys.refuse_others()
        if source not in known:
            raise CheckpointError(
                f"{path}: this {module.kind} works on {source}, which nothing before it in "
                f"{MODULES} gives; correct either"
            )
        known.add(target)
        heads.append(_with_weights(head, path.with_name("model.safetensors")).eval())
    if VECTOR not in known:
        raise CheckpointError(
            f"{folder / MODULES}: none of its modules makes one vector of an image's patches or a "
            "text's tokens; a Pooling would"
        )
    return heads


class _Keys:
    """The configuration of a module. What is not taken is not known."""

    def __init__(self, path: Path, keys: Mapping[str, Any]) -> None:
        self.path, self._left = path, dict(keys)

    def take(self, key: str, kind: Any, default: Any = None) -> Any:
        value: Any = self._left.pop(key, default)
        if type(value) is not kind or (kind is int and value not in range(1, 1 << 31)):
            raise CheckpointError(
                f"{self.path}: {key} is {value!r}, and should be a {kind.__name__}; "
                f"{remedy(self.path)}"
            )
        return value

    def ends(self) -> tuple[str, str]:
        """The names of what the module works on and of what it gives."""
        source = self.take("module_input_name", str, VECTOR)
        target = self._left.pop("module_output_name", None) or source
        for name in (source, target):
            if name not in (TOKENS, VECTOR):
                raise CheckpointError(
                    f"{self.path}: works on {name!r}; raylens has {TOKENS} and {VECTOR} alone"
                )
        return source, target

    def modes(self) -> list[str]:
        given = {mode: self._left.pop(key, False) for key, mode in _POOLING_KEYS.items()}
        legacy = [mode for mode, active in given.items() if active] or ["mean"]
        modes = self._left.pop("pooling_mode", legacy)
        modes = [modes] if isinstance(modes, str) else modes
        known = [*_POOLING_KEYS.values()]
        if not isinstance(modes, list) or not modes or any(mode not in known for mode in modes):
            raise CheckpointError(
                f"{self.path}: pooling_mode is {modes!r}; raylens has "
                f"{', '.join(_POOLING_KEYS.values())}"
            )
        return modes

    def activation(self) -> nn.Module:
        name = self._left.pop("activation_function", "torch.nn.modules.activation.Tanh")
        found = _ACTIVATION.fullmatch(name) if isinstance(name, str) else None
        if found is None or found[1] not in _ACTIVATIONS:
            raise CheckpointError(
                f"{self.path}: activation_function is {name!r}; raylens has those of torch.nn that "
                f"are called {', '.join(_ACTIVATIONS)}"
            )
        activation: nn.Module = getattr(nn, found[1])()
        return activation

    def drop(self, *names: str) -> None:
        for name in names:
            self._left.pop(name, None)

    def refuse_others(self) -> None:
        if self._left:
            raise CheckpointError(
                f"{self.path}: raylens does not know what {', '.join(sorted(self._left))} means, so"
                " the vectors might not be the model's; choose another checkpoint"
            )


def _pooling(keys: _Keys) -> tuple[nn.Module, str, str]:
    # Which tokens are a prompt's would matter, but there are no prompts here.
    keys.drop("embedding_dimension", "word_embedding_dimension", "include_prompt")
    return Pooling(keys.modes()), TOKENS, VECTOR


def _dense(keys: _Keys) -> tuple[nn.Module, str, str]:
    source, target = keys.ends()
    width = keys.take("in_features", int), keys.take("out_features", int)
    dense = Dense(
        width,
        bias=keys.take("bias", bool, True),
        activation=keys.activation(),
        is_residual=keys.take("use_residual", bool, False),
        source=source,
        target=target,
    )
    return dense, source, target


def _normalize(keys: _Keys) -> tuple[nn.Module, str, str]:
    source, target = keys.ends()
    return Normalize(source, target), source, target


def _layer_norm(keys: _Keys) -> tuple[nn.Module, str, str]:
    return LayerNorm(keys.take("dimension", int)), VECTOR, VECTOR


_READ = {"Pooling": _pooling, "Dense": _dense, "Normalize": _normalize, "LayerNorm": _layer_norm}


def _with_weights(head: nn.Module, path: Path) -> nn.Module:
    wanted = {name: values.shape for name, values in head.state_dict().items()}
    if not wanted:
        return head
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); {remedy(path)}") from error
    if {name: values.shape for name, values in found.items()} != wanted:
        shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in wanted.items())
        raise CheckpointError(
            f"{path}: should hold {shapes}, as {CONFIG} says, and holds "
            f"{', '.join(f'{name} {tuple(v.shape)}' for name, v in sorted(found.items()))}; "
            f"{remedy(path)}"
        )
    head.load_state_dict({name: values.float() for name, values in found.items()}, assign=True)
    return head
