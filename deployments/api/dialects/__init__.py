"""What the clients of other services send, translated for raylens's own service.

Each dialect has its own bodies, answers and errors; limits, keys, deadlines and metrics are the
same as everywhere.
"""

from deployments.api.dialects import cohere, immich, oip, rerank, tei, vllm, voyage, weaviate
from deployments.api.endpoint import Dialect
from deployments.settings import ApiSettings

DIALECTS = (
    cohere.DIALECT,
    immich.DIALECT,
    oip.DIALECT,
    rerank.DIALECT,
    tei.DIALECT,
    vllm.DIALECT,
    voyage.DIALECT,
    weaviate.DIALECT,
)


def spoken(settings: ApiSettings) -> tuple[Dialect, ...]:
    """Those that the settings allow."""
    return tuple(dialect for dialect in DIALECTS if dialect.name in settings.dialects)
