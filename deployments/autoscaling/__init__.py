"""How many replicas there should be: the calculation, and what Serve calls."""
