"""What the HAProxy in front does for the service: it refuses most of what has to be refused.

`raylens/refusals.py` has its rules.
"""

import math

from starlette.requests import Request
from starlette.responses import Response

from deployments.api.auth import tenant_of

# In a request: how many HAProxy has refused since the one before.
_REFUSED = "x-raylens-refused"
# In a refusal: how many more HAProxy is to admit in each of its windows. It removes the header.
_ADMIT = "X-Raylens-Admit"
_WINDOW_S = 0.1
# A little more than can be answered, so that the model never runs out of work.
_MARGIN = 1.25


def refused_meanwhile(request: Request) -> int:
    """How many requests HAProxy has refused since the one before."""
    given = request.headers.get(_REFUSED, "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0


def admit_in_front(request: Request, response: Response, per_s: float) -> None:
    """Asks HAProxy, if it is there, to admit about `per_s` requests a second. Not where there are
    keys: it does not know who has had how much."""
    if _REFUSED in request.headers and tenant_of(request) is None:
        response.headers[_ADMIT] = str(math.ceil(_MARGIN * per_s * _WINDOW_S))
