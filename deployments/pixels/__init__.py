"""Image bytes to pixels as the model wants them. Does not know where the bytes came from."""
