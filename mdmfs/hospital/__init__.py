"""The hospital zone: the only place where patients exist."""
