"""Other services' own clients, unchanged, against a service: `make sdk`."""
