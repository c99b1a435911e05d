"""Our range writer and reader against the streaming ones of ``cryptography.cobblestone``."""

from __future__ import annotations

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor

from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import CHUNK_SIZE, HEADER_SIZE, SALT_SIZE, sealed_range
from mdmfs.sealing.seal import Sealer, seal
from mdmfs.sealing.unseal import Unsealer, unseal
from tests.twins.octets import octets

GUID = Guid(octets(16, "guid"))
SECRET = octets(32, "key")
SIZES = [0, 1, 2, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, 7 * CHUNK_SIZE - 1, 300 * CHUNK_SIZE + 3]


def context_of(size: int) -> ObjectContext:
    """Give the context that both sides use."""
    return ObjectContext(Role.BODY, GUID, 9, size)


def sealed_by_the_library(body: bytes) -> bytes:
    """Let the library seal."""
    encryptor = Cobblestone256Encryptor(SECRET, context_of(len(body)).encode())
    return encryptor.update(body) + encryptor.finalize()


@pytest.mark.parametrize("size", SIZES)
def test_the_library_opens_what_we_seal(size: int) -> None:
    """Our bytes are Cobblestone-256, whatever the size."""
    body = octets(size, "body")
    sealed = seal(body, FileKey(SECRET), context_of(size), octets(SALT_SIZE, "salt"))
    decryptor = Cobblestone256Decryptor(SECRET, context_of(size).encode())
    assert decryptor.update(sealed) + decryptor.finalize() == body


@pytest.mark.parametrize("size", SIZES)
def test_we_open_what_the_library_seals_and_seal_it_alike(size: int) -> None:
    """Under the salt that the library drew, our header and chunks are its bytes."""
    body = octets(size, "body")
    theirs = sealed_by_the_library(body)
    assert unseal(theirs, FileKey(SECRET), context_of(size)) == body
    assert seal(body, FileKey(SECRET), context_of(size), theirs[:SALT_SIZE]) == theirs


def test_the_library_opens_what_we_seal_in_pieces() -> None:
    """Pieces of many shapes, one stream."""
    size = 9 * CHUNK_SIZE + 1
    body = octets(size, "body")
    sealer = Sealer(FileKey(SECRET), context_of(size), octets(SALT_SIZE, "salt"))
    decryptor = Cobblestone256Decryptor(SECRET, context_of(size).encode())
    plain, begin = decryptor.update(sealer.header), 0
    for chunks in (1, 3, 2, 4):
        plain += decryptor.update(bytes(sealer.seal(body[begin : begin + chunks * CHUNK_SIZE])))
        begin += chunks * CHUNK_SIZE
    assert plain + decryptor.finalize() == body


@pytest.mark.parametrize("size", [1, CHUNK_SIZE, 3 * CHUNK_SIZE + 5])
def test_every_range_of_the_library_s_object_reads_right(size: int) -> None:
    """All ranges between the bytes around each chunk's edges."""
    body = octets(size, "body")
    theirs = sealed_by_the_library(body)
    unsealer = Unsealer.open(theirs[:HEADER_SIZE], FileKey(SECRET), context_of(size))
    edges = sorted({e + d for e in range(0, size + 1, CHUNK_SIZE) for d in (-1, 0, 1)} | {size - 1, size})
    marks = [mark for mark in edges if 0 <= mark <= size]
    for begin in marks:
        for end in (mark for mark in marks if mark > begin):
            wanted = sealed_range(size, begin, end - begin)
            plain = unsealer.unseal(theirs[wanted.offset : wanted.offset + wanted.length], wanted.first_chunk)
            assert plain[wanted.skip : wanted.skip + wanted.plain_length] == body[begin:end]
