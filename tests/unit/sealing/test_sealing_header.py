"""File keys, contexts and headers."""

from __future__ import annotations

import copy
import pickle

import pytest

from mdmfs.model.errors import IntegrityError, MalformedMessageError, WrongKeyError
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, Header, ObjectContext, Role, derive, verify
from mdmfs.sealing.layout import HEADER_SIZE, MAX_SIZE, SALT_SIZE
from tests.twins.octets import octets

GUID = Guid(octets(16, "guid"))
CONTEXT = ObjectContext(Role.BODY, GUID, 0, 100)
SALT = octets(SALT_SIZE, "salt")


def test_a_context_has_a_fixed_width_and_no_two_share_their_bytes() -> None:
    """Each field changes the bytes, at its own place, up to its largest value."""
    largest = ObjectContext(Role.PREFIX, Guid(b"\xff" * 16), 2**32 - 1, MAX_SIZE)
    assert largest.encode() == b"\x01\x02" + b"\xff" * 16 + b"\xff" * 4 + (2**52 - 1).to_bytes(8, "big")
    others = [
        CONTEXT,
        ObjectContext(Role.PREFIX, GUID, 0, 100),
        ObjectContext(Role.BODY, Guid(bytes(16)), 0, 100),
        ObjectContext(Role.BODY, GUID, 1, 100),
        ObjectContext(Role.BODY, GUID, 0, 101),
    ]
    assert {len(other.encode()) for other in others} == {30}
    assert len({other.encode() for other in others}) == len(others)


@pytest.mark.parametrize(("generation", "size"), [(-1, 0), (2**32, 0), (0, -1), (0, MAX_SIZE + 1)])
def test_a_context_refuses_numbers_without_room(generation: int, size: int) -> None:
    """They come from peers, so the refusal is an error with a name."""
    with pytest.raises(MalformedMessageError, match="between"):
        ObjectContext(Role.BODY, GUID, generation, size)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_file_key_has_32_bytes(length: int) -> None:
    """Nothing else becomes one, and the refusal shows none of it."""
    with pytest.raises(MalformedMessageError, match=f"not {length}"):
        FileKey(b"k" * length)


def test_a_file_key_shows_itself_to_nobody() -> None:
    """No repr, no copy, no pickle, no equality by value: it gets into no log, no set and no other process."""
    secret = octets(32, "secret")
    key, twin = FileKey.from_random(secret), FileKey(secret)
    assert repr(key) == str(key) == "FileKey(...)"
    assert key != twin
    assert len({key, twin}) == 2
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not copied or pickled"):
            attempt(key)


def test_a_closed_key_is_overwritten_and_unusable() -> None:
    """A view taken earlier shows zeroes, and nothing can be derived any more; closing twice is harmless."""
    with FileKey(octets(32, "secret")) as key:
        view = key.octets
        assert view == octets(32, "secret")
        assert view.readonly
    assert view == bytes(32)
    key.close()
    with pytest.raises(ValueError, match="closed"):
        _ = key.octets
    with pytest.raises(ValueError, match="closed"):
        derive(key, CONTEXT, SALT)


def test_closing_a_key_leaves_what_it_was_made_from() -> None:
    """The key copies its bytes: the maker's buffer is the maker's to clear."""
    source = bytearray(octets(32, "secret"))
    FileKey(source).close()
    assert source == octets(32, "secret")


def test_a_key_that_is_closed_within_with_stays_closed_when_the_block_fails() -> None:
    """An error on the way does not keep a key alive."""
    key = FileKey(octets(32, "secret"))
    with pytest.raises(IntegrityError), key:
        Header.parse(b"")
    with pytest.raises(ValueError, match="closed"):
        _ = key.octets


def test_a_header_is_read_back() -> None:
    """56 bytes in, the same out."""
    encoded = octets(HEADER_SIZE, "header")
    assert Header.parse(memoryview(encoded)).encode() == encoded


@pytest.mark.parametrize("length", [0, 55, 57])
def test_a_header_has_56_bytes(length: int) -> None:
    """Anything else is no header."""
    with pytest.raises(IntegrityError, match=f"not {length}"):
        Header.parse(bytes(length))


@pytest.mark.parametrize("length", [0, 12, 23, 25])
def test_a_salt_has_24_bytes(length: int) -> None:
    """A shorter one would move the bytes of the context."""
    with pytest.raises(ValueError, match=f"not {length}"):
        derive(FileKey(bytes(32)), CONTEXT, bytes(length))


def test_a_commitment_that_does_not_match_names_the_file_and_not_the_key() -> None:
    """The message helps whoever reads the log and tells an attacker nothing."""
    secret = octets(32, "secret")
    _, header = derive(FileKey(secret), CONTEXT, SALT)
    with pytest.raises(WrongKeyError, match=str(GUID)) as caught:
        verify(header, FileKey(bytes(32)), CONTEXT)
    assert secret.hex() not in str(caught.value)
    assert bytes(32).hex() not in str(caught.value)
