"""A client with plain blocking calls for other Ray jobs, through a deployment handle."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Vectors = NDArray[np.float32]


def connect(
    address: str = "auto", *, app: str = "raylens", timeout_s: float = 60.0
) -> "HandleClient":
    """A client of the service that runs on the Ray cluster at `address`.

    The service itself replies within its `request_timeout_s`; a call without a reply for
    `timeout_s`, because the service is gone, raises TimeoutError.

    Joins the cluster unless this process already has. Raises ImportError without `ray[serve]`,
    ConnectionError if no cluster runs there, RayServeException if it has no such `app`.
    """
    # `raylens serve` starts Ray with this user's token, which Ray by itself uses only if it has to
    # search for the cluster. Ray reads the variable when it is imported.
    if (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
        from ray import serve
    except ImportError as error:  # a client-only installation
        raise ImportError("connect() needs Ray: pip install 'raylens[server]'") from error

    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)
    return HandleClient(serve.get_app_handle(app), timeout_s=timeout_s)


class HandleClient:
    """The methods of the service's handle, as blocking calls.

    Vectors are float32 arrays with unit norm. A bad item raises the service's own error, with its
    `code` and `status`.
    """

    def __init__(self, handle: Any, *, timeout_s: float = 60.0) -> None:
        self._handle = handle
        self._timeout_s = timeout_s

    def embed(
        self,
        items: Sequence[Any],
        *,
        dimensions: int | None = None,
        normalize: bool = True,
        truncate: bool = True,
        on_error: Literal["fail", "report"] = "fail",
        model: str | None = None,
    ) -> "list[Vector | Exception]":
        """For each item, in any accepted form, a (D,) vector; or, under "report", its error.

        `model` selects among several models by id or alias.
        """
        return self._call(  # type: ignore[no-any-return]
            "embed",
            items,
            dimensions=dimensions,
            normalize=normalize,
            truncate=truncate,
            on_error=on_error,
            model=model,
        )

    def embed_image(self, path: str | Path) -> "Vector":
        """(D,) for a file under one of the service's image roots."""
        vectors: Vector = self._call("embed_image", path)
        return vectors

    def embed_image_url(self, url: str) -> "Vector":
        """(D,) for an image that the service fetches over http(s)."""
        vectors: Vector = self._call("embed_image_url", url)
        return vectors

    def embed_image_base64(self, data: str | bytes) -> "Vector":
        """(D,) for base64 or a whole data URI."""
        vectors: Vector = self._call("embed_image_base64", data)
        return vectors

    def embed_text(self, text: str) -> "Vector":
        """(D,) for a text, by models with a text tower."""
        vectors: Vector = self._call("embed_text", text)
        return vectors

    def batch_embed_images(self, items: Sequence[Any]) -> "Vectors":
        """(N, D) for images in any accepted form; bare strings are paths, URLs or data URIs."""
        vectors: Vectors = self._call("batch_embed_images", items)
        return vectors

    def batch_embed_text(self, texts: Sequence[str]) -> "Vectors":
        """(N, D) for texts."""
        vectors: Vectors = self._call("batch_embed_text", texts)
        return vectors

    def text_image_similarity(self, text: str, path: str | Path) -> float:
        """Cosine of a text and a file."""
        return float(self._call("text_image_similarity", text, path))

    def image_text_similarity(self, path: str | Path, text: str) -> float:
        """Cosine of a file and a text."""
        return float(self._call("image_text_similarity", path, text))

    def text_image_url_similarity(self, text: str, url: str) -> float:
        """Cosine of a text and an image that the service fetches."""
        return float(self._call("text_image_url_similarity", text, url))

    def batch_text_image_similarity(
        self, texts: Sequence[str], paths: Sequence[str | Path]
    ) -> "NDArray[np.float32]":
        """(N,) cosines of each text with the file at the same index."""
        cosines: NDArray[np.float32] = self._call("batch_text_image_similarity", texts, paths)
        return cosines

    def image_embedding_dimension(self) -> int:
        return int(self._call("image_embedding_dimension"))

    def text_embedding_dimension(self) -> int:
        return int(self._call("text_embedding_dimension"))

    def info(self) -> dict[str, Any]:
        """What `/v1/models` returns."""
        return dict(self._call("info"))

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        from ray.exceptions import RayTaskError

        response = getattr(self._handle, method).remote(*args, **kwargs)
        try:
            return response.result(timeout_s=self._timeout_s)
        except RayTaskError as error:
            raise error.cause from None  # the service's error, without the replica's traceback
