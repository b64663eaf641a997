"""Hardens Serve's configuration of HAProxy, then runs HAProxy.

Serve starts this instead of HAProxy (RAY_SERVE_HAPROXY_BINARY_PATH); its arguments are HAProxy's
path and HAProxy's arguments. Knows nothing of Ray, and needs only the standard library.
"""

import os
import re
import runpy
import shlex
import sys
from pathlib import Path


class UnknownTemplateError(Exception):
    """Serve's configuration of HAProxy is not the one known here; the message says why."""


# Serve binds these two to every interface. They reveal the traffic and the machines behind it.
PAGES = re.compile(r"^((?:frontend prometheus|listen stats)\n +bind )\*?:", re.MULTILINE)
DEFAULTS = re.compile(r"^defaults\n", re.MULTILINE)

FRONT = re.compile(r"^frontend http_frontend\n( +bind [^\n]*\n)+", re.MULTILINE)
MAXCONN = re.compile(r"^ +maxconn (\d+)$", re.MULTILINE)

# Serve sets no timeout for a request's head.
HEAD_TIMEOUT_S = 15
# Serve counts requests by method, and never forgets a method that it has seen.
METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY"


def hardened(configuration: str) -> str:
    """The configuration with the pages on loopback only, a timeout for request heads, known methods
    only, and at most half of all connections for one address.

    Raises UnknownTemplateError if it cannot add them: HAProxy must not run without them.
    """
    found = MAXCONN.search(configuration)
    if found is None:
        raise UnknownTemplateError("it has no limit of connections")
    half = int(found[1]) // 2
    configuration = _substituted(PAGES, r"\g<1>127.0.0.1:", configuration, times=2)
    configuration = _substituted(
        DEFAULTS, f"defaults\n    timeout http-request {HEAD_TIMEOUT_S}s\n", configuration
    )
    rules = (
        "stick-table type ipv6 size 100k expire 10m store conn_cur",
        "tcp-request connection track-sc0 src",
        f"tcp-request connection reject if {{ sc0_conn_cur gt {half} }}",
        f"http-request deny deny_status 405 if !{{ method {METHODS} }}",
    )
    added = "".join(f"    {rule}\n" for rule in rules)
    return _substituted(FRONT, rf"\g<0>{added}", configuration)


def _substituted(
    pattern: re.Pattern[str], replacement: str, configuration: str, *, times: int = 1
) -> str:
    changed, number = pattern.subn(replacement, configuration)
    if number != times:
        raise UnknownTemplateError(f"it has {number} places like {pattern.pattern!r}, not {times}")
    return changed


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


def launcher(haproxy: str) -> str:
    """A shell script that runs this module in front of `haproxy`."""
    quoted = map(shlex.quote, (sys.executable, "-IS", __file__, haproxy))
    return f'#!/bin/sh\nexec {" ".join(quoted)} "$@"\n'


def main() -> None:
    haproxy, *arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        try:
            path.write_text(hardened(path.read_text()))
        except UnknownTemplateError as error:
            sys.exit(f"raylens does not know this configuration of HAProxy: {error}")
    os.execv(haproxy, [haproxy, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
