"""The hospital's signing key: Ed25519, made at the first start; it signs what others keep as evidence.

A key of its own, since certificates are renewed and what was signed must be checked years later.
"""

from __future__ import annotations

import pathlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mdmfs.hospital.secret import own_secret
from mdmfs.journal.checkpoint import Checkpoint


class SigningKey:
    """Signs in the hospital's name; has no repr that shows the key."""

    def __init__(self, path: pathlib.Path) -> None:
        """Take the key of ``path``, or make one; raises ``StoreError``."""
        self._key = Ed25519PrivateKey.from_private_bytes(own_secret(path))
        self.public = self._key.public_key().public_bytes_raw()
        """32 bytes."""

    def sign_checkpoint(self, checkpoint: Checkpoint) -> Checkpoint:
        """Sign where a journal is."""
        return checkpoint.signed(self._key)

    def sign(self, octets: bytes) -> bytes:
        """Give a signature of 64 bytes; ``octets`` begin with a label of what they are."""
        return self._key.sign(octets)
