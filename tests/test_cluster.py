"""The ports, switches and settings that Ray is given, tested without Ray."""

import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raylens import cluster, serving
from raylens.cluster import free_port, serve_environment
from raylens.serving import ServingError

# Ports


@contextmanager
def listener() -> Iterator[int]:
    """A port on which someone listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_free_port_is_one_where_no_one_listens() -> None:
    with listener() as port:
        found = free_port()
        assert found != port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", found))


def test_a_taken_port_is_refused_with_a_way_out() -> None:
    with listener() as port, pytest.raises(ServingError, match="--port") as caught:
        serving._refuse_taken_port("127.0.0.1", port)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "in use" in str(caught.value)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ServingError, match=r"cannot listen on 192\.0\.2\.1:80.*--host"):
        serving._refuse_taken_port("192.0.2.1", 80)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_where_no_one_listens_is_not_refused(host: str) -> None:
    serving._refuse_taken_port(host, free_port())


def test_no_port_is_given_twice() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200


# Ray's switches

HAPROXY = "RAY_SERVE_HAPROXY_BINARY_PATH"  # installed once for all services


def test_two_services_share_neither_haproxys_files_nor_its_ports(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = (serve_environment(tmp_path / name) for name in "ab")
    paths = {name for name, value in one.items() if "/" in value} - {HAPROXY}
    assert len(paths) >= 4
    assert all(one[name].startswith(str(tmp_path / "a")) for name in paths)
    assert all(two[name].startswith(str(tmp_path / "b")) for name in paths)
    ports = {name for name in one if name.endswith("_PORT")}
    assert len({env[name] for name in ports for env in (one, two)}) == 2 * len(ports) >= 8


@pytest.mark.parametrize("given", ["/t", "/var/lib/some/where/deep"], ids=["short", "long"])
def test_haproxys_sockets_have_paths_that_it_can_bind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    switches = serve_environment(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", given)
    parent = cluster.scratch_parent()
    assert (parent == given) == (given == "/t")
    names = [Path(value).name for value in switches.values() if value.endswith(".sock")]
    assert len(names) == 2
    node = 56 * "f"  # Serve adds a folder for each node
    for name in names:
        assert len(str(Path(parent) / "raylens-12345678" / node / name)) <= 97


def test_the_switches_are_strings_for_the_environment(tmp_path: Path) -> None:
    switches = serve_environment(tmp_path)
    assert switches["RAY_USAGE_STATS_ENABLED"] == "0"
    assert all(name.startswith("RAY_") for name in switches)
    assert all(isinstance(value, str) for value in switches.values())


def test_the_import_path_in_the_switches_exists(tmp_path: Path) -> None:
    from ray.serve._private.utils import import_attr

    assert callable(
        import_attr(serve_environment(tmp_path)["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"])
    )


@pytest.mark.parametrize(("here", "front"), [(True, "HAProxy"), (False, "Ray Serve's own proxy")])
def test_without_haproxy_serves_own_proxy_runs_and_the_banner_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool, front: str
) -> None:
    monkeypatch.setattr(cluster, "has_haproxy", lambda: here)
    switch = serve_environment(tmp_path)["RAY_SERVE_ENABLE_HA_PROXY"]
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", switch)
    assert cluster.http_front().startswith(front)


def test_sigterm_while_ray_starts_raises_stopped_instead_of_exiting() -> None:
    with pytest.raises(cluster.StoppedError), cluster._shielded_start():
        sys.exit(signal.SIGTERM)  # as Ray's own handler does


# Settings passed on to a Ray that is already running


def test_settings_go_with_the_config_and_nothing_else_does() -> None:
    config: dict[str, Any] = {"applications": [{"name": "a"}, {"name": "b"}]}
    environment = {
        "RAYLENS_LIMITS__MAX_ITEMS": "7",
        "RAYLENS_URL": "http://other",
        "RAYLENS_API_KEY": "a secret of the client",
        "HOME": "/root",
        "RAY_ADDRESS": "auto",
    }
    serving._pass_on_settings(config, environment)
    for application in config["applications"]:
        assert application["runtime_env"]["env_vars"] == {"RAYLENS_LIMITS__MAX_ITEMS": "7"}


def test_settings_are_added_to_the_configs_own_variables_and_override_them() -> None:
    own = {"A": "1", "RAYLENS_MODEL__ID": "theirs"}
    runtime_env = {"working_dir": "x", "env_vars": own}
    config = {"applications": [{"runtime_env": runtime_env}]}
    serving._pass_on_settings(config, {"RAYLENS_MODEL__ID": "ours"})
    assert config["applications"][0]["runtime_env"] == {
        "working_dir": "x",
        "env_vars": {"A": "1", "RAYLENS_MODEL__ID": "ours"},
    }


@pytest.mark.parametrize(
    "application", [{"runtime_env": None}, {"runtime_env": {"env_vars": None}}]
)
def test_empty_keys_of_a_config_take_settings_too(application: dict[str, Any]) -> None:
    serving._pass_on_settings({"applications": [application]}, {"RAYLENS_MODEL__ID": "ours"})
    assert application["runtime_env"]["env_vars"] == {"RAYLENS_MODEL__ID": "ours"}
