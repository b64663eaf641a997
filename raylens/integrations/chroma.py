"""The service as an embedding function of Chroma, registered as "raylens"."""

from typing import Any

from raylens.client.clients import Client
from raylens.client.methods import one_each

try:
    from chromadb.api.types import Embeddable, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function
except ModuleNotFoundError:
    raise ImportError("raylens.integrations.chroma needs Chroma: pip install chromadb") from None


@register_embedding_function
class RaylensEmbeddingFunction(EmbeddingFunction[Embeddable]):
    """Vectors of documents, which are texts, and of images, which are arrays (H, W, 3) of RGB.

    ```python
    photos = chroma.create_collection(
        "photos", embedding_function=RaylensEmbeddingFunction(), data_loader=ImageLoader()
    )
    ```

    `url` and `api_key` are as for `raylens.Client`, whose errors are raised. Chroma keeps `model`
    and `dimensions` with the collection; where the service is, and the key, come from RAYLENS_URL
    and RAYLENS_API_KEY where it is opened without a function.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        dimensions: int | None = None,
    ) -> None:
        self._client = Client(url, api_key=api_key)
        self._options: dict[str, Any] = {"model": model, "dimensions": dimensions}

    def __call__(self, input: Embeddable) -> Embeddings:
        items: list[Any] = [{"text": x} if isinstance(x, str) else x for x in input]
        return list(one_each(self._client.embed(items, **self._options)))

    @staticmethod
    def name() -> str:
        return "raylens"

    def default_space(self) -> Space:
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        return dict(self._options)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "RaylensEmbeddingFunction":
        # Nothing else from there: no collection says where a key is sent.
        return RaylensEmbeddingFunction(model=config["model"], dimensions=config["dimensions"])

    def validate_config_update(
        self, old_config: dict[str, Any], new_config: dict[str, Any]
    ) -> None:
        if old_config != new_config:
            raise ValueError("vectors of two models cannot be compared; make a new collection")
