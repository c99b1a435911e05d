"""Where things lie in a sealed object: pure arithmetic between plaintext, chunks and ciphertext.

C2SP chunked-encryption: a header of 56 bytes, then chunks of 16 KiB, each with its tag. The last chunk is always
shorter than 16 KiB, and empty when the size is a multiple of 16 KiB (an empty file has one empty chunk): an object that
ends with a full chunk is cut off. Sizes, offsets and lengths are in bytes; ``size`` is that of the plaintext.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What can be read from, without a copy."""
WritableBuffer: TypeAlias = bytearray | memoryview
"""What can be written into."""

CHUNK_SIZE: Final = 16 * 1024
TAG_SIZE: Final = 16
SEALED_CHUNK_SIZE: Final = CHUNK_SIZE + TAG_SIZE
SALT_SIZE: Final = 24
COMMITMENT_SIZE: Final = 32
HEADER_SIZE: Final = SALT_SIZE + COMMITMENT_SIZE
SEGMENT_SIZE: Final = 4 * 2**20
"""Plaintext bytes that the hospital checks and seals in one step."""
CHUNKS_PER_SEGMENT: Final = SEGMENT_SIZE // CHUNK_SIZE
MAX_CHUNKS: Final = 2**38
MAX_SIZE: Final = MAX_CHUNKS * CHUNK_SIZE - 1
"""Of the plaintext: the last chunk is never full."""

PAGE_SIZE: Final = 4096
PREFIX_READ_AHEAD: Final = 8 * 1024
"""What programs read beyond a DICOM header when they want no more than the header."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlainRange:
    """Bytes ``offset`` to ``offset + length`` of a plaintext."""

    offset: int
    length: int


@dataclasses.dataclass(frozen=True, slots=True)
class SealedRange:
    """The whole chunks that hold a plaintext range, and where they lie in the sealed object."""

    first_chunk: int
    chunks: int
    """How many; 0 for an empty range."""
    offset: int
    """Of the first chunk, from the begin of the sealed object."""
    length: int
    """Of all chunks with their tags."""
    skip: int
    """Plaintext bytes of the first chunk that come before the range."""
    plain_length: int
    """Of the range, cut at the end of the file."""


def chunk_count(size: int) -> int:
    """Count the chunks that a plaintext of ``size`` bytes gives: at least one, and the last is never full."""
    return size // CHUNK_SIZE + 1


def sealed_size(size: int) -> int:
    """Tell how long the sealed object of a plaintext of ``size`` bytes is, header and all."""
    return HEADER_SIZE + size + chunk_count(size) * TAG_SIZE


def plain_size(sealed_length: int) -> int:
    """Tell the size of the plaintext whose sealed object has this length; ``ValueError`` for a length that none has."""
    chunks, rest = divmod(sealed_length - HEADER_SIZE, SEALED_CHUNK_SIZE)
    if chunks < 0 or rest < TAG_SIZE:
        message = f"no sealed object is {sealed_length} bytes long: it is cut off, or none at all"
        raise ValueError(message)
    return chunks * CHUNK_SIZE + rest - TAG_SIZE


def sealed_offset(chunk: int) -> int:
    """Tell where a chunk begins in the sealed object."""
    return HEADER_SIZE + chunk * SEALED_CHUNK_SIZE


def plain_length_of(size: int, first_chunk: int, chunks: int) -> int:
    """Count the plaintext bytes of these chunks; the object must have them all."""
    return min(size, (first_chunk + chunks) * CHUNK_SIZE) - first_chunk * CHUNK_SIZE


def whole_range(size: int) -> SealedRange:
    """Give all chunks of the object, the last one with them even if it is empty."""
    return _chunks(size, 0, chunk_count(size))


def last_chunk_range(size: int) -> SealedRange:
    """Find the last chunk, which proves where the object ends."""
    return _chunks(size, chunk_count(size) - 1, 1)


def sealed_range(size: int, offset: int, length: int) -> SealedRange:
    """Find the chunks that hold plaintext bytes ``offset`` to ``offset + length``, cut at the end like ``read``.

    A range that lies at or behind the end is empty and names no chunk; ``ValueError`` for negative numbers.
    """
    if offset < 0 or length < 0:
        message = "a range has no negative offset or length"
        raise ValueError(message)
    end = min(offset + length, size)
    if end <= offset:
        chunk = min(offset, size) // CHUNK_SIZE
        return SealedRange(chunk, 0, sealed_offset(chunk), 0, 0, 0)
    first = offset // CHUNK_SIZE
    whole = _chunks(size, first, (end - 1) // CHUNK_SIZE - first + 1)
    return dataclasses.replace(whole, skip=offset - first * CHUNK_SIZE, plain_length=end - offset)


def segment_ranges(size: int) -> Iterator[SealedRange]:
    """Give all chunks of the object, a segment at a time; the last segment holds the last chunk, even an empty one."""
    segments = max(1, -(-size // SEGMENT_SIZE))
    for index in range(segments):
        first = index * CHUNKS_PER_SEGMENT
        is_last = index == segments - 1
        yield _chunks(size, first, chunk_count(size) - first if is_last else CHUNKS_PER_SEGMENT)


def prefix_pieces(size: int, header_length: int) -> tuple[PlainRange, ...]:
    """Name the pieces of a file that its prefix object holds, in order: the header and what is read with it.

    They are bytes 0 to ``header_length`` plus 8 KiB rounded up to a chunk's edge, and the last 4 KiB page where it lies
    behind them.
    """
    front = min(size, -(-(header_length + PREFIX_READ_AHEAD) // CHUNK_SIZE) * CHUNK_SIZE)
    last_page = max(front, (size - 1) // PAGE_SIZE * PAGE_SIZE)
    if last_page >= size:
        return (PlainRange(0, front),)
    return PlainRange(0, front), PlainRange(last_page, size - last_page)


def _chunks(size: int, first: int, chunks: int) -> SealedRange:
    plain_length = plain_length_of(size, first, chunks)
    return SealedRange(first, chunks, sealed_offset(first), plain_length + chunks * TAG_SIZE, 0, plain_length)
