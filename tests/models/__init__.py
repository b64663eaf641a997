"""Models and their checkpoints, also for what else needs some."""

from deployments import torchvision_operators

torchvision_operators.declare()  # before a test imports transformers
