"""The unsealer: every range shape, shared buffers and threads."""

from __future__ import annotations

import concurrent.futures

import pytest

from mdmfs.model.errors import IntegrityError
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import (
    CHUNK_SIZE,
    HEADER_SIZE,
    SALT_SIZE,
    SEALED_CHUNK_SIZE,
    last_chunk_range,
    sealed_range,
    segment_ranges,
)
from mdmfs.sealing.seal import seal
from mdmfs.sealing.unseal import Unsealer, unseal
from tests.twins.octets import octets

GUID = Guid(octets(16, "guid"))
KEY = FileKey(octets(32, "key"))
SIZE = 3 * CHUNK_SIZE + 77
BODY = octets(SIZE, "body")
CONTEXT = ObjectContext(Role.BODY, GUID, 4, SIZE)
SEALED = seal(BODY, KEY, CONTEXT, octets(SALT_SIZE, "salt"))


def open_it() -> Unsealer:
    """Open the object that most tests here read."""
    return Unsealer.open(SEALED[:HEADER_SIZE], KEY, CONTEXT)


@pytest.mark.parametrize("offset", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, 2 * CHUNK_SIZE + 5, 3 * CHUNK_SIZE, SIZE - 1])
@pytest.mark.parametrize("length", [1, 4096, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, SIZE])
def test_any_range_reads_as_the_plaintext_does(offset: int, length: int) -> None:
    """Fetch the chunks that the layout names, unseal, cut: the bytes are those of the file."""
    wanted = sealed_range(SIZE, offset, length)
    sealed = SEALED[wanted.offset : wanted.offset + wanted.length]
    plain = open_it().unseal(sealed, wanted.first_chunk)
    assert plain[wanted.skip : wanted.skip + wanted.plain_length] == BODY[offset : offset + length]
    assert open_it().unseal_range(sealed, wanted) == BODY[offset : offset + length]


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (CHUNK_SIZE, 0), (SIZE, 10), (SIZE + CHUNK_SIZE, 10)])
def test_a_range_without_a_byte_needs_no_chunk(offset: int, length: int) -> None:
    """At the end of the file a read gives nothing, and only nothing may come for it."""
    wanted = sealed_range(SIZE, offset, length)
    assert len(open_it().unseal_range(b"", wanted)) == 0
    with pytest.raises(IntegrityError, match="where 0 lie"):
        open_it().unseal_range(SEALED[HEADER_SIZE:], wanted)


@pytest.mark.parametrize("came", [0, 1, SEALED_CHUNK_SIZE, 2 * SEALED_CHUNK_SIZE - 1, 3 * SEALED_CHUNK_SIZE])
def test_fewer_or_more_chunks_than_the_range_has_are_refused(came: int) -> None:
    """Above all a whole number of them: each is right, but the read would end early, and a cut image looks whole."""
    with pytest.raises(IntegrityError, match=f"{came} sealed bytes"):
        open_it().unseal_range(SEALED[HEADER_SIZE : HEADER_SIZE + came], sealed_range(SIZE, 5, CHUNK_SIZE))


def test_a_range_goes_into_the_buffer_given() -> None:
    """The view begins where the range begins, in the buffer that holds its whole chunks."""
    wanted, buffer = sealed_range(SIZE, CHUNK_SIZE + 5, 100), bytearray(2 * CHUNK_SIZE)
    plain = open_it().unseal_range(SEALED[wanted.offset : wanted.offset + wanted.length], wanted, buffer)
    assert plain.obj is buffer
    assert plain == BODY[CHUNK_SIZE + 5 : CHUNK_SIZE + 105] == buffer[5:105]


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 5 * CHUNK_SIZE])
def test_a_whole_object_comes_back(size: int) -> None:
    """At every edge size, at once and by segments, with its end proven."""
    body, context = octets(size, "body"), ObjectContext(Role.PREFIX, GUID, 0, size)
    sealed = seal(body, KEY, context, octets(SALT_SIZE, "salt"))
    assert unseal(sealed, KEY, context) == body
    unsealer = Unsealer.open(sealed[:HEADER_SIZE], KEY, context)
    last = last_chunk_range(size)
    unsealer.check_end(sealed[last.offset :])
    pieces = [unsealer.unseal(sealed[r.offset : r.offset + r.length], r.first_chunk) for r in segment_ranges(size)]
    assert b"".join(pieces) == body
    assert (unsealer.salt, unsealer.context) == (sealed[:SALT_SIZE], context)


def test_the_key_may_be_closed_once_the_object_is_open() -> None:
    """An open file does not keep the file key alive."""
    with FileKey(octets(32, "key")) as key:
        unsealer = Unsealer.open(SEALED[:HEADER_SIZE], key, CONTEXT)
    assert unsealer.unseal(SEALED[HEADER_SIZE:], 0) == BODY


def test_plaintext_goes_into_the_buffer_given() -> None:
    """The view is of that buffer, exactly as long as the plaintext, and what lies behind it is left alone."""
    buffer = bytearray(b"\xaa" * (SIZE + 10))
    plain = open_it().unseal(memoryview(SEALED)[HEADER_SIZE:], 0, buffer)
    assert plain.obj is buffer
    assert plain == BODY
    assert buffer[SIZE:] == b"\xaa" * 10


def test_a_buffer_that_is_too_short_is_refused() -> None:
    """And nothing is written into it."""
    buffer = bytearray(SIZE - 1)
    with pytest.raises(ValueError, match="too few"):
        open_it().unseal(SEALED[HEADER_SIZE:], 0, buffer)
    assert not any(buffer)


@pytest.mark.parametrize("first_chunk", [-1, 1, 4, 2**38, 2**96])
def test_chunks_that_the_object_does_not_have_are_refused(first_chunk: int) -> None:
    """A number out of range is an error, not an overflow and not an empty answer."""
    with pytest.raises(IntegrityError, match="no chunks of"):
        open_it().unseal(SEALED[HEADER_SIZE:], first_chunk)


@pytest.mark.parametrize("first_chunk", [0, 3, 4])
def test_no_bytes_are_no_chunk(first_chunk: int) -> None:
    """An empty answer from a cache or a peer is not the end of the file."""
    with pytest.raises(IntegrityError, match="no chunks of"):
        open_it().unseal(b"", first_chunk)


def test_threads_share_one_unsealer() -> None:
    """Many calls at once, each with its own chunks and buffer, never mix."""
    unsealer = open_it()

    def read(turn: int) -> bool:
        wanted = sealed_range(SIZE, turn * 997 % SIZE, 20_000)
        plain = unsealer.unseal(SEALED[wanted.offset : wanted.offset + wanted.length], wanted.first_chunk)
        begin = wanted.first_chunk * CHUNK_SIZE
        return plain == BODY[begin : begin + len(plain)]

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(800)))


def test_threads_see_only_their_own_failure() -> None:
    """A damaged chunk read by one thread disturbs no other thread's chunks."""
    unsealer = open_it()
    good = SEALED[HEADER_SIZE:]
    bad = good[:-1] + bytes([good[-1] ^ 1])

    def read(turn: int) -> bool:
        try:
            return unsealer.unseal(bad if turn % 3 == 0 else good, 0) == BODY and turn % 3 != 0
        except IntegrityError:
            return turn % 3 == 0

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(300)))
