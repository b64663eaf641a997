"""Every error a caller can meet: its HTTP status, its code and a sentence.

Knows nothing of HTTP bodies or of Ray; rendering is `api/render.py`'s job.
An error is raised where the fact is known and pickles across Ray unchanged.
"""

from typing import Any, ClassVar, Self


class RaylensError(Exception):
    """Base of all errors that a caller may see.

    `message` says what was wrong and what to do about it. It never holds a path of the
    server, an address, a traceback or an upstream's text. What does is `cause`, which is for the
    log: a kind, a colon and the details.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    # No class-level defaults for these: Ray re-raises a remote error as an object that
    # looks up what its class lacks on the original, so a default would hide the value.
    param: str | None
    retry_after_s: int | None
    cause: str | None
    items: "tuple[tuple[int, RaylensError], ...]"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        cause: str | None = None,
        items: "tuple[tuple[int, RaylensError], ...]" = (),
    ) -> None:
        super().__init__(message)
        self.param = param
        self.retry_after_s = retry_after_s
        self.cause = cause
        self.items = items

    @property
    def message(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the cause: what is pickled goes to a caller."""
        return type(self), self.args, {**self.__dict__, "cause": None}

    def bare(self) -> Self:
        """Itself without what it remembers of where it was raised. An error that is kept as an
        answer would otherwise keep the whole request, through its frames, and in a cycle.
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


# 400: the caller's words


class BadRequest(RaylensError):
    status, code = 400, "bad_request"


class InvalidItem(RaylensError):
    status, code = 400, "invalid_item"


class BadUrl(RaylensError):
    status, code = 400, "bad_url"


class BadBase64(RaylensError):
    status, code = 400, "bad_base64"


class DimensionsUnsupported(RaylensError):
    status, code = 400, "dimensions_unsupported"


class TextUnsupported(RaylensError):
    status, code = 400, "text_unsupported"


# 401, 403, 404, 405, 406


class Unauthorized(RaylensError):
    status, code = 401, "unauthorized"


class UrlForbidden(RaylensError):
    """One text for every reason, so that the refusal tells nothing about the network."""

    status, code = 403, "url_forbidden"

    def __init__(self, message: str = "", **context: object) -> None:
        super().__init__(
            "This service may not fetch that URL. Use a public http(s) address, "
            "or send the image itself as base64.",
            **context,  # type: ignore[arg-type]
        )


class PathNotFound(RaylensError):
    """One text for missing, outside the roots and not a regular file."""

    status, code = 404, "path_not_found"

    def __init__(self, message: str = "", **context: object) -> None:
        super().__init__(
            "No image file at that path under the service's image roots (setting image_roots).",
            **context,  # type: ignore[arg-type]
        )


class ModelNotFound(RaylensError):
    status, code = 404, "model_not_found"


class NotFound(RaylensError):
    status, code = 404, "not_found"


class MethodNotAllowed(RaylensError):
    status, code = 405, "method_not_allowed"


class NotAcceptable(RaylensError):
    status, code = 406, "not_acceptable"


# 413, 415, 422: sizes and contents


class BodyTooLarge(RaylensError):
    status, code = 413, "body_too_large"


class ImageTooLarge(RaylensError):
    status, code = 413, "image_too_large"


class TextTooLong(RaylensError):
    status, code = 413, "text_too_long"


class TooManyItems(RaylensError):
    status, code = 413, "too_many_items"


class UnsupportedImage(RaylensError):
    status, code = 415, "unsupported_image"


class UnsupportedMediaType(RaylensError):
    status, code = 415, "unsupported_media_type"


class CorruptImage(RaylensError):
    status, code = 422, "corrupt_image"


class FetchFailed(RaylensError):
    status, code = 422, "fetch_failed"


# 429 and 5xx: load, upstreams and ourselves


class Overloaded(RaylensError):
    status, code = 429, "overloaded"


class RateLimited(RaylensError):
    status, code = 429, "rate_limited"


class Internal(RaylensError):
    status, code = 500, "internal"


class FetchBadGateway(RaylensError):
    status, code = 502, "fetch_bad_gateway"


class Unavailable(RaylensError):
    status, code = 503, "unavailable"


class FetchTimeout(RaylensError):
    status, code = 504, "fetch_timeout"


class DeadlineExceeded(RaylensError):
    status, code = 504, "deadline_exceeded"
