"""Items to bytes: inline data, files and downloads."""
