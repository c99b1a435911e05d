"""Unsealing: any whole chunks of a sealed object to plaintext, or an error and not a byte."""

from __future__ import annotations

from typing import Self

from cryptography.exceptions import InvalidTag

from mdmfs.model.errors import IntegrityError
from mdmfs.sealing.header import ChunkCipher, FileKey, Header, ObjectContext, verify
from mdmfs.sealing.layout import (
    HEADER_SIZE,
    SEALED_CHUNK_SIZE,
    TAG_SIZE,
    Buffer,
    SealedRange,
    WritableBuffer,
    chunk_count,
    last_chunk_range,
    plain_length_of,
    whole_range,
)


class Unsealer:
    """Unseals ranges of one sealed object, from as many threads as one likes: it has no state that changes."""

    __slots__ = ("_cipher", "context", "salt")

    def __init__(self, cipher: ChunkCipher, context: ObjectContext, salt: bytes) -> None:
        self._cipher = cipher
        self.context = context
        self.salt = salt

    @classmethod
    def open(cls, header: Buffer, key: FileKey, context: ObjectContext) -> Self:
        """Check the header's commitment to key and context; the key may be closed afterwards.

        Raises ``WrongKeyError`` when it does not match, ``IntegrityError`` when these are not 56 bytes. The size is
        proven hereby; that the ciphertext reaches its end, by ``check_end`` or by unsealing the last chunk.
        """
        parsed = Header.parse(header)
        return cls(verify(parsed, key, context), context, parsed.salt)

    def unseal(self, sealed: Buffer, first_chunk: int, out: WritableBuffer | None = None) -> memoryview:
        """Unseal whole chunks, from number ``first_chunk`` on, and give a view of exactly their plaintext.

        The view is of ``out``, which must be long enough (``ValueError``) and not overlap ``sealed``, or of a new
        bytearray. Only the object's last chunk may and must be short. Raises ``IntegrityError`` when anything is not as
        it was sealed; then all the space for the plaintext holds zeroes. Fewer chunks than were asked for are no error
        here: ``unseal_range`` knows how many there should be.
        """
        source = memoryview(sealed).cast("B")
        plain_length = self._plain_length(len(source), first_chunk)
        target = memoryview(bytearray(plain_length) if out is None else out).cast("B")
        if len(target) < plain_length:
            message = f"{len(target)} bytes are too few for {plain_length} bytes of plaintext"
            raise ValueError(message)
        target = target[:plain_length]
        try:
            self._cipher.decrypt(first_chunk, source, target)
        except InvalidTag as error:
            target[:] = bytes(plain_length)
            message = f"a chunk of {self.context.guid} is not what was sealed; fetch it anew"
            raise IntegrityError(message) from error
        return target

    def unseal_range(self, sealed: Buffer, wanted: SealedRange, out: WritableBuffer | None = None) -> memoryview:
        """Unseal the chunks that ``layout`` named for a range of this object, and give a view of exactly that range.

        Raises and treats ``out`` as ``unseal`` does; also raises ``IntegrityError`` when ``sealed`` is not as long as
        it should be, so that a short answer is never taken for the end of the file.
        """
        length = memoryview(sealed).nbytes
        if length != wanted.length:
            message = f"{length} sealed bytes of {self.context.guid} came where {wanted.length} lie; fetch them anew"
            raise IntegrityError(message)
        if not wanted.chunks:
            return memoryview(b"")
        plain = self.unseal(sealed, wanted.first_chunk, out)
        return plain[wanted.skip : wanted.skip + wanted.plain_length]

    def check_end(self, last_sealed_chunk: Buffer) -> None:
        """Prove that the object ends where its size says, by its last chunk; raises ``IntegrityError``."""
        self.unseal_range(last_sealed_chunk, last_chunk_range(self.context.size))

    def _plain_length(self, length: int, first_chunk: int) -> int:
        chunks = -(-length // SEALED_CHUNK_SIZE)
        if first_chunk < 0 or chunks == 0 or first_chunk + chunks > chunk_count(self.context.size):
            message = (
                f"{length} sealed bytes from chunk {first_chunk} on are no chunks of {self.context.guid}, "
                f"which has {chunk_count(self.context.size)}; fetch them anew"
            )
            raise IntegrityError(message)
        plain_length = plain_length_of(self.context.size, first_chunk, chunks)
        if length != plain_length + chunks * TAG_SIZE:
            message = f"chunk {first_chunk + chunks - 1} of {self.context.guid} is cut off or too long; fetch it anew"
            raise IntegrityError(message)
        return plain_length


def unseal(sealed: Buffer, key: FileKey, context: ObjectContext) -> bytes:
    """Unseal a whole object at once, for objects that fit into memory; raises as ``Unsealer`` does."""
    octets = memoryview(sealed).cast("B")
    unsealer = Unsealer.open(octets[:HEADER_SIZE], key, context)
    return bytes(unsealer.unseal_range(octets[HEADER_SIZE:], whole_range(context.size)))
