"""The service as an embedding function of LanceDB, registered as "raylens"."""

from typing import Any, ClassVar, Literal

import numpy as np

from raylens.client.clients import Client
from raylens.client.items import as_items, image
from raylens.client.methods import one_each

try:
    from lancedb.embeddings import EmbeddingFunction, register
except ModuleNotFoundError:
    raise ImportError("raylens.integrations.lancedb needs LanceDB: pip install lancedb") from None


@register("raylens")
class RaylensEmbeddings(EmbeddingFunction):
    """Vectors of a table's images or texts, and of what is searched for.

    ```python
    raylens = get_registry().get("raylens").create()
    ```

    A table remembers these arguments and makes the function from them again. Where the service is,
    and the key, come from RAYLENS_URL and RAYLENS_API_KEY of whoever opens it, so that no key gets
    into a table, and no table says where to send one. Raises what `raylens.Client` does.
    """

    model_config: ClassVar[Any] = {"extra": "forbid"}

    model: str | None = None
    dimensions: int | None = None
    strings: Literal["image", "text"] = "image"
    """What strings in the source column are: paths or URLs of images, or texts."""
    max_retries: int = 0
    """By LanceDB, after any error; the client itself retries what is worth it."""

    _client: Client | None = None

    def ndims(self) -> int:
        return self.dimensions or int(self._embed([]).shape[1])

    def compute_source_embeddings(self, items: Any, *_: Any, **__: Any) -> list[Any]:
        """Of strings, bytes or pictures: one, or a list or Arrow array of them."""
        is_column = isinstance(items, np.ndarray) and items.ndim == 1
        given = as_items(self.sanitize_input(items.tolist() if is_column else items))
        if self.strings == "text":
            return list(self._embed([{"text": x} if isinstance(x, str) else x for x in given]))
        return list(self._embed([image(x) for x in given]))

    def compute_query_embeddings(self, query: Any, *_: Any, **__: Any) -> list[Any]:
        """Of a text; or of an image, as a path object, a picture or its bytes."""
        return list(self._embed([{"text": query} if isinstance(query, str) else query]))

    def _embed(self, items: list[Any]) -> Any:
        if self._client is None:
            self._client = Client()
        return one_each(self._client.embed(items, model=self.model, dimensions=self.dimensions))
