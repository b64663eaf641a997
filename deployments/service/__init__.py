"""One request's way from items to vectors. Knows no HTTP and no Ray."""
