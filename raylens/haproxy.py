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

# Serve sets no limit for a request's head, so idle connections could use up all there may be.
HEAD_WITHIN_S = 15


def fenced(configuration: str) -> str:
    """The configuration with the pages on loopback and a limit for slow heads."""
    paged = PAGES.sub(r"\g<1>127.0.0.1:", configuration)
    return DEFAULTS.sub(f"defaults\n    timeout http-request {HEAD_WITHIN_S}s\n", paged)


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
