"""Escrow: a key is made once and forgotten; what is kept tells the right one and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mdmfs.hospital.kept.escrow import (
    KEY_CHECK_SIZE,
    Deposit,
    Seal,
    key_check,
    key_entries,
    make_key,
    random_guid,
    verifier,
)
from mdmfs.model.errors import StoreError, WrongKeyError
from mdmfs.sealing.header import FileKey
from mdmfs.sharing.shamir import Share, combine
from mdmfs.wire.messages.keystores import KeyEntry, VersionedAcl
from tests.twins.records import guid_of

NAMES = ("k1", "k2", "k3")
DEPOSIT = Deposit([VersionedAcl(b"a" * 16, 1, b"acl")], [KeyEntry(b"share", [[b"a" * 16]])])


def test_any_two_shares_make_the_key_that_the_check_knows() -> None:
    """And the check of another file, generation or key refuses it."""
    new = make_key(guid_of(1), NAMES, 2)
    shares = {name: Share.parse(octets) for name, octets in new.shares.items()}
    assert [shares[name].x for name in NAMES] == [1, 2, 3]
    assert len({share.split_id for share in shares.values()}) == 1
    secrets = {combine([shares[a], shares[b]]) for a, b in (("k1", "k2"), ("k2", "k3"), ("k3", "k1"))}
    assert len(secrets) == 1
    (secret,) = secrets
    with FileKey(secret) as key:
        verifier(guid_of(1), 1, new.check)(key)
        for guid, generation in ((guid_of(2), 1), (guid_of(1), 2)):
            with pytest.raises(WrongKeyError):
                verifier(guid, generation, new.check)(key)
    with FileKey(bytes([secret[0] ^ 1]) + secret[1:]) as other, pytest.raises(WrongKeyError):
        verifier(guid_of(1), 1, new.check)(other)


def test_a_check_is_short_and_shows_no_part_of_the_key() -> None:
    """Sixteen bytes, another for each file under the same key."""
    secret = bytes(range(32))
    checks = {key_check(secret, guid_of(number), 1) for number in range(50)}
    assert len(checks) == 50
    assert {len(check) for check in checks} == {KEY_CHECK_SIZE}
    assert not any(check[:4] in secret for check in checks)


def test_no_two_keys_are_alike() -> None:
    """A hundred files, a hundred keys, splits and GUIDs."""
    made = [make_key(random_guid(), NAMES, 2) for _ in range(100)]
    shares = [[Share.parse(octets) for octets in new.shares.values()] for new in made]
    assert len({combine(group[:2]) for group in shares}) == 100
    assert len({group[0].split_id for group in shares}) == 100


def test_nothing_shows_a_share_by_accident() -> None:
    """Neither a new key nor a deposit has a repr that a log could print."""
    new = make_key(guid_of(1), NAMES, 2)
    deposit = Deposit([], key_entries([new], "k1", {guid_of(1): [[b"a" * 16]]}))
    share = Share.parse(new.shares["k1"])
    for shown in (repr(new), repr(deposit), repr(deposit.entries)):
        assert repr(share.y)[2:-1][:24] not in shown
        assert repr(new.shares["k1"])[2:-1][:16] not in shown


def test_the_seal_opens_for_its_destination_only(tmp_path: Path) -> None:
    """An item that was moved to another queue, or touched, or cut to nothing, does not open."""
    seal = Seal(tmp_path / "outbox.key")
    sealed = seal.seal("k1", DEPOSIT)
    assert seal.open("k1", sealed) == DEPOSIT
    assert b"share" not in sealed
    assert seal.seal("k1", DEPOSIT) != sealed
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for destination, octets in (("k2", sealed), ("k1", flipped), ("k1", sealed[:20]), ("k1", sealed[:5]), ("k1", b"")):
        with pytest.raises(StoreError):
            seal.open(destination, octets)


def test_the_seal_outlives_a_restart_and_no_other_key_opens_it(tmp_path: Path) -> None:
    """The key's file is its owner's alone."""
    sealed = Seal(tmp_path / "outbox.key").seal("k1", DEPOSIT)
    assert Seal(tmp_path / "outbox.key").open("k1", sealed) == DEPOSIT
    assert (tmp_path / "outbox.key").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["outbox.key"]  # noqa: PTH208 the names alone
    with pytest.raises(StoreError, match="not the one it was sealed under"):
        Seal(tmp_path / "other.key").open("k1", sealed)


def test_a_damaged_or_unreadable_seal_is_told_and_never_replaced(tmp_path: Path) -> None:
    """A new key in its place would lose what waits in the outbox."""
    (tmp_path / "outbox.key").write_bytes(b"short")
    with pytest.raises(StoreError, match="does not hold a key"):
        Seal(tmp_path / "outbox.key")
    assert (tmp_path / "outbox.key").read_bytes() == b"short"
    with pytest.raises(StoreError):
        Seal(tmp_path / "missing" / "outbox.key")
