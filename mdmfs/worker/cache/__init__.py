"""Sealed objects on the worker's disk: ciphertext only, bounded, disposable."""
