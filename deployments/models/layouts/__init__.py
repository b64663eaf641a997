"""Layouts of checkpoints: each makes towers of a folder's files, by the library that knows them."""
