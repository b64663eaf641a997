"""What `methods` needs of a way to reach the service."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from raylens.client.errors import ApiError
from raylens.client.items import SentItem

Dtype = Literal["float32", "float16", "int8", "ubinary"]
NUMPY = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "ubinary": np.uint8}
Vector: TypeAlias = NDArray[np.float32] | NDArray[Any]
Row: TypeAlias = Vector | ApiError
Ranked: TypeAlias = list[tuple[str, float]]
"""Labels and their probabilities, the best first."""


@dataclass(frozen=True)
class EmbedOptions:
    """What POST /v1/embeddings takes besides items."""

    model: str | None = None
    dimensions: int | None = None
    normalize: bool = True
    truncate: bool = True
    dtype: Dtype = "float32"
    on_error: Literal["fail", "report"] = "fail"


class Transport(Protocol):
    """One request to the service. Each method raises ApiError, ConnectionError if the service
    cannot be reached and TimeoutError if it does not answer."""

    async def embed(self, items: Sequence[SentItem], options: EmbedOptions) -> list[Row]:
        """A row for each item: a (D,) vector or, under "report", its error."""

    async def classify(
        self,
        items: Sequence[SentItem],
        labels: Sequence[str],
        *,
        template: str | None,
        model: str | None,
    ) -> list[Ranked]:
        """For each item, all labels."""

    async def models(self) -> dict[str, Any]:
        """What GET /v1/models answers."""

    async def ready(self) -> bool: ...

    async def close(self) -> None: ...
