"""The key ring: of a key that was made nothing is left but what unseals."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterable

import pytest
import trio

from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import HEADER_SIZE
from mdmfs.sealing.seal import seal
from mdmfs.sharing.shamir import Share
from mdmfs.wire.keystores.answers import Answers, Verify
from mdmfs.wire.keystores.gathering import Gathering
from mdmfs.wire.messages.keystores import Outcome
from mdmfs.worker.keys.ring import KeyRing, Lock, unlock_with
from tests.twins.hospital import KEYSTORES
from tests.twins.keystores import random_guid, shares_of

GUID = random_guid()
SECRET = bytes(range(32))
PLAINTEXT = b"some plaintext"


class WatchedAnswers(Answers):
    """Keeps every key that it gives, as nobody else may."""

    def __init__(self, shares: Iterable[Share]) -> None:
        super().__init__(GUID, KEYSTORES, lambda *_: None)
        self.given: list[FileKey] = []
        for name, share in zip(KEYSTORES, shares, strict=False):
            self.take(name, Outcome.DONE, share.encode())

    def find_key(self, verify: Verify) -> FileKey | None:
        """See ``Answers``."""
        key = super().find_key(verify)
        if key is not None:
            self.given.append(key)
        return key


class Source:
    """Keystores that give two shares when they are asked first, and all of them afterwards."""

    def __init__(self, shares: list[Share]) -> None:
        self.first = WatchedAnswers(shares[:2])
        self.all = WatchedAnswers(shares)

    async def collect(self, guids: Iterable[Guid], *, enough: int, deadline: float) -> dict[Guid, Answers]:
        """See ``KeySource``."""
        del guids, enough, deadline
        await trio.lowlevel.checkpoint()
        return {GUID: self.first}

    @contextlib.asynccontextmanager
    async def collecting(self, guids: Iterable[Guid], *, deadline: float) -> AsyncIterator[Gathering]:
        """See ``KeySource``."""
        del guids
        await trio.lowlevel.checkpoint()
        yield Gathering([self.all], deadline, lambda *_: None)

    @property
    def given(self) -> list[FileKey]:
        """All keys that were given to the ring."""
        return self.first.given + self.all.given


def sealed_lock() -> Lock:
    """Seal an object under SECRET, and tell what its key must fit."""
    context = ObjectContext(Role.BODY, GUID, 0, len(PLAINTEXT))
    with FileKey(SECRET) as key:
        return Lock(context, seal(PLAINTEXT, key, context, bytes(24))[:HEADER_SIZE], 2)


def refuse_open(keys: list[FileKey]) -> None:
    """See that there are keys, and that each of them is wiped."""
    assert len(keys) == 1
    for key in keys:
        with pytest.raises(ValueError, match="closed"):
            key.octets  # noqa: B018 it raises


@pytest.mark.parametrize("is_lied", [False, True])
async def test_a_key_is_wiped_as_soon_as_it_has_made_what_unseals(*, is_lied: bool) -> None:
    """Be it of the shares that came first, or of those for which was asked once more since one of them was wrong."""
    shares = shares_of(GUID, SECRET)
    if is_lied:
        shares[0] = dataclasses.replace(shares[0], y=bytes([shares[0].y[0] ^ 1]) + shares[0].y[1:])
    source = Source(shares)
    await KeyRing(lambda: source, deadline=5).unlock(sealed_lock())
    refuse_open(source.given)


def test_a_key_of_shares_at_hand_is_wiped_too() -> None:
    """They are held for a second, the key for nobody."""
    answers = WatchedAnswers(shares_of(GUID, SECRET))
    assert unlock_with(answers, sealed_lock()) is not None
    refuse_open(answers.given)
