"""What a client raises when the service refuses a request or an item."""

import copy
import re
from collections.abc import Mapping
from typing import Any, Self


class ApiError(Exception):
    """An error of the service, as docs/api.md lists them.

    Attributes:
        code: what went wrong, such as "corrupt_image".
        status: the HTTP status; None for one item's error in an answer that was otherwise good.
        param: which part of the request was wrong, such as "input[3]".
        request_id: what the service's log calls the request.
        items: every bad item, by its index among the items of the call.
        retry_after_s: seconds after which the same request may succeed, if the service said so.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int | None = None,
        param: str | None = None,
        request_id: str | None = None,
        items: "Mapping[int, ApiError] | None" = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.param = param
        self.request_id = request_id
        self.items = dict(items or {})
        self.retry_after_s = retry_after_s

    @property
    def message(self) -> str:
        return str(self.args[0])

    def __str__(self) -> str:
        where = f" ({self.param})" if self.param else ""
        return f"{self.code}{where}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.message, self.__dict__)

    def moved(self, offset: int) -> Self:
        """The same error of items that stand `offset` places later in the whole call."""
        moved = copy.copy(self)
        if found := re.match(r"input\[(\d+)\]", self.param or ""):
            rest = (self.param or "")[found.end() :]
            moved.param = f"input[{int(found[1]) + offset}]{rest}"
        moved.items = {index + offset: error for index, error in self.items.items()}
        return moved


def _restored(message: str, attributes: dict[str, Any]) -> ApiError:
    error = ApiError(message, code=attributes["code"])
    error.__dict__.update(attributes)
    return error
