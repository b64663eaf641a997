"""What HAProxy answers itself: 503 where it reaches no server, 429 while the service is overloaded.

These are rules for its configuration; `haproxy` puts them in place.
"""

import json

# The paths of `deployments/api` to which items are posted, and those where an error's `error` is a
# string, as some other services' clients expect, and not OpenAI's object. Decoded, as the service
# compares them. Below a route prefix none is known: the service itself refuses there.
_ACLS = (
    "acl is_limited path,url_dec -m beg /v1/ /v2/",
    "acl is_limited path,url_dec -m str / /embed /embeddings /predict /rerank /score /vectorize",
    "acl is_plain path,url_dec -m beg /.well-known/ /v2/health/ /v2/models/",
    "acl is_plain path,url_dec -m str / /embed /health /info /meta /v2 /vectorize",
    "acl is_plain path,url_dec -m str /rerank /v1/rerank /v2/rerank",
)


def _error(message: str) -> str:
    """The format of an error's JSON; variables hold what surrounds the message in `error`."""
    shown = json.dumps(message)
    error = f"%[var(txn.before)]{shown}%[var(txn.after)]"
    return f'{{"error": {error}, "detail": {shown}, "message": {shown}}}'


def _set_after(object_end: str, plain: str, when: str = "") -> tuple[str, str]:
    return (
        f"http-request set-var-fmt(txn.after) ', {object_end}}}' if {when} !is_plain",
        f"http-request set-var-fmt(txn.after) ', {plain}' if {when} is_plain",
    )


UNREACHABLE = (
    "content-type application/json hdr Retry-After 1 lf-string "
    f"'{_error('The service is not reachable at the moment; retry.')}'"
)
_UNREACHABLE_RULES = (
    """http-request set-var-fmt(txn.before) '{"message": ' if !is_plain""",
    *_set_after(
        '"type": "api_error", "param": null, "code": "unavailable", "request_id": null',
        '"error_type": "Unhealthy"',
    ),
    # Where it was HAProxy that found no server, or none that answered.
    "http-response set-var(txn.answered) bool(true)",
    "http-after-response set-status 503 if { status 502 504 } !{ var(txn.answered) -m found }",
)

# While the service has to refuse requests, HAProxy refuses most of them, at a hundredth of the
# cost. A refusal tells how many to admit in each WINDOW_MS, a few more than can be answered;
# without one for a second, all pass again. `deployments/api/front.py` knows the two headers. Pages
# in browsers always pass, because only the service knows which of them may read a refusal. Callers
# who pretend to be one get the service's own refusal, which costs more but lets nobody in.
WINDOW_MS = 100
_UNTIL_MS = "date(0,ms),neg,add(proc.%s) -m int gt 0"
_LIMITED = "{ method POST } is_limited"
_REFUSES = f"{_LIMITED} {{ {_UNTIL_MS % 'refuses_until'} }}"
_IS_OVER = f"!{{ {_UNTIL_MS % 'window_until'} }}"
_NONE_LEFT = "{ var(proc.left) -m int le 0 } !{ req.hdr(origin) -m found }"
_TOLD = "{ var(txn.admit) -m found }"
_OVERLOADED = _error("The answer would take %[var(proc.retry_after)] s; retry after a pause.")
RULES = (
    *_ACLS,
    *_UNREACHABLE_RULES,
    f"http-request set-var(proc.left) var(proc.admit) if {_REFUSES} {_IS_OVER}",
    f"http-request set-var(proc.window_until) date(0,ms),add({WINDOW_MS}) if {_REFUSES} {_IS_OVER}",
    f"http-request set-var(proc.refused) var(proc.refused),add(1) if {_REFUSES} {_NONE_LEFT}",
    f"http-request set-log-level silent if {_REFUSES} {_NONE_LEFT}",
    f"http-request set-var(txn.id) uuid() if {_REFUSES} {_NONE_LEFT}",
    f"http-request set-var(txn.id) req.hdr(x-request-id) if {_REFUSES} {_NONE_LEFT} "
    "{ req.hdr_cnt(x-request-id) eq 1 } "
    "{ req.hdr(x-request-id) -m reg ^[A-Za-z0-9._-]{1,128}$ }",
    *_set_after(
        '"type": "overloaded_error", "param": null, "code": "overloaded", '
        '"request_id": "%[var(txn.id)]"',
        '"error_type": "Overloaded"',
        f"{_REFUSES} {_NONE_LEFT}",
    ),
    "http-request return status 429 content-type application/json hdr X-Request-Id %[var(txn.id)] "
    f"hdr Retry-After %[var(proc.retry_after)] lf-string '{_OVERLOADED}' "
    f"if {_REFUSES} {_NONE_LEFT}",
    f"http-request set-var(proc.left) var(proc.left),sub(1) if {_REFUSES}",
    "http-request del-header X-Raylens-Refused",
    f"http-request set-header X-Raylens-Refused %[var(proc.refused)] if {_LIMITED}",
    f"http-request set-var(proc.refused) int(0) if {_LIMITED}",
    "http-response set-var(txn.admit) res.hdr(x-raylens-admit)",
    f"http-response set-var(proc.admit) var(txn.admit),add(0) if {_TOLD}",
    f"http-response set-var(proc.left) int(0) if {_TOLD}",
    f"http-response set-var(proc.window_until) date(0,ms),add({WINDOW_MS}) if {_TOLD}",
    f"http-response set-var(proc.retry_after) res.hdr(retry-after) if {_TOLD}",
    f"http-response set-var(proc.refuses_until) date(0,ms),add(1000) if {_TOLD}",
    "http-response del-header X-Raylens-Admit",
)
