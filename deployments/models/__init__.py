"""Checkpoints to vectors: families, exports, precision, and the engines that run them."""

import os

# How long torch's threads spin for more work before they sleep. libgomp reads it when torch is
# imported, hence here. Its default, 30 times as long, gains nothing (CLIP ViT-B/32, one image, 2
# threads: 16 ms either way) and wastes CPU time that others need: beside two busy processes, 55 ms
# of it and a p99 of 163 ms against 32 and 42.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
