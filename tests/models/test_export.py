"""A model is exported once, whole or not at all, by one process at a time."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models import export as export_module
from deployments.models import exported, ir
from deployments.models.export import prepare
from deployments.models.exported import NotExportableError
from deployments.models.probes import least_cosine
from deployments.settings import ModelSettings
from tests.models.conftest import Tiny, in_float32
from tests.until import until

pytestmark = pytest.mark.slow


def start(
    model: ModelSettings, *, most_bytes_in_a_file: int | None = None, **request: Any
) -> "subprocess.Popen[str]":
    """`most_bytes_in_a_file` makes writes fail as on a full disk, for any user."""

    def limit() -> None:
        if most_bytes_in_a_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes_in_a_file,) * 2)

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "deployments.models.export"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"model": model.model_dump(mode="json"), **request}))
    process.stdin.close()
    process.stdin = None
    return process


def test_of_several_processes_one_exports_and_the_others_wait(home: Path, tiny: Tiny) -> None:
    processes = [start(in_float32(tiny("CLIP"))) for _ in range(3)]
    said = [process.communicate(timeout=120) for process in processes]
    outcomes = [json.loads(out) for out, _ in said]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len({outcome["folder"] for outcome in outcomes}) == 1
    assert sum("Exporting model" in err for _, err in said) == 1
    assert outcomes[0]["settled"][0] == "float32"
    names = {path.name for path in Path(outcomes[0]["folder"]).iterdir()}
    assert names == {
        *("image.xml", "image.bin", "text.xml", "text.bin", "tokenizer.json"),
        *("probes.npz", "manifest.json"),
    }


def test_what_a_killed_process_left_behind_is_cleaned_up(home: Path, tiny: Tiny) -> None:
    model = in_float32(tiny("ViT"))
    killed = start(model)
    key = exported.export_key(model)
    until(lambda: bool(list(home.glob(f".{key}-*"))))  # it holds the lock and has begun to write
    assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    export, _ = prepare(model)
    assert export.folder == home / key
    assert not list(home.glob(f".{key}-*"))


def test_a_second_call_exports_nothing(
    home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(in_float32(tiny("ViT")))

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(export_module, "_made", fail)
    monkeypatch.setattr(export_module, "_settle", fail)
    assert prepare(in_float32(tiny("ViT"))) == first


def test_a_model_that_openvino_cannot_convert_is_tried_only_once(
    home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def convert(*_: object) -> None:
        asked.append(1)
        raise TypeError("no such operation\nat all")

    monkeypatch.setattr(ir, "convert", convert)
    for _ in range(2):
        with pytest.raises(
            NotExportableError, match=r"^OpenVINO cannot take it \(TypeError: no such operation\)$"
        ):
            prepare(in_float32(tiny("ViT")))
    assert len(asked) == 1


def test_an_export_that_gives_different_vectors_is_refused(
    home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ir.run

    def wrong_for_one(compiled: Any, stack: Any) -> Any:
        return run(compiled, stack) * (-1 if len(stack) == 1 else 1)

    monkeypatch.setattr(ir, "run", wrong_for_one)
    with pytest.raises(
        NotExportableError, match=r"OpenVINO gives image vectors with a cosine of -1\.0000"
    ):
        prepare(in_float32(tiny("ViT")))


def test_a_checkpoint_that_cannot_be_served_is_refused_in_one_sentence(
    home: Path, tiny: Tiny, tmp_path: Path
) -> None:
    copy = tmp_path / "vit"
    shutil.copytree(tiny("ViT"), copy)
    (copy / "config.json").write_text('{"model_type": "llama"}')
    process = start(in_float32(copy))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "whose pooling raylens does not know" in out
    assert out.count("\n") == 1


def test_without_a_writable_cache_there_is_no_export(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NotExportableError, match="cannot be kept here"):
        prepare(in_float32(tiny("ViT")))


def test_a_full_disk_is_named_and_leaves_nothing_half_written(home: Path, tiny: Tiny) -> None:
    model = in_float32(tiny("ViT"))
    process = start(model, most_bytes_in_a_file=20_000)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "cannot be kept here" in json.loads(out)["refusal"]
    (said,) = (line for line in err.splitlines() if "cannot be written" in line)
    assert said.startswith(exported.LOG_PREFIX)
    assert str(home) in said
    assert "MB are free" in said
    assert "Traceback" not in err
    assert [path.name for path in home.iterdir()] == [f"{exported.export_key(model)}.lock"]
    assert prepare(model)[0].folder.parent == home  # once there is room


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_what_openvino_cannot_write_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    model = ir.convert(torch.nn.ReLU(), torch.zeros(1, 3))
    (tmp_path / "image.bin").mkdir()
    with pytest.raises(OSError, match=r"Can't open bin file: [^\n]+\); \d+ MB are free there"):
        ir.save(model, tmp_path / "image.xml")


def test_int8_on_a_full_disk_is_refused_and_leaves_the_export_whole(home: Path, tiny: Tiny) -> None:
    export, _ = prepare(in_float32(tiny("ViT")))
    before = sorted(path.name for path in export.folder.iterdir())
    process = start(in_float32(tiny("ViT"), precision="int8"), most_bytes_in_a_file=4_000)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "the int8 model cannot be written there" in out
    assert sorted(path.name for path in export.folder.iterdir()) == before


def test_int8_is_made_once_and_close_to_float32(home: Path, tiny: Tiny) -> None:
    export, _ = prepare(in_float32(tiny("ViT")))
    assert not export.tower("image", "int8").exists()
    export, settled = prepare(in_float32(tiny("ViT"), precision="int8"))
    assert export.tower("image", "int8").exists()
    assert "int8" in settled.reason
    probes = export.probes()
    vectors = ir.run(
        ir.compile(ir.read(export.tower("image", "int8")), "int8", threads=1), probes.pixels
    )
    assert least_cosine(vectors, probes.image_vectors) > 0.9
    assert not np.array_equal(vectors, probes.image_vectors)
    assert {path.suffix for path in export.folder.iterdir()} == {".xml", ".bin", ".npz", ".json"}


def test_int8_without_nncf_says_what_to_install(
    home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(CheckpointError, match=r"pip install 'raylens\[int8\]'"):
        prepare(in_float32(tiny("ViT"), precision="int8"))


def test_a_folder_of_exports_serves_a_machine_that_made_none(
    home: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "exports"
    process = start(in_float32(tiny("ViT")), to=str(store))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    copied = Path(json.loads(out)["copied_to"])
    assert copied.stat().st_mode & 0o055 == 0o055, "another user must be able to serve it"
    assert copied.parent == store
    shutil.rmtree(home)
    monkeypatch.setattr(export_module, "_made", None)
    export, settled = prepare(in_float32(tiny("ViT"), exports=str(store)))
    assert export.folder == copied
    assert settled.precision == "float32"


def test_a_half_deleted_export_is_made_again(home: Path, tiny: Tiny) -> None:
    export, _ = prepare(in_float32(tiny("ViT")))
    (export.folder / "manifest.json").unlink()
    (export.folder / "other").mkdir()
    assert prepare(in_float32(tiny("ViT")))[0] == export
    assert not (export.folder / "other").exists()


def test_an_export_that_ran_out_of_memory_is_tried_again(
    home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(ir, "save", run_out)
        with pytest.raises(NotExportableError, match=r"exporting it failed \(MemoryError\)"):
            prepare(in_float32(tiny("ViT")))
    assert prepare(in_float32(tiny("ViT")))[0].folder.parent == home


def test_a_refused_export_keeps_only_the_reason(
    home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ir, "run", lambda compiled, stack: np.ones((len(stack), 24)))
    with pytest.raises(NotExportableError):
        prepare(in_float32(tiny("CLIP")))
    (folder,) = (path for path in home.iterdir() if path.is_dir())
    assert [path.name for path in folder.iterdir()] == ["refusal.txt"]


def test_int8_can_be_added_later_to_an_export_that_is_there(home: Path, tiny: Tiny) -> None:
    prepare(in_float32(tiny("ViT")))
    # Here NNCF is the first to import OpenVINO, whose telemetry must be kept out all the same.
    process = start(in_float32(tiny("ViT"), precision="int8"))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    outcome = json.loads(out)
    assert (Path(outcome["folder"]) / "image-int8.bin").exists()


def test_a_precision_that_openvino_fails_in_gives_way_to_the_next_one(
    home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_ = ir.compile

    def only_float32(model: Any, precision: str, **options: Any) -> Any:
        if precision != "float32":
            raise RuntimeError("no kernel\nat all")
        return compile_(model, "float32", **options)

    monkeypatch.setattr(ir, "compile", only_float32)
    monkeypatch.setattr(export_module, "native_precisions", lambda: frozenset({"bfloat16"}))
    _, settled = prepare(in_float32(tiny("ViT"), precision="auto"))
    assert settled.precision == "float32"
    assert "OpenVINO says: no kernel" in settled.reason
