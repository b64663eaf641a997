"""Keys as `raylens keys` writes them and the service reads them."""

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deployments.config import SettingsError, load_settings
from deployments.keys import ApiKey, KeysError, read_keys
from raylens import keys as store
from raylens.cli import app

ENV = {"RAYLENS_AUTH__KEYS_FILE": None, "COLUMNS": "200"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def keys(*args: str, path: Path) -> Result:
    return CliRunner().invoke(app, ["keys", *args, "--file", str(path)], env=ENV)


def test_the_service_reads_what_the_command_adds(path: Path) -> None:
    added = keys("add", "ci", "--rate", "600/minute", "--concurrency", "8", path=path)
    assert added.exit_code == 0
    secret = added.stdout.strip()
    (key,) = read_keys(path)
    assert (key.name, key.rate, key.concurrency) == ("ci", "600/minute", 8)
    assert key.sha256 == hashlib.sha256(secret.encode()).hexdigest()


def test_the_file_holds_no_secret_and_only_its_owner_may_read_it(path: Path) -> None:
    secret = keys("add", "ci", path=path).stdout.strip()
    assert len(secret) == 46
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_revoked_key_is_gone_and_the_others_stay(path: Path) -> None:
    for name in ("a", "b", "c"):
        keys("add", name, path=path)
    assert keys("revoke", "b", path=path).exit_code == 0
    assert [key.name for key in read_keys(path)] == ["a", "c"]
    again = keys("revoke", "b", path=path)
    assert again.exit_code == 1
    assert "no key named b" in again.stderr


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(KeysError, match="not a regular file"):
            read_keys(path)


def test_a_name_can_be_added_only_once(path: Path) -> None:
    first = keys("add", "ci", path=path).stdout.strip()
    again = keys("add", "ci", path=path)
    assert again.exit_code == 1
    assert "already" in again.stderr
    assert [k.sha256 for k in read_keys(path)] == [hashlib.sha256(first.encode()).hexdigest()]


def test_keys_added_at_the_same_time_are_all_kept(path: Path) -> None:
    def add(number: int) -> str:
        return store.add(path, f"k{number}", rate=None, concurrency=None)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert len(read_keys(path)) == 24


def test_the_list_shows_names_and_no_hashes(path: Path) -> None:
    keys("add", "ci", "--rate", "5/second", path=path)
    shown = keys("list", path=path).stdout
    assert "ci" in shown
    assert "5/second" in shown
    assert read_keys(path)[0].sha256[:8] not in shown


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["a b"], "NAME"),
        (["x" * 65], "NAME"),
        (["a", "--rate", "many"], "--rate"),
        (["a", "--rate", "0/minute"], "--rate"),
        (["a", "--concurrency", "0"], "--concurrency"),
    ],
)
def test_what_the_service_would_refuse_is_refused_at_once(
    path: Path, options: list[str], word: str
) -> None:
    refused = keys("add", *options, path=path)
    assert refused.exit_code == 2
    assert word in refused.stderr
    assert not path.exists()


def test_a_file_of_something_else_is_left_alone(path: Path) -> None:
    path.write_text("root:x:0:0\n")
    refused = keys("add", "a", path=path)
    assert refused.exit_code == 1
    assert path.read_text() == "root:x:0:0\n"


LINE = {"name": "a", "sha256": "0" * 64}


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        json.dumps(LINE | {"sha256": "secret"}),
        json.dumps(LINE | {"rate": "secret"}),
        json.dumps(LINE | {"secret": 1}),
        f"{json.dumps(LINE)}\n{json.dumps(LINE)}",
    ],
)
def test_a_line_that_is_no_key_is_named_by_its_number_and_not_quoted(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(KeysError, match=r"line [12]") as caught:
        read_keys(path)
    assert "secret" not in str(caught.value).replace("secret: Extra inputs", "")


def test_a_service_does_not_start_without_the_file_it_names(path: Path) -> None:
    with pytest.raises(SettingsError, match=r"auth\.keys_file: cannot read .*raylens keys add"):
        load_settings({"auth": {"keys_file": str(path)}})


def test_keys_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLENS_AUTH__KEYS", json.dumps([LINE]))
    assert load_settings({}).auth.keys == (ApiKey(**LINE),)


def test_whoever_could_read_the_file_still_can_after_a_change(path: Path) -> None:
    keys("add", "a", path=path)
    path.chmod(0o640)
    keys("add", "b", path=path)
    keys("revoke", "a", path=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_command_and_the_service_take_the_same_names_and_rates() -> None:
    properties = ApiKey.model_json_schema()["properties"]
    assert properties["name"]["pattern"] == f"^{store.NAME}$"
    assert properties["rate"]["anyOf"][0]["pattern"] == f"^{store.RATE}$"


def test_a_key_in_the_place_of_its_hash_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLENS_AUTH__KEYS", json.dumps([LINE | {"sha256": "rl_secret"}]))
    with pytest.raises(SettingsError, match=r"auth\.keys\.0\.sha256") as caught:
        load_settings({})
    assert "secret" not in str(caught.value)


def test_listing_a_missing_file_fails_and_says_why(path: Path) -> None:
    listed = keys("list", path=path)
    assert listed.exit_code == 1
    assert "there is no file" in listed.stderr
