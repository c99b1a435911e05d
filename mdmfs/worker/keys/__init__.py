"""File keys on the worker: made of shares, tried against commitments, held while they are needed."""
