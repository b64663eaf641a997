"""How many replicas scaling policies have over a day, and what callers see of it."""
