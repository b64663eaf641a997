"""What the README and the issues promise, measured. Run from a checkout, with `make`."""
