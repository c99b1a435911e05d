"""Attacks on sealed objects: whatever is done to one, an error comes out and never a byte."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from mdmfs.model.errors import IntegrityError, WrongKeyError
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import (
    CHUNK_SIZE,
    HEADER_SIZE,
    SALT_SIZE,
    SEALED_CHUNK_SIZE,
    TAG_SIZE,
    chunk_count,
    last_chunk_range,
    sealed_size,
    whole_range,
)
from mdmfs.sealing.seal import seal
from mdmfs.sealing.unseal import Unsealer, unseal
from tests.twins.octets import octets

KEY = FileKey(octets(32, "key"))
SIZE = 4 * CHUNK_SIZE + 100
CONTEXT = ObjectContext(Role.BODY, Guid(octets(16, "guid")), 1, SIZE)
SEALED = seal(octets(SIZE, "body"), KEY, CONTEXT, octets(SALT_SIZE, "salt"))
HEADER, LAST = SEALED[:HEADER_SIZE], chunk_count(SIZE) - 1
CHUNKS = [SEALED[at : at + SEALED_CHUNK_SIZE] for at in range(HEADER_SIZE, len(SEALED), SEALED_CHUNK_SIZE)]

SMALL_CONTEXT = dataclasses.replace(CONTEXT, size=50)
SMALL = seal(octets(50, "small"), KEY, SMALL_CONTEXT, octets(SALT_SIZE, "salt"))


def refuse(sealed: bytes, context: ObjectContext = CONTEXT, key: FileKey = KEY) -> None:
    """Assert that the object opens in no way, and that no byte reaches the reader's buffer."""
    with pytest.raises(IntegrityError):
        unseal(sealed, key, context)
    buffer = bytearray(b"\xaa" * context.size)
    try:
        unsealer = Unsealer.open(sealed[:HEADER_SIZE], key, context)
        with pytest.raises(IntegrityError):
            unsealer.unseal_range(sealed[HEADER_SIZE:], whole_range(context.size), buffer)
    except IntegrityError:
        pass
    assert set(buffer) <= {0, 0xAA}


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_of_a_small_object_is_noticed(bit: int) -> None:
    """Salt, commitment, ciphertext, tag: there is no byte that does not count."""
    for at in range(len(SMALL)):
        refuse(SMALL[:at] + bytes([SMALL[at] ^ 1 << bit]) + SMALL[at + 1 :], SMALL_CONTEXT)


@pytest.mark.parametrize("chunk", range(LAST + 1))
def test_a_flipped_byte_in_any_chunk_leaves_nothing_of_the_others(chunk: int) -> None:
    """Chunks before the bad one were right and are not given all the same; chunks read by themselves still are."""
    for at in (0, len(CHUNKS[chunk]) // 2, len(CHUNKS[chunk]) - 1):
        bad = bytearray(CHUNKS[chunk])
        bad[at] ^= 0x80
        chunks = [*CHUNKS[:chunk], bytes(bad), *CHUNKS[chunk + 1 :]]
        refuse(HEADER + b"".join(chunks))
    unsealer = Unsealer.open(HEADER, KEY, CONTEXT)
    for good in range(LAST + 1):
        assert len(unsealer.unseal(CHUNKS[good], good)) == len(CHUNKS[good]) - TAG_SIZE


def test_a_buffer_holds_zeroes_after_a_failure() -> None:
    """What the library wrote before it knew is gone, and what was right before it; the rest is untouched."""
    bad = bytearray(b"".join(CHUNKS[:3]))
    bad[-1] ^= 1
    buffer = bytearray(b"\xaa" * (4 * CHUNK_SIZE))
    with pytest.raises(IntegrityError, match="not what was sealed"):
        Unsealer.open(HEADER, KEY, CONTEXT).unseal(bad, 0, buffer)
    assert buffer == bytes(3 * CHUNK_SIZE) + b"\xaa" * CHUNK_SIZE


def test_no_other_order_of_the_chunks_opens() -> None:
    """All permutations but one."""
    orders = itertools.permutations(range(LAST + 1))
    for order in itertools.islice(orders, 1, None):
        refuse(HEADER + b"".join(CHUNKS[number] for number in order))


@pytest.mark.parametrize("chunk", range(LAST + 1))
def test_a_dropped_or_doubled_chunk_is_noticed(chunk: int) -> None:
    """The first, the last, and those between."""
    refuse(HEADER + b"".join([*CHUNKS[:chunk], *CHUNKS[chunk + 1 :]]))
    refuse(HEADER + b"".join([*CHUNKS[: chunk + 1], *CHUNKS[chunk:]]))


@pytest.mark.parametrize(("claimed", "actual"), list(itertools.permutations(range(LAST + 1), 2)))
def test_a_chunk_served_under_another_number_is_noticed(claimed: int, actual: int) -> None:
    """A cache that mixes up its chunks serves none."""
    with pytest.raises(IntegrityError):
        Unsealer.open(HEADER, KEY, CONTEXT).unseal(CHUNKS[actual], claimed)


@pytest.mark.parametrize("lost", [1, TAG_SIZE, 100, 100 + TAG_SIZE, SEALED_CHUNK_SIZE, SIZE, len(SEALED) - HEADER_SIZE])
def test_a_truncated_object_is_noticed(lost: int) -> None:
    """At a chunk's edge, within a chunk, within a tag, and where nothing but the header is left."""
    refuse(SEALED[:-lost])


@pytest.mark.parametrize("length", range(HEADER_SIZE + 1))
def test_a_truncated_header_is_noticed(length: int) -> None:
    """Down to no byte at all."""
    refuse(SEALED[:length])


@pytest.mark.parametrize("more", [1, TAG_SIZE, SEALED_CHUNK_SIZE])
def test_added_bytes_are_noticed(more: int) -> None:
    """An object does not grow."""
    refuse(SEALED + bytes(more))


@pytest.mark.parametrize("size", [0, CHUNK_SIZE, 2 * CHUNK_SIZE])
def test_an_object_at_a_chunk_s_edge_needs_its_empty_chunk(size: int) -> None:
    """Without the last tag it ends with a full chunk, and that is a cut."""
    context = dataclasses.replace(CONTEXT, size=size)
    sealed = seal(octets(size, "body"), KEY, context, octets(SALT_SIZE, "salt"))
    refuse(sealed[:-TAG_SIZE], context)
    refuse(sealed[:-TAG_SIZE] + bytes(TAG_SIZE), context)


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(CONTEXT, role=Role.PREFIX),
        dataclasses.replace(CONTEXT, guid=Guid(octets(16, "other"))),
        dataclasses.replace(CONTEXT, generation=0),
        dataclasses.replace(CONTEXT, generation=2),
        dataclasses.replace(CONTEXT, size=SIZE - 1),
        dataclasses.replace(CONTEXT, size=SIZE + 1),
        dataclasses.replace(CONTEXT, size=SIZE - CHUNK_SIZE),
    ],
)
def test_an_object_opens_in_its_own_context_only(other: ObjectContext) -> None:
    """Another file, generation, role or size, under the same key: the header alone gives it away."""
    refuse(SEALED, other)
    with pytest.raises(WrongKeyError):
        Unsealer.open(HEADER, KEY, other)


def test_another_key_is_known_by_the_header() -> None:
    """Every single wrong bit of a key is noticed at open."""
    for at in range(256):
        wrong = (int.from_bytes(octets(32, "key"), "big") ^ 1 << at).to_bytes(32, "big")
        with pytest.raises(WrongKeyError):
            Unsealer.open(HEADER, FileKey(wrong), CONTEXT)


@pytest.mark.parametrize(
    "other",
    [
        CONTEXT,
        dataclasses.replace(CONTEXT, role=Role.PREFIX),
        dataclasses.replace(CONTEXT, guid=Guid(octets(16, "other"))),
        dataclasses.replace(CONTEXT, generation=0),
    ],
)
@pytest.mark.parametrize("chunk", range(LAST + 1))
def test_chunks_of_another_sealing_cannot_be_spliced_in(other: ObjectContext, chunk: int) -> None:
    """Not of another file, generation or role under the same key, and not even of the same file sealed again."""
    again = seal(octets(SIZE, "body"), KEY, other, octets(SALT_SIZE, "another salt"))
    at = HEADER_SIZE + chunk * SEALED_CHUNK_SIZE
    refuse(SEALED[:at] + again[at : at + SEALED_CHUNK_SIZE] + SEALED[at + SEALED_CHUNK_SIZE :])
    refuse(again[:HEADER_SIZE] + SEALED[HEADER_SIZE:], other)
    refuse(again[:SALT_SIZE] + SEALED[SALT_SIZE:])


def test_the_end_is_proven_by_the_last_chunk_alone() -> None:
    """Any other bytes in its place, even a true chunk of the same object, prove nothing."""
    unsealer = Unsealer.open(HEADER, KEY, CONTEXT)
    last = last_chunk_range(SIZE)
    assert last.offset + last.length == sealed_size(SIZE) == len(SEALED)
    unsealer.check_end(CHUNKS[LAST])
    for forged in (b"", CHUNKS[0], CHUNKS[LAST][:-1], CHUNKS[LAST] + b"\0", bytes(len(CHUNKS[LAST]))):
        with pytest.raises(IntegrityError):
            unsealer.check_end(forged)


@pytest.mark.parametrize("length", [1, TAG_SIZE, CHUNK_SIZE, SEALED_CHUNK_SIZE - 1, SEALED_CHUNK_SIZE + 1])
def test_a_chunk_in_the_middle_is_never_short(length: int) -> None:
    """Only the last chunk may end early, so a short answer is not taken for the end."""
    with pytest.raises(IntegrityError, match="cut off or too long"):
        Unsealer.open(HEADER, KEY, CONTEXT).unseal(SEALED[HEADER_SIZE : HEADER_SIZE + length], 0)
