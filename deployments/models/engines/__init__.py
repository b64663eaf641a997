"""What runs a model: OpenVINO for exported ones, torch for all others."""
