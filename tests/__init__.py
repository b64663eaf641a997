"""Tests, and what `benchmarks` shares with them."""

from deployments import torchvision_operators

torchvision_operators.declare()  # before a test imports transformers
