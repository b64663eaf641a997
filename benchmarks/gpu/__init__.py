"""What a GPU does with raylens in eight minutes: `python -m benchmarks.gpu`."""
