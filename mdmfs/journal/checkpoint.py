"""Checkpoints: a journal's head, signed by whoever writes it, for others to keep.

The signature (Ed25519, RFC 8032) is of ``mdmfs checkpoint 1``, a zero byte, the journal's id (16 bytes), number (8),
time in milliseconds (8) and link (32), integers big-endian.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mdmfs.journal.chain import Head

JOURNAL_ID_SIZE: Final = 16
_LABEL: Final = b"mdmfs checkpoint 1\0"
_STATEMENT: Final = struct.Struct(">16sQQ32s")


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a journal was at an instant."""

    journal: bytes
    """The first 16 bytes of its first line's link."""
    head: Head
    when: float
    """Seconds since the epoch."""
    signature: bytes = b""

    def signed(self, key: Ed25519PrivateKey) -> Checkpoint:
        """Sign it."""
        return dataclasses.replace(self, signature=key.sign(self._statement()))

    def is_signed_by(self, public: bytes) -> bool:
        """Ask whether the owner of a public key (32 bytes) signed it."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(self.signature, self._statement())
        except (InvalidSignature, ValueError, struct.error):
            return False
        return True

    def _statement(self) -> bytes:
        return _LABEL + _STATEMENT.pack(self.journal, self.head.number, round(self.when * 1000), self.head.link)
