"""A model's id to a folder of files that are complete and undamaged."""
