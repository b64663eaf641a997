"""From what a caller sent (base64, a path, a URL) to pixels. Knows nothing of models or of HTTP."""
