"""Puts a folder of photos into DuckDB and finds those that are most like one of them.

pip install raylens duckdb
python examples/duckdb_search.py photos photos/cat.jpg
"""

import sys
from pathlib import Path

import duckdb

import raylens


def main(folder: str, query: str, database: str = ":memory:") -> None:
    photos = sorted(Path(folder).glob("*.jpg"))
    with raylens.Client() as client, duckdb.connect(database) as db:
        size = client.models()[0]["dimensions"]
        db.sql(f"CREATE OR REPLACE TABLE photos (path TEXT, vector FLOAT[{size}])")
        vectors = client.embed(photos)
        rows = [(str(path), vector.tolist()) for path, vector in zip(photos, vectors, strict=True)]
        db.executemany("INSERT INTO photos VALUES (?, ?)", rows)
        hits = db.execute(
            f"SELECT array_cosine_similarity(vector, ?::FLOAT[{size}]) AS score, path "
            "FROM photos ORDER BY score DESC LIMIT 3",
            [client.embed_image(query).tolist()],
        ).fetchall()
    for score, path in hits:
        print(f"{score:.3f} {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
