"""Every error that a caller can get: its HTTP status, its code and its message.

Knows nothing of HTTP bodies or Ray; `api/render.py` renders errors. An error is raised where the
fact is known, and survives pickling across Ray.
"""

from typing import Any, ClassVar, Self


class RaylensError(Exception):
    """Base of all errors that a caller may see.

    `message` says what was wrong and what to do about it. It never contains a path on the server,
    an address, a traceback or an upstream's text: those go into `cause`, which is only logged. A
    cause is a kind, a colon and the details. `limit` names what refused a request because too much
    was waiting, for the metrics.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    # No class-level defaults for these: the error that Ray re-raises looks up on the original only
    # what its own class lacks, so a default would hide the value.
    param: str | None
    retry_after_s: int | None
    cause: str | None
    limit: str | None
    items: "tuple[tuple[int, RaylensError], ...]"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        cause: str | None = None,
        limit: str | None = None,
        items: "tuple[tuple[int, RaylensError], ...]" = (),
    ) -> None:
        super().__init__(message)
        self.param = param
        self.retry_after_s = retry_after_s
        self.cause = cause
        self.limit = limit
        self.items = items

    @property
    def message(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        """Drops the cause, because a pickled error goes to a caller."""
        return type(self), self.args, {**self.__dict__, "cause": None}

    def bare(self) -> Self:
        """This error without its traceback and context. If kept as an item's result, they would
        keep the whole request alive through their frames, in a reference cycle.
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


# 400: the request itself


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
    """The same message for every reason, so that it reveals nothing about the network."""

    status, code = 403, "url_forbidden"

    def __init__(self, message: str = "", **context: object) -> None:
        super().__init__(
            "This service may not fetch that URL. Use a public http(s) address, "
            "or send the image itself as base64.",
            **context,  # type: ignore[arg-type]
        )


class PathNotFound(RaylensError):
    """The same message for a missing file, one outside the roots and one that is not regular."""

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


# 413, 415, 422: size and content


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


# 429 and 5xx: load, upstream servers and our own failures


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


class ModelReplaced(Unavailable):
    """The service starts the request again, with the model that has taken the other's place."""


class FetchTimeout(RaylensError):
    status, code = 504, "fetch_timeout"


class DeadlineExceeded(RaylensError):
    status, code = 504, "deadline_exceeded"
