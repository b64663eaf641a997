"""Puts a folder of photos into Qdrant and finds those that are most like one of them.

Qdrant runs within this process here; give `QdrantClient` the address of a server instead.

    pip install raylens qdrant-client
    python examples/qdrant_search.py photos photos/cat.jpg
"""

import sys
from pathlib import Path

from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams

import raylens


def main(folder: str, query: str) -> None:
    photos = sorted(Path(folder).glob("*.jpg"))
    database = QdrantClient(":memory:")
    with raylens.Client() as client:
        size = client.models()[0]["dimensions"]
        database.create_collection(
            "photos", vectors_config=VectorParams(size=size, distance=Distance.COSINE)
        )
        points = [
            PointStruct(id=number, vector=vector.tolist(), payload={"path": str(path)})
            for number, (path, vector) in enumerate(zip(photos, client.embed(photos), strict=True))
        ]
        database.upsert("photos", points)
        hits = database.query_points("photos", query=client.embed_image(query).tolist(), limit=3)
    for hit in hits.points:
        print(f"{hit.score:.3f} {(hit.payload or {})['path']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
