"""Orders: what a hospital tells keystores to keep, change or destroy, signed with a key of its own beside TLS.

Whoever gets a certificate of the hospital's name from one of the many CAs of a grid is the hospital for TLS, and is not
for this. A signature (Ed25519) is of ``mdmfs order 1``, the path, the keystore's DN and the SHA-256 of the body, each
ended by a zero byte but for the last; it travels in headers. An epoch is confirmed by such an order, so what a keystore
holds to be decided, the hospital has signed (docs/adr/0011).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mdmfs.model.errors import AccessDeniedError
from mdmfs.model.identity import Dn
from mdmfs.wire.messages.keystores import (
    COLLECT_PATH,
    CONFIRM_PATH,
    REGISTER_PATH,
    SET_ACLS_PATH,
    UNREGISTER_PATH,
    WITNESS_PATH,
)

SIGNED_PATHS: Final = frozenset(
    {REGISTER_PATH, COLLECT_PATH, UNREGISTER_PATH, SET_ACLS_PATH, CONFIRM_PATH, WITNESS_PATH}
)
"""``collect`` is among them since a hospital gets all its shares, whatever ACLs say; users sign nothing."""
SIGNER_HEADER: Final = "mdmfs-signer"
"""The public key, 64 hexadecimal digits."""
SIGNATURE_HEADER: Final = "mdmfs-signature"
"""128 hexadecimal digits."""
_LABEL: Final = b"mdmfs order 1"

Vouch = Callable[[str, bytes], Mapping[str, str]]
"""Gives the headers that vouch for a message, from its path and body."""


class Signer(Protocol):
    """Who signs orders."""

    @property
    def public(self) -> bytes:
        """Give the public key, 32 bytes."""

    def sign(self, octets: bytes) -> bytes:
        """Give a signature of 64 bytes."""


def vouching(signer: Signer, keystore: Dn) -> Vouch:
    """Sign what is an order, for one keystore and no other."""

    def vouch(path: str, body: bytes) -> Mapping[str, str]:
        if path not in SIGNED_PATHS:
            return {}
        signature = signer.sign(_statement(path, keystore, body))
        return {SIGNER_HEADER: signer.public.hex(), SIGNATURE_HEADER: signature.hex()}

    return vouch


def signer_of(headers: Mapping[str, str], path: str, keystore: Dn, body: bytes | bytearray | memoryview) -> bytes:
    """Give whose key signed an order, empty where nobody says he did; raises ``AccessDeniedError`` for another's."""
    if SIGNER_HEADER not in headers:
        return b""
    try:
        public = bytes.fromhex(headers[SIGNER_HEADER])
        signature = bytes.fromhex(headers.get(SIGNATURE_HEADER, ""))
        _key(public).verify(signature, _statement(path, keystore, body))
    except (ValueError, InvalidSignature) as error:
        message = "the order is not signed by the key that it names, or not for this keystore"
        raise AccessDeniedError(message) from error
    return public


@functools.lru_cache(maxsize=64)
def _key(public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public)


def _statement(path: str, keystore: Dn, body: bytes | bytearray | memoryview) -> bytes:
    return b"\0".join([_LABEL, path.encode(), str(keystore).encode(), hashlib.sha256(body).digest()])
