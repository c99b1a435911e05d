"""What every shelf promises: the one in memory and the one on LMDB pass the same tests."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from mdmfs.keystore.row_shelf import RowShelf, open_lmdb_shelf, shelf_layout
from mdmfs.keystore.shelf import AclRecord, Draft, EpochRecord, KeyRecord, Shelf, Tombstone, WitnessRecord
from mdmfs.model.names import Guid
from mdmfs.rows.copied import Copied
from tests.twins.shelf import MemoryShelf

A = "/DC=org/CN=hospital a"
B = "/DC=org/CN=hospital b"
GUID = Guid(bytes(range(16)))
NEXT_GUID = Guid(bytes([*range(15), 16]))
ACL_ID = b"i" * 16
LOGS = (b"j" * 16, b"k" * 16)


@pytest.fixture(params=["twin", "lmdb", "postgresql"])
async def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shelf]:
    """Each shelf in turn, empty."""
    if request.param == "twin":
        yield MemoryShelf()
    elif request.param == "postgresql":
        url = request.getfixturevalue("database_url")
        engine = await trio.to_thread.run_sync(Copied.open_url, tmp_path / "shelf", shelf_layout(), url)
        yield RowShelf(engine)
        await engine.aclose()
    else:
        async with open_lmdb_shelf(tmp_path / "shelf") as opened:
            yield opened


def key_of(owner: str, share: bytes = b"share") -> KeyRecord:
    """Make a record; the shelf does not look into shares."""
    return KeyRecord(owner=owner, share=share, aliases=((ACL_ID,), (ACL_ID, ACL_ID)))


def checkpoint(journal: bytes, number: int) -> WitnessRecord:
    """Make a checkpoint."""
    return WitnessRecord(journal=journal, number=number, link=bytes(32), when=1.0, signature=bytes(64))


class RefusedChangeError(Exception):
    """Raised inside changes."""


async def test_an_empty_shelf_knows_nothing(shelf: Shelf) -> None:
    """Nothing is there by default."""
    assert await shelf.read(lambda page: (page.key(GUID), page.acl(A, ACL_ID), page.tombstones(GUID))) == (
        None,
        None,
        [],
    )


async def test_what_was_put_is_read_back_and_replaced(shelf: Shelf) -> None:
    """A key and an ACL come back equal; a second put replaces the first."""
    for share, version in ((b"one", 1), (b"two", 2)):
        record, acl = key_of(A, share), AclRecord(version=version, acl=share)
        await shelf.write(lambda draft, record=record: draft.put_key(GUID, record))
        await shelf.write(lambda draft, acl=acl: draft.put_acl(A, ACL_ID, acl))
        assert await shelf.read(lambda page: page.key(GUID)) == record
        assert await shelf.read(lambda page: page.acl(A, ACL_ID)) == acl
    assert await shelf.read(lambda page: page.key(NEXT_GUID)) is None


@pytest.mark.parametrize("is_brief", [False, True])
async def test_a_brief_question_gets_the_same_answer(shelf: Shelf, is_brief: bool) -> None:  # noqa: FBT001 a parameter
    """On whatever thread it is asked; what it raises comes out, and the shelf answers on."""
    await shelf.write(lambda draft: draft.put_key(GUID, key_of(A)))
    assert await shelf.read(lambda page: page.key(GUID), is_brief=is_brief) == key_of(A)
    with pytest.raises(ZeroDivisionError):
        await shelf.read(lambda _: 1 // 0, is_brief=is_brief)
    assert await shelf.read(lambda page: page.key(NEXT_GUID), is_brief=is_brief) is None


async def test_each_owner_has_an_epoch_of_his_own(shelf: Shelf) -> None:
    """None at first; the last one put is kept, also a lower one."""
    assert await shelf.read(lambda page: page.epoch(A)) is None
    for number in (7, 3):
        record = EpochRecord(epoch=number, mark=b"m" * 16)
        await shelf.write(lambda draft, record=record: draft.put_epoch(A, record))
        assert await shelf.read(lambda page: page.epoch(A)) == record
    assert await shelf.read(lambda page: page.epoch(B)) is None


async def test_each_owner_has_a_signer_of_his_own(shelf: Shelf) -> None:
    """None at first; empty forgets him."""
    await shelf.write(lambda draft: draft.put_signer(A, b"public"))
    assert await shelf.read(lambda page: (page.signer(A), page.signer(B))) == (b"public", b"")
    await shelf.write(lambda draft: draft.put_signer(A, b""))
    assert await shelf.read(lambda page: page.signer(A)) == b""


async def test_checkpoints_are_kept_by_owner_log_and_number(shelf: Shelf) -> None:
    """In order, from the one after a number on, the newest of a log by itself; one that is dropped is gone alone."""

    def keep(draft: Draft) -> None:
        for owner, journal, number in [(A, LOGS[0], 256), (A, LOGS[1], 1), (A, LOGS[0], 2), (B, LOGS[0], 3)]:
            draft.put_witness(owner, checkpoint(journal, number))

    await shelf.write(keep)
    of_a = [checkpoint(LOGS[0], 2), checkpoint(LOGS[0], 256), checkpoint(LOGS[1], 1)]
    assert await shelf.read(lambda page: page.witnesses(A, b"", 0, 9)) == of_a
    assert await shelf.read(lambda page: page.witnesses(A, LOGS[0], 2, 1)) == of_a[1:2]
    assert await shelf.read(lambda page: page.witnesses(A, LOGS[0], 256, 9)) == of_a[2:]
    assert await shelf.read(lambda page: page.latest_witnesses(A, LOGS[0], 9)) == of_a[1::-1]
    assert await shelf.read(lambda page: page.latest_witnesses(A, LOGS[0], 1)) == of_a[1:2]
    await shelf.write(lambda draft: draft.drop_witness(A, of_a[1]))
    assert await shelf.read(lambda page: page.witnesses(A, b"", 0, 9)) == [of_a[0], of_a[2]]
    assert await shelf.read(lambda page: page.latest_witnesses(B, LOGS[0], 9)) == [checkpoint(LOGS[0], 3)]


async def test_acls_of_two_owners_under_one_id_never_meet(shelf: Shelf) -> None:
    """Neither replaces the other's, and an owner sees his own."""
    await shelf.write(lambda draft: draft.put_acl(A, ACL_ID, AclRecord(version=1, acl=b"a")))
    await shelf.write(lambda draft: draft.put_acl(B, ACL_ID, AclRecord(version=2, acl=b"b")))
    assert await shelf.read(lambda page: page.acl(A, ACL_ID)) == AclRecord(version=1, acl=b"a")
    assert await shelf.read(lambda page: page.acl(B, ACL_ID)) == AclRecord(version=2, acl=b"b")


async def test_a_dn_of_4096_bytes_owns_like_any_other(shelf: Shelf) -> None:
    """Owners may have long names that differ at the end only."""
    first, second = "/CN=" + "x" * 4091 + "1", "/CN=" + "x" * 4091 + "2"
    await shelf.write(lambda draft: draft.put_acl(first, ACL_ID, AclRecord(version=1, acl=b"a")))
    await shelf.write(lambda draft: draft.bury(GUID, Tombstone(owner=first, destroyed_at=1.0)))
    assert await shelf.read(lambda page: page.acl(second, ACL_ID)) is None
    assert [tombstone.owner for tombstone in await shelf.read(lambda page: page.tombstones(GUID))] == [first]


async def test_burying_drops_the_owners_key_and_stands_for_ever(shelf: Shelf) -> None:
    """The key is gone, the tombstone is there once, also when it is set up twice; the neighbour is untouched."""
    await shelf.write(lambda draft: draft.put_key(GUID, key_of(A)))
    await shelf.write(lambda draft: draft.put_key(NEXT_GUID, key_of(A)))
    for second in (1.0, 2.0):
        await shelf.write(lambda draft, second=second: draft.bury(GUID, Tombstone(owner=A, destroyed_at=second)))
    assert await shelf.read(lambda page: page.key(GUID)) is None
    assert await shelf.read(lambda page: page.tombstones(GUID)) == [Tombstone(owner=A, destroyed_at=2.0)]
    assert await shelf.read(lambda page: page.key(NEXT_GUID)) == key_of(A)
    assert await shelf.read(lambda page: page.tombstones(NEXT_GUID)) == []


async def test_one_owners_tombstone_leaves_anothers_key(shelf: Shelf) -> None:
    """Two owners can bury one GUID, each for himself."""
    await shelf.write(lambda draft: draft.put_key(GUID, key_of(A)))
    await shelf.write(lambda draft: draft.bury(GUID, Tombstone(owner=B, destroyed_at=1.0)))
    assert await shelf.read(lambda page: page.key(GUID)) == key_of(A)
    await shelf.write(lambda draft: draft.bury(GUID, Tombstone(owner=A, destroyed_at=1.0)))
    assert await shelf.read(lambda page: page.key(GUID)) is None
    assert {tombstone.owner for tombstone in await shelf.read(lambda page: page.tombstones(GUID))} == {A, B}


async def test_a_neighbours_tombstone_is_not_the_files_own(shelf: Shelf) -> None:
    """Also when it is the next one on the shelf."""
    await shelf.write(lambda draft: draft.bury(NEXT_GUID, Tombstone(owner=A, destroyed_at=1.0)))
    assert await shelf.read(lambda page: page.tombstones(GUID)) == []


async def test_a_draft_sees_its_own_changes(shelf: Shelf) -> None:
    """Two entries of one batch about one GUID meet each other."""

    def change(draft: Draft) -> tuple[KeyRecord | None, KeyRecord | None, int]:
        draft.put_key(GUID, key_of(A))
        before = draft.key(GUID)
        draft.bury(GUID, Tombstone(owner=A, destroyed_at=1.0))
        return before, draft.key(GUID), len(draft.tombstones(GUID))

    assert await shelf.write(change) == (key_of(A), None, 1)


async def test_a_change_that_raises_leaves_nothing_behind(shelf: Shelf) -> None:
    """Not even what it had put before."""

    def change(draft: Draft) -> None:
        draft.put_key(GUID, key_of(A))
        draft.bury(NEXT_GUID, Tombstone(owner=A, destroyed_at=1.0))
        raise RefusedChangeError

    with pytest.raises(RefusedChangeError):
        await shelf.write(change)
    assert await shelf.read(lambda page: (page.key(GUID), page.tombstones(NEXT_GUID))) == (None, [])
    assert await shelf.write(lambda draft: draft.key(GUID)) is None


async def test_of_many_writers_each_gets_his_own_result_or_error(shelf: Shelf) -> None:
    """Writers that are committed together do not share a fate."""
    results: dict[int, int | str] = {}

    def change(number: int, draft: Draft) -> int:
        draft.put_key(Guid(number.to_bytes(16, "big")), key_of(A))
        if number % 5 == 0:
            raise RefusedChangeError
        return number

    async def write(number: int) -> None:
        try:
            results[number] = await shelf.write(lambda draft: change(number, draft))
        except RefusedChangeError:
            results[number] = "refused"

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(write, number)
    assert results == {number: "refused" if number % 5 == 0 else number for number in range(50)}
    kept = await shelf.read(lambda page: [page.key(Guid(number.to_bytes(16, "big"))) for number in range(50)])
    assert [record is None for record in kept] == [number % 5 == 0 for number in range(50)]


async def test_a_writer_cancelled_when_his_turn_comes_takes_no_other_with_him(shelf: Shelf) -> None:
    """He may be the one who was to commit for all."""
    second = trio.CancelScope()

    def take_a_while(_: Draft) -> None:
        time.sleep(0.1)

    async def write_first() -> None:
        await shelf.write(take_a_while)
        second.cancel()

    async def write_second() -> None:
        with second:
            await shelf.write(lambda draft: draft.put_key(GUID, key_of(A)))

    async with trio.open_nursery() as nursery:
        for write in (write_first, write_second):
            nursery.start_soon(write)
            for _ in range(5):
                await trio.lowlevel.checkpoint()
        await shelf.write(lambda draft: draft.put_key(NEXT_GUID, key_of(B)))
    assert await shelf.read(lambda page: page.key(NEXT_GUID)) == key_of(B)


async def test_a_cancelled_writer_takes_no_other_with_him(shelf: Shelf) -> None:
    """Whoever is cancelled while he waits leaves the shelf working and the others' changes durable."""
    scopes = []

    async def write(number: int) -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await shelf.write(lambda draft: draft.put_key(Guid(number.to_bytes(16, "big")), key_of(A)))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(write, number)
        await trio.testing.wait_all_tasks_blocked(0.0)
        for scope in scopes[::2]:
            scope.cancel()
    kept = await shelf.read(lambda page: [page.key(Guid(number.to_bytes(16, "big"))) for number in range(20)])
    lost = [number for number, record in enumerate(kept) if record is None]
    assert not set(lost) - {number for number, scope in enumerate(scopes) if scope.cancelled_caught}
    await shelf.write(lambda draft: draft.put_key(GUID, key_of(B)))
    assert await shelf.read(lambda page: page.key(GUID)) == key_of(B)
