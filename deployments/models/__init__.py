"""Checkpoints to vectors: families, exports, precision, and the engines that run them."""

import os

# How long a thread of torch's looks out for its next piece of work before it sleeps. Read by
# libgomp when torch is imported, hence here. Its own 30 times as much gains nothing (CLIP ViT-B/32,
# one image, 2 threads: 16 ms either way) and, where something else needs the processors, burns
# them: beside two busy processes 55 ms of processor time and a p99 of 163 ms against 32 and 42.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
