"""Settings come from the config and the environment; a wrong one is named with what it may be."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.config import SettingsError, for_another_model, load_settings
from deployments.threads import thread_count

ROOT = Path(__file__).parent.parent


def test_no_arguments_give_the_bundled_model_and_no_image_roots() -> None:
    settings = load_settings({})
    assert settings.model.id == "efficientnet-lite0"
    assert settings.image_roots == ()


@pytest.mark.parametrize(
    ("args", "key", "allowed"),
    [
        ({"modell": {}}, "modell", "model, models, limits"),
        ({"models": [{"id": "a", "size": 3}]}, "models.0.size", "max_batch_size"),
        ({"models": [{"id": "efficientnet-lite0"}]}, "models", "efficientnet-lite0"),
        ({"models": [{"id": "a"}, {"id": "b", "aliases": ["a"]}]}, "models", "'a'"),
        ({"models": [{"id": "/x/m"}, {"id": "/y/m"}]}, "models", "called 'm'"),
        ({"models": [{"id": "x/m"}, {"id": "y/m"}]}, "models", "deployment 'Embedder-m'"),
        ({"model": {"max_batch": 3}}, "model.max_batch", "max_batch_size"),
        ({"model": {"device": "tpu"}}, "model.device", "'auto', 'cpu' or 'cuda'"),
        ({"model": {"text_revision": "v1"}}, "model", "without text_id"),
        ({"limits": {"max_items": 0}}, "limits.max_items", "greater than or equal to 1"),
        ({"limits": {"request_timeout_s": "soon"}}, "limits.request_timeout_s", "number"),
        ({"fetch": {"allow_cidrs": ["10.0.0.0/33"]}}, "fetch.allow_cidrs.0", "network"),
        ({"fetch": {"allow_ports": [0]}}, "fetch.allow_ports.0", "greater than or equal to 1"),
        ({"fetch": {"allow_hosts": ["minio:9000"]}}, "fetch.allow_hosts.0", "pattern"),
        ({"decode": {"threads": "many"}}, "decode.threads", "'auto'"),
        ({"image_roots": ["/no/such/folder"]}, "image_roots", "not a folder"),
        ({"image_roots": "photos"}, "image_roots", "list"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_may_be(
    args: dict[str, Any], key: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(args)
    assert str(caught.value).startswith(key)
    assert allowed in str(caught.value)


def test_a_model_from_the_environment_inherits_no_revision_from_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {"revision": "r1", "aliases": ["b"], "matryoshka": True, "pooling": "cls"}
    own |= {"text_id": "e/f", "text_revision": "r3"}
    args = {"model": {"id": "a/b", "max_batch_size": 3, **own}}
    monkeypatch.setenv("RAYLENS_MODEL__ID", "c/d")
    model = load_settings(args).model
    assert (model.id, model.max_batch_size) == ("c/d", 3)
    assert (model.revision, model.aliases) == (None, ())
    assert (model.matryoshka, model.pooling) == (False, "auto")
    assert (model.text_id, model.text_revision) == (None, None)
    monkeypatch.setenv("RAYLENS_MODEL__REVISION", "r2")
    assert load_settings(args).model.revision == "r2"


def test_the_environment_overrides_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLENS_FETCH__ALLOW_CIDRS", '["127.0.0.0/8"]')
    monkeypatch.setenv("RAYLENS_MODEL__REVISION", "123")
    settings = load_settings({"model": {"id": "mine", "revision": "abc"}})
    assert [str(n) for n in settings.fetch.allow_cidrs] == ["127.0.0.0/8"]
    assert (settings.model.id, settings.model.revision) == ("mine", "123")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RAYLENS_MODLE__ID", "x"),
        ("RAYLENS_MODEL__IDD", "x"),
        ("RAYLENS_IMAGE_ROOTS", "photos"),
        ("RAYLENS_LIMITS__MAX_ITEMS", "many"),
    ],
)
def test_a_wrong_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name.rpartition("_")[2].lower() + "|" + name):
        load_settings({})


@pytest.mark.parametrize("wrong", [{"models": "x"}, {"models": ["x"]}, {"image_roots": "photos"}])
def test_a_wrong_type_is_named_in_the_terms_of_yaml(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"should be a (list|section)"):
        load_settings(wrong)


@pytest.mark.parametrize(
    ("name", "value"), [("RAYLENS_MODELS", "x"), ("RAYLENS_FETCH__ALLOW_PORTS", "80,443")]
)
def test_a_variable_that_should_be_json_is_called_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"^{name}: lists and sections are JSON"):
        load_settings({})


def test_the_clients_own_variables_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLENS_URL", "http://127.0.0.1:9000")
    load_settings({})


def test_a_folder_of_exports_becomes_absolute_and_a_bucket_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"model": {"exports": "exports"}, "models": [{"id": "a/b", "exports": "s3://b/x"}]}
    settings = load_settings(given)
    assert settings.model.exports == str(tmp_path / "exports")
    assert settings.models[0].exports == "s3://b/x"


def test_a_models_relative_folder_becomes_absolute_and_callers_see_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "models" / "clip").mkdir(parents=True)
    (tmp_path / "efficientnet-lite0").mkdir()
    monkeypatch.chdir(tmp_path)
    given = {"models": [{"id": "models/clip"}, {"id": "./none"}, {"id": "acme/vit"}]}
    settings = load_settings(given)
    found = [(model.id, model.name) for model in (settings.model, *settings.models)]
    assert found == [
        ("efficientnet-lite0", "efficientnet-lite0"),
        (str(tmp_path / "models" / "clip"), "clip"),
        (str(tmp_path / "none"), "none"),
        ("acme/vit", "acme/vit"),
    ]


def test_image_roots_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_settings({"image_roots": ["photos"]}).image_roots == (tmp_path / "photos",)


def test_an_image_root_that_is_a_link_keeps_the_name_that_callers_know(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    assert load_settings({"image_roots": [str(link)]}).image_roots == (link,)


def test_settings_survive_pickling_for_the_replicas() -> None:
    settings = load_settings({"fetch": {"allow_cidrs": ["10.0.0.0/8"]}})
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    "path", [ROOT / "serve_config.yaml", *sorted((ROOT / "configs").glob("*.yaml"))], ids=str
)
def test_every_config_in_the_tree_has_valid_settings(path: Path) -> None:
    for application in yaml.safe_load(path.read_text())["applications"]:
        assert application["import_path"] == "deployments.app:build_app"
        load_settings(application["args"])


@pytest.mark.parametrize("value", ["on", "off", "auto"])
def test_compile_may_be_written_in_yaml_as_the_readme_writes_it(value: str) -> None:
    args = yaml.safe_load(f"model: {{compile: {value}}}")
    assert load_settings(args).model.compile == value


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", None), ("50000 100000", 1), ("100001 100000", 2), ("9900000 100000", None)],
)
def test_threads_are_no_more_than_the_containers_limit(
    tmp_path: Path, limit: str, expected: int | None
) -> None:
    file = tmp_path / "cpu.max"
    everything = thread_count("auto", quota_file=tmp_path / "none")
    file.write_text(f"{limit}\n")
    assert thread_count("auto", quota_file=file) == min(expected or everything, everything)
    assert thread_count(3, quota_file=file) == 3


def test_another_model_keeps_what_is_said_of_any_model() -> None:
    own = {"id": "a/b", "revision": "main", "pooling": "cls", "text_id": "a/t", "exports": "x"}
    args = {"model": {**own, "threads": 3}, "image_roots": ["photos"]}
    assert for_another_model(args, "c/d") == {
        "model": {"id": "c/d", "threads": 3},
        "image_roots": ["photos"],
    }
    assert for_another_model({}, "c/d") == {"model": {"id": "c/d"}}
