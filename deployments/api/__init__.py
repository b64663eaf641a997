"""HTTP only: parses requests, renders answers and errors. Computes nothing."""
