"""What runs in the cluster: the Ray Serve application, from request to vectors."""
