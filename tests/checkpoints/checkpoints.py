"""The files of a checkpoint that is whole but computes nothing; quick to make and to damage."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

FILES: dict[str, bytes] = {
    "config.json": b'{"model_type": "clip"}',
    "preprocessor_config.json": b'{"image_processor_type": "CLIPImageProcessor"}',
    "model.safetensors": save({"weight": np.arange(1000, dtype=np.float32)}),
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "vocab.json": b'{"a": 0}',
    "merges.txt": b"#version: 0.2\n",
    "spiece.model": b"\x0a\x0e",
}

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 605157884\n"


def sharded(names: list[str]) -> dict[str, bytes]:
    """`FILES` with the weights in these shards, one tensor in each."""
    files = {name: content for name, content in FILES.items() if name != "model.safetensors"}
    tensors = {f"weight.{i}": np.zeros(10, np.float32) for i in range(len(names))}
    index = {"weight_map": dict(zip(tensors, names, strict=True))}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    for (tensor, value), name in zip(tensors.items(), names, strict=True):
        files[name] = save({tensor: value})
    return files


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
