"""The arithmetic between plaintext, chunks and ciphertext, against a count of every byte."""

from __future__ import annotations

import pytest

from mdmfs.sealing.layout import (
    CHUNK_SIZE,
    HEADER_SIZE,
    SEALED_CHUNK_SIZE,
    SEGMENT_SIZE,
    TAG_SIZE,
    PlainRange,
    SealedRange,
    chunk_count,
    last_chunk_range,
    plain_size,
    prefix_pieces,
    sealed_offset,
    sealed_range,
    sealed_size,
    segment_ranges,
    whole_range,
)

SIZES = [
    0,
    1,
    CHUNK_SIZE - 1,
    CHUNK_SIZE,
    CHUNK_SIZE + 1,
    3 * CHUNK_SIZE,
    SEGMENT_SIZE - 1,
    SEGMENT_SIZE,
    SEGMENT_SIZE + 1,
]


@pytest.mark.parametrize(
    ("size", "chunks", "sealed"),
    [
        (0, 1, 56 + 16),
        (1, 1, 56 + 1 + 16),
        (CHUNK_SIZE - 1, 1, 56 + 16399),
        (CHUNK_SIZE, 2, 56 + 16400 + 16),
        (CHUNK_SIZE + 1, 2, 56 + 16400 + 17),
        (20 * 1024, 2, 56 + 16400 + 4096 + 16),
    ],
)
def test_the_last_chunk_is_never_full(size: int, chunks: int, sealed: int) -> None:
    """The number of chunks and the length are those of the C2SP text, "Message chunking"."""
    assert chunk_count(size) == chunks
    assert sealed_size(size) == sealed


@pytest.mark.parametrize("size", SIZES)
def test_the_last_chunk_lies_at_the_end(size: int) -> None:
    """It ends where the object ends and is shorter than the others."""
    last = last_chunk_range(size)
    assert last.offset + last.length == sealed_size(size)
    assert TAG_SIZE <= last.length < SEALED_CHUNK_SIZE
    assert last.plain_length == size % CHUNK_SIZE


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE - 1, 3 * CHUNK_SIZE])
@pytest.mark.parametrize(
    "offset", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, 2 * CHUNK_SIZE + 5, 3 * CHUNK_SIZE, 9 * CHUNK_SIZE]
)
@pytest.mark.parametrize("length", [0, 1, 4096, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 9 * CHUNK_SIZE])
def test_a_range_names_exactly_the_chunks_that_hold_its_bytes(size: int, offset: int, length: int) -> None:
    """Whatever its shape, it is cut like a read, takes in its first and its last byte and no chunk more."""
    wanted = range(size)[offset : offset + length]
    found = sealed_range(size, offset, length)
    assert found.plain_length == len(wanted)
    if not wanted:
        assert (found.chunks, found.length, found.skip) == (0, 0, 0)
        return
    assert found.first_chunk == wanted[0] // CHUNK_SIZE
    assert found.first_chunk + found.chunks - 1 == wanted[-1] // CHUNK_SIZE
    assert found.skip == wanted[0] % CHUNK_SIZE
    assert found.offset == sealed_offset(found.first_chunk) == HEADER_SIZE + found.first_chunk * SEALED_CHUNK_SIZE
    assert found.offset + found.length <= sealed_size(size)
    short = size % CHUNK_SIZE + TAG_SIZE
    holds_last = wanted[-1] // CHUNK_SIZE == chunk_count(size) - 1
    assert found.length == found.chunks * SEALED_CHUNK_SIZE - (SEALED_CHUNK_SIZE - short if holds_last else 0)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1)])
def test_a_negative_range_is_refused(offset: int, length: int) -> None:
    """A mistake in a caller's arithmetic does not become a read from the end."""
    with pytest.raises(ValueError, match="no negative"):
        sealed_range(100, offset, length)


@pytest.mark.parametrize("size", [*SIZES, 2 * SEGMENT_SIZE, 2 * SEGMENT_SIZE + 1])
def test_the_segments_are_the_whole_object(size: int) -> None:
    """One after the other they cover every byte after the header, and the last has the last chunk."""
    at, chunk, plain = HEADER_SIZE, 0, 0
    for segment in segment_ranges(size):
        assert (segment.offset, segment.first_chunk, segment.skip) == (at, chunk, 0)
        assert segment.plain_length <= SEGMENT_SIZE
        at, chunk, plain = at + segment.length, chunk + segment.chunks, plain + segment.plain_length
    assert (at, chunk, plain) == (sealed_size(size), chunk_count(size), size)


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_is_all_but_the_header(size: int) -> None:
    """Every chunk and every byte, the empty last chunk with them."""
    assert whole_range(size) == SealedRange(0, chunk_count(size), HEADER_SIZE, sealed_size(size) - HEADER_SIZE, 0, size)


def test_a_segment_at_an_edge_brings_the_empty_chunk_along() -> None:
    """A file of exactly 4 MiB is one segment with 257 chunks, not two segments."""
    assert list(segment_ranges(SEGMENT_SIZE)) == [
        SealedRange(0, 257, HEADER_SIZE, 256 * SEALED_CHUNK_SIZE + TAG_SIZE, 0, SEGMENT_SIZE)
    ]


@pytest.mark.parametrize(
    ("size", "header_length", "pieces"),
    [
        (0, 0, [(0, 0)]),
        (100, 100, [(0, 100)]),
        (CHUNK_SIZE, 9000, [(0, CHUNK_SIZE)]),
        (CHUNK_SIZE + 1, 8192, [(0, CHUNK_SIZE), (CHUNK_SIZE, 1)]),
        (CHUNK_SIZE + 1, 8193, [(0, CHUNK_SIZE + 1)]),
        (540_000, 2000, [(0, CHUNK_SIZE), (131 * 4096, 540_000 - 131 * 4096)]),
        (132 * 4096, 2000, [(0, CHUNK_SIZE), (131 * 4096, 4096)]),
    ],
)
def test_a_prefix_holds_the_header_and_the_last_page(
    size: int, header_length: int, pieces: list[tuple[int, int]]
) -> None:
    """8 KiB more than the header, up to a chunk's edge, and the page that programs read first, nothing twice."""
    assert prefix_pieces(size, header_length) == tuple(PlainRange(*piece) for piece in pieces)


def test_the_length_tells_the_size_or_that_there_is_none() -> None:
    """Every length up to three chunks: exactly those that a size gives are a sealed object's."""
    size_of = {sealed_size(size): size for size in range(3 * CHUNK_SIZE)}
    for length in range(max(size_of) + 1):
        if length in size_of:
            assert plain_size(length) == size_of[length]
        else:
            with pytest.raises(ValueError, match="cut off"):
                plain_size(length)
