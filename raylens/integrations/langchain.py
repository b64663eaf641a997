"""The service as LangChain's `Embeddings`, for its vector stores."""

from collections.abc import Iterable

from raylens.client.clients import Client
from raylens.client.items import Item, image
from raylens.client.methods import one_each

try:
    from langchain_core.embeddings import Embeddings
    from langchain_core.runnables import run_in_executor
except ModuleNotFoundError:
    raise ImportError(
        "raylens.integrations.langchain needs LangChain: pip install langchain-core"
    ) from None


class RaylensEmbeddings(Embeddings):
    """Vectors of texts and of images, as lists of numbers.

    ```python
    store = InMemoryVectorStore(RaylensEmbeddings("http://127.0.0.1:8000"))
    ```

    `url` and `api_key` are as for `raylens.Client`, whose errors all methods raise. A model without
    a text tower embeds images alone. The asynchronous methods run the others in a thread, so that
    one object serves any number of event loops.
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
        self._model = model
        self._dimensions = dimensions

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._embed({"text": text} for text in texts)

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def embed_image(self, uris: list[str]) -> list[list[float]]:
        """Images by paths, URLs or data URIs, in the space of the texts. LangChain's stores that
        have `add_images` call it."""
        return self._embed(image(uri) for uri in uris)

    async def aembed_image(self, uris: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = await run_in_executor(None, self.embed_image, uris)
        return vectors

    def _embed(self, items: Iterable[Item]) -> list[list[float]]:
        vectors = self._client.embed(items, model=self._model, dimensions=self._dimensions)
        return list(one_each(vectors).tolist())
