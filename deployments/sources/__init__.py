"""Items to bytes: what came with the request, files, and what is fetched."""
