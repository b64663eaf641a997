"""Checkpoint to vectors: which weights, what pixels they want, and the forward pass."""
