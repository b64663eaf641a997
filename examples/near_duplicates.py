"""Prints pairs of photos in a folder that look nearly the same.

python examples/near_duplicates.py photos
"""

import sys
from pathlib import Path

import numpy as np

import raylens


def main(folder: str, threshold: float = 0.97) -> None:
    photos = sorted(Path(folder).glob("*.jpg"))
    with raylens.Client() as client:
        rows = client.embed(photos, errors="return", progress=True)
    for photo, row in zip(photos, rows, strict=True):
        if isinstance(row, Exception):
            print(f"{photo.name}: {row}", file=sys.stderr)
    good = [n for n, row in enumerate(rows) if not isinstance(row, Exception)]
    vectors = np.stack([rows[n] for n in good])
    cosines = vectors @ vectors.T
    for a, b in np.argwhere(np.triu(cosines, 1) >= threshold):
        print(f"{cosines[a, b]:.3f} {photos[good[a]].name} {photos[good[b]].name}")


if __name__ == "__main__":
    main(sys.argv[1])
