"""Image bytes to pixels as the model wants them. Knows nothing of where the bytes came from."""
