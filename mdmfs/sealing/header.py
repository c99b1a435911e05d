"""What opens a sealed object: the file key, the context it is bound to, and the header that proves both."""

from __future__ import annotations

import dataclasses
import enum
import hmac
import struct
from types import TracebackType
from typing import Final, NoReturn, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from mdmfs.model.errors import IntegrityError, MalformedMessageError, WrongKeyError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import (
    CHUNK_SIZE,
    COMMITMENT_SIZE,
    HEADER_SIZE,
    MAX_SIZE,
    SALT_SIZE,
    SEALED_CHUNK_SIZE,
    Buffer,
)

FILE_KEY_SIZE: Final = 32
CONTEXT_FORMAT: Final = 1
MAX_GENERATION: Final = 2**32 - 1

_CONTEXT: Final = struct.Struct(">BB16sIQ")
_INFO_PREFIX: Final = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"
_NONCE_SIZE: Final = 12


class Role(enum.Enum):
    """Which object of a file this is; each role has keys of its own."""

    BODY = 1
    """The whole file."""
    PREFIX = 2
    """The header and the last page (``layout.prefix_pieces``), sealed by themselves."""


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectContext:
    """What a sealed object is the sealing of; it is not stored in the object, both sides must know it."""

    role: Role
    guid: Guid
    generation: int
    """Of the file key, from 0."""
    size: int
    """Of the plaintext of this object, in bytes: for a prefix object of the prefix, not of the file."""

    def __post_init__(self) -> None:
        """Refuse numbers that the format has no room for, with ``MalformedMessageError``."""
        if not 0 <= self.generation <= MAX_GENERATION:
            message = f"the key generation of {self.guid} is not between 0 and {MAX_GENERATION}"
            raise MalformedMessageError(message)
        if not 0 <= self.size <= MAX_SIZE:
            message = f"the size of {self.guid} is not between 0 and {MAX_SIZE} bytes"
            raise MalformedMessageError(message)

    def encode(self) -> bytes:
        """Write the 30 bytes that go into the key derivation (docs/sealed-object.md, "Context")."""
        return _CONTEXT.pack(CONTEXT_FORMAT, self.role.value, self.guid.octets, self.generation, self.size)


class FileKey:
    """The 32 bytes that open one file. Whoever makes it owns it and closes it.

    ``close`` overwrites the bytes held here. That is the best that can be done in Python: what they were made from, and
    copies inside the cryptographic library, are freed but not under our control. A key has no repr, is not pickled or
    copied, and two keys are never equal.
    """

    __slots__ = ("_is_open", "_octets")

    def __init__(self, octets: Buffer) -> None:
        """Copy 32 bytes; ``MalformedMessageError`` for any other number."""
        self._octets = bytearray(octets)
        if len(self._octets) != FILE_KEY_SIZE:
            message = f"a file key has {FILE_KEY_SIZE} bytes, not {len(self._octets)}"
            raise MalformedMessageError(message)
        self._is_open = True

    @classmethod
    def from_random(cls, octets: Buffer) -> Self:
        """Make a key of 32 bytes from the system's random generator."""
        return cls(octets)

    @property
    def octets(self) -> memoryview:
        """A read-only view of the bytes, for splitting and deriving only; zeroes once the key is closed.

        ``ValueError`` when it is closed already, like a closed file.
        """
        if not self._is_open:
            message = "the file key is closed"
            raise ValueError(message)
        return memoryview(self._octets).toreadonly()

    def close(self) -> None:
        """Overwrite the bytes; a second time changes nothing."""
        self._is_open = False
        self._octets[:] = bytes(FILE_KEY_SIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "FileKey(...)"

    def __reduce__(self) -> NoReturn:
        message = "a file key is not copied or pickled"
        raise TypeError(message)


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """The first 56 bytes of a sealed object: the salt of this sealing, and the commitment to key and context."""

    salt: bytes
    commitment: bytes

    @classmethod
    def parse(cls, octets: Buffer) -> Self:
        """Read exactly 56 bytes; raises ``IntegrityError``."""
        header = bytes(octets)
        if len(header) != HEADER_SIZE:
            message = f"the header of a sealed object has {HEADER_SIZE} bytes, not {len(header)}"
            raise IntegrityError(message)
        return cls(header[:SALT_SIZE], header[SALT_SIZE:])

    def encode(self) -> bytes:
        """Write the 56 bytes."""
        return self.salt + self.commitment


class ChunkCipher:
    """The AEAD of one sealing and the nonces of its chunks; immutable, so threads may share it. No repr shows it."""

    __slots__ = ("_aead", "_base_nonce")

    def __init__(self, aead: AESGCM, base_nonce: int) -> None:
        self._aead = aead
        self._base_nonce = base_nonce

    def encrypt(self, first_chunk: int, plain: memoryview, sealed: memoryview) -> None:
        """Encrypt consecutive chunks; ``sealed`` is exactly as long as they are with their tags."""
        encrypt_into, base_nonce = self._aead.encrypt_into, self._base_nonce
        begin = 0
        for number, at in enumerate(range(0, len(sealed), SEALED_CHUNK_SIZE), first_chunk):
            end = begin + CHUNK_SIZE
            nonce = (base_nonce ^ number).to_bytes(_NONCE_SIZE, "big")
            encrypt_into(nonce, plain[begin:end], None, sealed[at : at + SEALED_CHUNK_SIZE])
            begin = end

    def decrypt(self, first_chunk: int, sealed: memoryview, plain: memoryview) -> None:
        """Decrypt consecutive chunks; ``plain`` is exactly as long as they are without their tags.

        Raises cryptography's ``InvalidTag`` at the first chunk that is not what was encrypted under its number; what
        ``plain`` holds then must not be used, since the library writes before it knows.
        """
        decrypt_into, base_nonce = self._aead.decrypt_into, self._base_nonce
        begin = 0
        for number, at in enumerate(range(0, len(sealed), SEALED_CHUNK_SIZE), first_chunk):
            end = begin + CHUNK_SIZE
            nonce = (base_nonce ^ number).to_bytes(_NONCE_SIZE, "big")
            decrypt_into(nonce, sealed[at : at + SEALED_CHUNK_SIZE], None, plain[begin:end])
            begin = end


def derive(key: FileKey, context: ObjectContext, salt: bytes) -> tuple[ChunkCipher, Header]:
    """Derive what seals an object under this salt, and its header (C2SP chunked-encryption, "Key derivation").

    ``ValueError`` for a salt that has not 24 bytes or a key that is closed.
    """
    if len(salt) != SALT_SIZE:
        message = f"a salt has {SALT_SIZE} bytes, not {len(salt)}"
        raise ValueError(message)
    derived = bytearray(FILE_KEY_SIZE + _NONCE_SIZE + COMMITMENT_SIZE)
    expand = HKDFExpand(SHA512(), len(derived), _INFO_PREFIX + salt + context.encode())
    expand.derive_into(key.octets, derived)
    nonce_end = FILE_KEY_SIZE + _NONCE_SIZE
    # bytes, since nobody promises that AESGCM copies its key at once, and the bytearray is overwritten below
    aead = AESGCM(bytes(derived[:FILE_KEY_SIZE]))
    cipher = ChunkCipher(aead, int.from_bytes(derived[FILE_KEY_SIZE:nonce_end], "big"))
    header = Header(salt, bytes(derived[nonce_end:]))
    derived[:] = bytes(len(derived))
    return cipher, header


def verify(header: Header, key: FileKey, context: ObjectContext) -> ChunkCipher:
    """Derive what unseals an object, having checked that key and context are the ones it was sealed with.

    Raises ``WrongKeyError``; whether key, GUID, generation, role or size is the wrong one cannot be told.
    """
    cipher, expected = derive(key, context, header.salt)
    if not hmac.compare_digest(expected.commitment, header.commitment):
        message = (
            f"the sealed object of {context.guid} was not sealed with this key as {context.role.name.lower()} of "
            f"{context.size} bytes, generation {context.generation}; try other shares, or fetch it anew"
        )
        raise WrongKeyError(message)
    return cipher
