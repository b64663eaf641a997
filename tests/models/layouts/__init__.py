"""Readers of layouts, each compared with the library that it reads for."""
