"""A model's id to a folder of files that are there and whole."""
