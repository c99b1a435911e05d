"""Ciphertext to plaintext, range by range, in buffers that each thread keeps."""

from __future__ import annotations

import threading

from mdmfs.sealing.layout import CHUNK_SIZE, HEADER_SIZE, SEALED_CHUNK_SIZE, SealedRange, sealed_range
from mdmfs.sealing.unseal import Unsealer
from mdmfs.worker.cache.ciphertext import Ciphertext

_buffers = threading.local()


def unseal_range(ciphertext: Ciphertext, unsealer: Unsealer, piece: SealedRange) -> bytes:
    """Unseal a range, in a worker thread."""
    plain = unseal_into_buffer(ciphertext, unsealer, piece)
    return bytes(plain[piece.skip : piece.skip + piece.plain_length])


def unseal_at_once(ciphertext: Ciphertext, unsealer: Unsealer, piece: SealedRange) -> memoryview | None:
    """Unseal from the loop what is in memory; None where it is not. What was read ahead ends with whole chunks."""
    sealed, plain = _thread_buffers(piece.chunks)
    pieces = ciphertext.read_at_once(piece.offset, sealed[: piece.length])
    if pieces is None:
        return None
    chunk, length = piece.first_chunk, 0
    for octets in pieces:
        length += len(unsealer.unseal(octets, chunk, plain[length:]))
        chunk += -(-len(octets) // SEALED_CHUNK_SIZE)
    return plain[:length]


def unseal_into_buffer(ciphertext: Ciphertext, unsealer: Unsealer, piece: SealedRange) -> memoryview:
    """Unseal into this thread's own buffer; what it holds is good until the thread's next call."""
    sealed, plain = _thread_buffers(piece.chunks)
    ciphertext.read_into(piece.offset, sealed[: piece.length])
    return unsealer.unseal(sealed[: piece.length], piece.first_chunk, plain)


def _thread_buffers(chunks: int) -> tuple[memoryview, memoryview]:
    """Give two buffers that this thread keeps: fresh ones would be cleared by the kernel page by page each time."""
    kept: tuple[memoryview, memoryview] | None = getattr(_buffers, "kept", None)
    if kept is None or len(kept[1]) < chunks * CHUNK_SIZE:
        kept = (memoryview(bytearray(chunks * SEALED_CHUNK_SIZE)), memoryview(bytearray(chunks * CHUNK_SIZE)))
        _buffers.kept = kept
    return kept


def sealed_end(size: int, begin: int, length: int) -> int:
    """Tell how much of an object has to be there for a range of its plaintext."""
    piece = sealed_range(size, begin, length)
    return piece.offset + piece.length


def plain_arrived(arrived: int) -> int:
    """Count the plaintext bytes of the whole chunks among the first ``arrived`` bytes of an object."""
    return max(0, arrived - HEADER_SIZE) // SEALED_CHUNK_SIZE * CHUNK_SIZE
