"""Embeddings on disk: how they are read, and what is done with them."""
