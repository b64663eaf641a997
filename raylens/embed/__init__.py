"""Embeddings in files: what `raylens embed` writes, and how it goes on after it was stopped.

`sources` finds images, `job` has them embedded and keeps them in a `journal`, which at the end
becomes one file in one of the `formats`: `parquet`, `npy` or `jsonl`.
"""
