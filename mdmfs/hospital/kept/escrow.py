"""Escrow: file keys are made once, split, deposited at the keystores, and collected again for each sealing.

The hospital keeps no key. What it keeps until the keystores have acknowledged are the shares, sealed in the outbox, and
for ever a check of each key from which the key cannot be found.
"""

from __future__ import annotations

import dataclasses
import hmac
import pathlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mdmfs.hospital.kept.headers import seal_beginning
from mdmfs.hospital.secret import own_secret
from mdmfs.model.errors import StoreError, WrongKeyError
from mdmfs.model.names import GUID_SIZE, Guid
from mdmfs.sealing.header import FileKey
from mdmfs.sharing.shamir import SECRET_SIZE, SPLIT_ID_SIZE, split
from mdmfs.wire.messages.keystores import KeyEntry, VersionedAcl

KEY_CHECK_SIZE: Final = 16
FIRST_GENERATION: Final = 1
_NONCE_SIZE: Final = 12
_KEY_CHECK_LABEL: Final = b"mdmfs key check 1"


class Deposit(msgspec.Struct, frozen=True, array_like=True):
    """What one keystore is to get, in this order."""

    acls: list[VersionedAcl]
    entries: list[KeyEntry]


@dataclasses.dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made and is already forgotten: what remains of it."""

    guid: Guid
    check: bytes
    shares: Mapping[str, bytes] = dataclasses.field(repr=False)
    """For each keystore its share record."""
    generation: int = FIRST_GENERATION
    sealed_beginning: bytes = dataclasses.field(default=b"", repr=False)
    """The file's prefix object; empty where none was asked for."""


def make_key(
    guid: Guid,
    keystores: Sequence[str],
    threshold: int,
    generation: int = FIRST_GENERATION,
    *,
    beginning: bytes = b"",
) -> NewKey:
    """Draw a file key, split it for the keystores, x in their order, and forget it.

    ``beginning`` is sealed with it: the plaintext of the file's prefix object.
    """
    with FileKey.from_random(secrets.token_bytes(SECRET_SIZE)) as key:
        new = split_key(key, guid, keystores, threshold, generation)
        sealed = seal_beginning(beginning, key, guid, generation) if beginning else b""
    return dataclasses.replace(new, sealed_beginning=sealed)


def split_key(key: FileKey, guid: Guid, keystores: Sequence[str], threshold: int, generation: int) -> NewKey:
    """Split a key that was just drawn for the keystores, x in their order; whoever drew it forgets it."""
    secret = bytes(key.octets)
    shares = split(
        secret,
        guid=guid,
        generation=generation,
        threshold=threshold,
        total=len(keystores),
        split_id=secrets.token_bytes(SPLIT_ID_SIZE),
        coefficients=secrets.token_bytes((threshold - 1) * SECRET_SIZE),
    )
    named = {name: share.encode() for name, share in zip(keystores, shares, strict=True)}
    return NewKey(guid, key_check(secret, guid, generation), named, generation)


def key_check(secret: bytes | memoryview, guid: Guid, generation: int) -> bytes:
    """Give 16 bytes by which the hospital knows the right key again; of a random key they tell nothing else."""
    message = _KEY_CHECK_LABEL + guid.octets + generation.to_bytes(4)
    return hmac.digest(bytes(secret), message, "sha256")[:KEY_CHECK_SIZE]


def verifier(guid: Guid, generation: int, check: bytes) -> Callable[[FileKey], None]:
    """Give what raises ``WrongKeyError`` for a key, made of collected shares, that is not the one registered."""

    def verify(key: FileKey) -> None:
        if not hmac.compare_digest(key_check(key.octets, guid, generation), check):
            message = f"the shares collected for {guid} do not make the key that was registered"
            raise WrongKeyError(message)

    return verify


class Seal:
    """Seals what waits in the outbox, so that a copy of the store alone holds no share."""

    def __init__(self, path: pathlib.Path) -> None:
        """Take the key of ``path``, or make one at the first start; raises ``StoreError``."""
        self._cipher = AESGCM(own_secret(path))

    def seal(self, destination: str, deposit: Deposit) -> bytes:
        """Seal a deposit for one keystore."""
        nonce = secrets.token_bytes(_NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(deposit), destination.encode())

    def open(self, destination: str, sealed: bytes) -> Deposit:
        """Open what ``seal`` made; raises ``StoreError``."""
        try:
            octets = self._cipher.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], destination.encode())
            return msgspec.msgpack.decode(octets, type=Deposit)
        except (InvalidTag, ValueError) as error:
            message = f"an item for {destination} does not open: outbox.key is not the one it was sealed under"
            raise StoreError(message, what_to_do="restore outbox.key from the backup of this store") from error


def key_entries(keys: Iterable[NewKey], keystore: str, aliases: Mapping[Guid, list[list[bytes]]]) -> list[KeyEntry]:
    """Give the entries that one keystore is to keep."""
    return [KeyEntry(key.shares[keystore], aliases[key.guid]) for key in keys]


def random_guid() -> Guid:
    """Draw a GUID."""
    return Guid.from_random(secrets.token_bytes(GUID_SIZE))
