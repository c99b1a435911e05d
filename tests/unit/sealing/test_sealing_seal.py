"""The sealer: pieces in, chunks out, and no piece that does not fit."""

from __future__ import annotations

import itertools

import pytest

from mdmfs.model.errors import IntegrityError
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import CHUNK_SIZE, HEADER_SIZE, SALT_SIZE, TAG_SIZE, sealed_size
from mdmfs.sealing.seal import Sealer, seal
from tests.twins.octets import octets

GUID = Guid(octets(16, "guid"))
KEY = FileKey(octets(32, "key"))
SALT = octets(SALT_SIZE, "salt")


def sealer_of(size: int) -> Sealer:
    """Make a sealer for a body of this size."""
    return Sealer(KEY, ObjectContext(Role.BODY, GUID, 0, size), SALT)


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 4 * CHUNK_SIZE, 4 * CHUNK_SIZE + 9])
@pytest.mark.parametrize("chunks_in_a_piece", [1, 2, 3])
def test_how_the_plaintext_was_cut_does_not_show(size: int, chunks_in_a_piece: int) -> None:
    """Pieces of any number of chunks give the bytes that one piece gives, and the end is known at the last of them."""
    plaintext, step = octets(size, "body"), chunks_in_a_piece * CHUNK_SIZE
    sealer = sealer_of(size)
    sealed = bytearray(sealer.header)
    for begin in range(0, max(1, size), step):
        assert not sealer.is_complete
        sealed += sealer.seal(plaintext[begin : begin + step])
    assert sealer.is_complete
    assert sealed == seal(plaintext, KEY, ObjectContext(Role.BODY, GUID, 0, size), SALT)
    assert len(sealed) == sealed_size(size)
    assert sealer.salt == sealed[:SALT_SIZE] == SALT


def test_the_empty_last_chunk_comes_with_the_last_full_one() -> None:
    """Nobody has to know that a size at a chunk's edge needs one more call."""
    sealer = sealer_of(CHUNK_SIZE)
    assert len(sealer.seal(octets(CHUNK_SIZE))) == CHUNK_SIZE + 2 * TAG_SIZE
    assert sealer.is_complete


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, 2 * CHUNK_SIZE + 9])
def test_the_first_piece_may_come_behind_the_header(size: int) -> None:
    """In one buffer, and once only."""
    plaintext, sealer = octets(size, "body"), sealer_of(size)
    begun = sealer.begin(plaintext[: 2 * CHUNK_SIZE])
    with pytest.raises(IntegrityError, match="comes first"):
        sealer.begin(plaintext[2 * CHUNK_SIZE :])
    rest = b"" if sealer.is_complete else sealer.seal(plaintext[2 * CHUNK_SIZE :])
    assert begun + rest == seal(plaintext, KEY, ObjectContext(Role.BODY, GUID, 0, size), SALT)


def test_the_key_may_be_closed_once_the_sealer_is_made() -> None:
    """The file key is needed for a moment, not for as long as the PACS takes to send."""
    context = ObjectContext(Role.BODY, GUID, 0, 5)
    with FileKey(octets(32, "key")) as key:
        sealer = Sealer(key, context, SALT)
    assert sealer.header + sealer.seal(b"image") == seal(b"image", KEY, context, SALT)


@pytest.mark.parametrize("length", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE + 1, 2 * CHUNK_SIZE + 8, 2 * CHUNK_SIZE + 10])
def test_a_piece_that_does_not_fit_is_refused_and_seals_nothing(length: int) -> None:
    """Too much, too little, not at an edge: the sealer stays where it was and goes on with the right piece."""
    size = 2 * CHUNK_SIZE + 9
    sealer = sealer_of(size)
    with pytest.raises(IntegrityError, match=str(GUID)):
        sealer.seal(octets(length))
    plaintext = octets(size, "body")
    assert sealer.header + sealer.seal(plaintext) == seal(plaintext, KEY, ObjectContext(Role.BODY, GUID, 0, size), SALT)


@pytest.mark.parametrize("more", [0, 1, CHUNK_SIZE])
@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE])
def test_nothing_comes_after_the_end(size: int, more: int) -> None:
    """A nonce is never used again: a second last chunk cannot be had, not even an empty one."""
    sealer = sealer_of(size)
    sealer.seal(octets(size))
    with pytest.raises(IntegrityError, match="more plaintext"):
        sealer.seal(octets(more))


def test_half_a_plaintext_does_not_seal_at_once() -> None:
    """The one-shot form gives a whole object or none."""
    with pytest.raises(IntegrityError, match="less plaintext"):
        seal(octets(CHUNK_SIZE), KEY, ObjectContext(Role.BODY, GUID, 0, 2 * CHUNK_SIZE), SALT)


def test_a_buffer_can_be_used_again_and_again() -> None:
    """``seal_into`` gives a view of exactly the chunks, leaves the rest alone, and the bytes are those of ``seal``."""
    size = 3 * CHUNK_SIZE + 1
    plaintext = octets(size, "body")
    buffer = bytearray(b"\xaa" * (2 * CHUNK_SIZE + 100))
    ours, theirs = sealer_of(size), sealer_of(size)
    for begin in range(0, size, 2 * CHUNK_SIZE):
        piece = memoryview(plaintext)[begin : begin + 2 * CHUNK_SIZE]
        view = ours.seal_into(piece, buffer)
        assert view.obj is buffer
        assert view == theirs.seal(piece)
        assert buffer[-68:] == b"\xaa" * 68
    assert ours.is_complete


def test_a_buffer_that_is_too_short_is_refused_before_anything_is_sealed() -> None:
    """No nonce is spent on chunks that have no room."""
    sealer = sealer_of(5)
    with pytest.raises(ValueError, match="too few"):
        sealer.seal_into(b"image", bytearray(5 + TAG_SIZE - 1))
    assert sealer.header + sealer.seal(b"image") == seal(b"image", KEY, ObjectContext(Role.BODY, GUID, 0, 5), SALT)


def test_what_is_sealed_can_be_extended_by_its_owner() -> None:
    """The bytearray that ``seal`` gives is free of views."""
    sealed = sealer_of(5).seal(b"image")
    sealed += b"."
    assert len(sealed) == 5 + TAG_SIZE + 1


def test_every_salt_key_role_generation_size_and_guid_gives_another_header() -> None:
    """Headers repeat for nothing, so neither do keys and nonces."""
    headers = [
        Sealer(
            FileKey(octets(32, key)), ObjectContext(role, Guid(octets(16, guid)), generation, size), octets(24, salt)
        ).header
        for key, role, guid, generation, size, salt in itertools.product("ab", Role, "ab", (0, 1), (0, 1), "ab")
    ]
    assert len({header[SALT_SIZE:HEADER_SIZE] for header in headers}) == len(headers) == 64
