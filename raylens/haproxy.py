"""HAProxy with Serve's configuration, less what it leaves open.

Serve starts this instead of HAProxy (RAY_SERVE_HAPROXY_BINARY_PATH), with HAProxy's arguments
behind HAProxy's own path. Knows nothing of Ray, and needs nothing but the standard library.
"""

import os
import re
import shlex
import sys
from pathlib import Path

# Serve binds these two to every interface. They show the traffic and the machines behind it.
PAGES = re.compile(r"^((?:frontend prometheus|listen stats)\n +bind )\*?:", re.MULTILINE)
DEFAULTS = re.compile(r"^defaults\n", re.MULTILINE)

FRONT = re.compile(r"^frontend http_frontend\n( +bind [^\n]*\n)+", re.MULTILINE)
MOST_CONNECTIONS = re.compile(r"^ +maxconn (\d+)$", re.MULTILINE)

# Serve sets no limit for a request's head.
HEAD_WITHIN_S = 15
# Serve counts requests by method, and keeps each one that it has ever seen.
METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY"


def fenced(configuration: str) -> str:
    """The configuration with the pages on loopback, a limit for slow heads, no invented methods,
    and at most half of the connections that there may be for one address.
    """
    configuration = PAGES.sub(r"\g<1>127.0.0.1:", configuration)
    configuration = DEFAULTS.sub(
        f"defaults\n    timeout http-request {HEAD_WITHIN_S}s\n", configuration
    )
    found = MOST_CONNECTIONS.search(configuration)
    half = int(found[1]) // 2 if found else 2048
    rules = (
        "stick-table type ipv6 size 100k expire 10m store conn_cur",
        "tcp-request connection track-sc0 src",
        f"tcp-request connection reject if {{ sc0_conn_cur gt {half} }}",
        f"http-request deny deny_status 405 if !{{ method {METHODS} }}",
    )
    return FRONT.sub(lambda front: front[0] + "".join(f"    {r}\n" for r in rules), configuration)


def launcher(haproxy: str) -> str:
    """A shell script that runs this module in front of `haproxy`."""
    quoted = map(shlex.quote, (sys.executable, "-IS", __file__, haproxy))
    return f'#!/bin/sh\nexec {" ".join(quoted)} "$@"\n'


def main() -> None:
    haproxy, *arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        path.write_text(fenced(path.read_text()))
    os.execv(haproxy, [haproxy, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
