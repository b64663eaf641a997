"""Decoding, resizing and cropping."""

from deployments import torchvision_operators

torchvision_operators.declare()  # before a test imports transformers
