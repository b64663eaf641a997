"""Metrics, and what reads them: dashboard, alerts and `raylens top`."""
