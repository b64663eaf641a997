"""The model deployment, and its client in the ingress."""
