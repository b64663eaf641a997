"""Puts a folder of photos into LanceDB and finds those that are most like one of them.

pip install raylens lancedb
python examples/lancedb_search.py photos photos/cat.jpg
"""

import sys
from pathlib import Path

import lancedb

import raylens


def main(folder: str, query: str, database: str = "photos.lance") -> None:
    photos = sorted(Path(folder).glob("*.jpg"))
    with raylens.Client() as client:
        vectors = client.embed(photos)
        rows = [
            {"path": str(path), "vector": vector}
            for path, vector in zip(photos, vectors, strict=True)
        ]
        table = lancedb.connect(database).create_table("photos", rows, mode="overwrite")
        hits = table.search(client.embed_image(query)).distance_type("cosine").limit(3).to_list()
    for hit in hits:
        print(f"{1 - hit['_distance']:.3f} {hit['path']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
