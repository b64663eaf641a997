"""Reads the imports and keeps the walls between the folders, as the README's tree draws them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT

MAX_LINES = 300
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("deployments", "raylens")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
NAMES = sorted(MODULES)
TESTS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "tests").rglob("*.py"))
    if path.stat().st_size  # an `__init__.py` may be empty
}
ALL_MODULES = MODULES | TESTS

# What must not get into a public repository: this project's own build machines, and where
# their packages came from.
PRIVATE = re.compile(r"(?<![\w.~])/work/|/tmp/dev\b|index-url|find-links|artifactory", re.I)


def statements(tree: ast.AST, *, deep: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports in `tree`; without `deep`, only those that run when it is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif deep or not (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ):
            yield from statements(node, deep=deep)


def imports(name: str, *, deep: bool = True) -> set[str]:
    """All that a module imports, as dotted names; `from a import b` counts as `a` and `a.b`."""
    found = set()
    for node in statements(ast.parse(MODULES[name].read_text()), deep=deep):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{name} has a relative import, which this test cannot read"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def importers(*packages: str) -> set[str]:
    return {name for name in NAMES if any(within(i, packages) for i in imports(name))}


def room(*packages: str) -> set[str]:
    """The modules of these packages, all of which must exist."""
    found = {name for name in NAMES if within(name, packages)}
    assert all(any(within(name, [package]) for name in found) for package in packages)
    return found


VOCABULARY = (
    *("errors", "items", "keys", "settings", "wire", "fairness", "threads", "texts"),
    *("torchvision_operators", "tracing", "metrics.kinds", "metrics.declared"),
)
# Which rooms and top-level files each room may import, besides the vocabulary, which all may.
ALONE = (
    *("autoscaling.policy", "autoscaling.processor_time", "bulk.places", "bulk.stages"),
    *("bulk.unread", "embedder.cold_start", "embedder.batch_queue", "embedder.batch_time"),
    *("embedder.messages", "embedder.pace", "embedder.replacement", "embedder.routing"),
)
MAY_IMPORT: dict[str, set[str]] = {
    **{name: set() for name in ALONE},
    "app": {"config", "ingress", "embedder.deployment"},
    "ingress": {
        *("api", "service", "sources", "pixels", "embedder.client", "metrics.export"),
        *("embedder.cold_start", "autoscaling.processor_time"),
        "checkpoints.open_clip_names",
    },
    "api": {"service"},
    "service": {"sources", "pixels"},
    "sources": set(),
    "pixels": set(),
    "autoscaling.serve": {"autoscaling.policy"},
    "embedder.client": {
        *("embedder.cold_start", "embedder.messages", "embedder.pace", "embedder.replacement"),
    },
    "embedder.gate": {"embedder.batch_queue", "embedder.batch_time"},
    "embedder.proof": {"models"},
    "embedder.deployment": {
        *("embedder.gate", "embedder.messages", "embedder.proof", "embedder.routing"),
        *("checkpoints.checkpoint", "models", "metrics.export"),
        "checkpoints.open_clip_names",
    },
    "models": {"checkpoints", "config"},
    "bulk.lead": {"bulk.places"},
    "bulk.parts": {"bulk.lead", "bulk.places", "bulk.unread"},
    "bulk.lance": {"bulk.lead", "bulk.parts", "bulk.places"},
    "bulk.sources": {"bulk.parts", "bulk.places", "bulk.unread"},
    "bulk.loading": {
        *("bulk.places", "bulk.stages", "bulk.unread"),
        *("service.loader", "sources.fetch", "sources.files", "pixels.workers"),
    },
    "bulk.model": {
        *("bulk.loading", "bulk.stages"),
        *("checkpoints.checkpoint", "models", "service.vectors"),
    },
    "bulk.pipeline": {"bulk"},
    **{room: set() for room in ("checkpoints", "metrics.export", "ray_internals", "config")},
}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_point_down_the_page(name: str) -> None:
    allowed = {name, *MAY_IMPORT[name], *VOCABULARY}
    if name in ("ingress", "embedder.deployment"):
        allowed |= {"ray_internals"}
    inside = room(f"deployments.{name}")
    for module in inside:
        ours = {i for i in imports(module) if i in NAMES and within(i, ["deployments"])}
        packages = {i for i in ours if MODULES[i].name == "__init__.py"}
        wrong = {i for i in ours - packages if not within(i, [f"deployments.{a}" for a in allowed])}
        assert not wrong, f"{module} imports {sorted(wrong)}"


def test_every_module_of_the_deployments_has_its_place() -> None:
    known = [f"deployments.{name}" for name in (*MAY_IMPORT, *VOCABULARY)]
    assert not {n for n in room("deployments") if not within(n, known) and "." in n} - {
        f"deployments.{package}" for package in ("autoscaling", "embedder", "bulk", "metrics")
    }


def test_the_vocabulary_knows_nothing_of_the_rooms() -> None:
    vocabulary = [f"deployments.{name}" for name in VOCABULARY]
    for module in room(*vocabulary):
        ours = {i for i in imports(module) if within(i, ["deployments"])} - {"deployments"}
        assert all(within(i, vocabulary) for i in ours), module


def test_only_the_rim_of_the_deployments_imports_ray() -> None:
    serving = ("app", "ingress", "embedder.deployment", "embedder.client", "metrics.export")
    rim = (*serving, "embedder.routing", "bulk.pipeline", "ray_internals")
    assert importers("ray") & room("deployments") == {f"deployments.{name}" for name in rim}


def test_only_models_the_bundled_checkpoint_and_resampling_import_torch() -> None:
    users = importers("torch", "safetensors", "huggingface_hub")
    late = room("deployments.pixels.resample", "deployments.torchvision_operators")
    assert users - room("deployments.models") <= room("deployments.checkpoints") | late
    torch_users = importers("torch") - room("deployments.models")
    converters = room("deployments.checkpoints.bundled", "deployments.checkpoints.pickles")
    assert torch_users == converters | late
    for name in torch_users:
        assert "torch" not in imports(name, deep=False)


def test_outside_the_models_only_what_is_a_checkpoints_own_needs_transformers() -> None:
    users = importers("transformers") - room("deployments.models")
    assert users == room("deployments.pixels.processor", "deployments.texts.own_tokenizer")
    for name in users:
        assert not {i for i in imports(name, deep=False) if "transf" in i}


def test_a_replica_of_an_exported_model_needs_neither_torch_nor_the_hub() -> None:
    """Judged by what `load_engine` imports before it knows that torch is needed."""
    seen: set[str] = set()
    todo = ["deployments.embedder.deployment", "deployments.models.engines.openvino"]
    while todo:
        name = todo.pop()
        seen.add(name)
        found = imports(name, deep=False)
        assert not {i for i in found if within(i, ["torch", "transformers", "huggingface_hub"])}
        todo += [i for i in found if i in MODULES and i not in seen]


def test_openvino_is_imported_only_where_its_telemetry_is_kept_out() -> None:
    assert importers("openvino") == room("deployments.models.ir")


def test_only_the_loader_knows_both_where_images_are_and_how_they_are_decoded() -> None:
    both = importers("deployments.sources") & importers("deployments.pixels")
    wiring = room("deployments.ingress", "deployments.bulk.loading")
    assert both == room("deployments.service.loader") | wiring


def test_the_deployments_import_nothing_of_the_users_package() -> None:
    assert not importers("raylens") & room("deployments")


def test_the_users_package_imports_the_deployments_only_for_bulk_and_to_list_families() -> None:
    """Within functions, because a dataset of Ray Data cannot come from another process."""
    users = importers("deployments") & room("raylens")
    assert users == {"raylens.bulk", "raylens.bulk_service", "raylens.cli.service"}
    for name in users:
        assert not {i for i in imports(name, deep=False) if within(i, ["deployments"])}


@pytest.mark.parametrize("name", sorted(room("raylens")))
def test_the_users_package_imports_ray_and_torch_only_within_functions(name: str) -> None:
    heavy = ("ray", "torch", "transformers", "PIL", "pydantic", "starlette", "aiohttp")
    assert not {i for i in imports(name, deep=False) if within(i, heavy)}


def test_importing_the_users_package_loads_neither_ray_nor_torch() -> None:
    heavy = ["ray", "torch", "transformers", "PIL", "pydantic", "yaml", "deployments"]
    program = f"import sys, raylens, raylens.cli; print(sorted(set({heavy}) & set(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ALL_MODULES)
def test_every_module_says_what_it_does(name: str) -> None:
    assert ast.get_docstring(ast.parse(ALL_MODULES[name].read_text()))


@pytest.mark.parametrize("name", ALL_MODULES)
def test_every_module_fits_on_a_few_screens(name: str) -> None:
    lines = ALL_MODULES[name].read_text().count("\n")
    assert lines <= MAX_LINES


def test_few_files_stand_at_the_top_of_the_deployments() -> None:
    assert len(list((ROOT / "deployments").glob("*.py"))) <= 14


def test_no_module_has_a_vague_name() -> None:
    vague = {"utils", "util", "helpers", "helper", "base", "common", "misc"}
    assert not [name for name in NAMES if vague & set(name.split("."))]


def test_no_file_names_the_machine_it_was_written_on() -> None:
    told = []
    for path in shipped():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if PRIVATE.search(line) and path != Path(__file__):
                told.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not told


def shipped() -> list[Path]:
    """The files that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert ROOT / "pyproject.toml" in paths
    return [path for path in paths if path.is_file()]


HANDLE_METHODS = {
    "embed",
    "embed_image",
    "embed_image_url",
    "embed_image_base64",
    "embed_text",
    "batch_embed_images",
    "batch_embed_text",
    "text_image_similarity",
    "image_text_similarity",
    "text_image_url_similarity",
    "batch_text_image_similarity",
    "image_embedding_dimension",
    "text_embedding_dimension",
    "classify",
    "info",
    "ready",
}


def test_the_handle_has_the_methods_of_the_contract() -> None:
    tree = ast.parse((ROOT / "deployments" / "ingress.py").read_text())
    ingress = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef))
    methods = {
        node.name
        for node in ingress.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if not node.name.startswith("_")
    }
    assert methods - {"check_health", "record_autoscaling_stats"} == HANDLE_METHODS
