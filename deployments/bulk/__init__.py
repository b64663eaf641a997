"""Embedding in bulk, on Ray Data: reading and decoding in tasks, the model in actors."""
