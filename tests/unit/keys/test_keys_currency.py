"""A keystore hears what was decided while it was away, before it gives a share again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import structlog.testing
import trio

from mdmfs.access.acl import Acl
from mdmfs.hospital.keys.currency import BEAT, behind, catch_up, is_effective, keep_current
from mdmfs.hospital.ledger.records import Epoch
from mdmfs.hospital.outbox.deposit import deposit
from mdmfs.model.errors import PeerTimedOutError, PeerUnreachableError, TooFewSharesError
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.currency import Currency
from mdmfs.wire.keystores.answers import Answers
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.keystores import SET_ACLS_PATH, Outcome
from mdmfs.wire.messages.message import Message
from tests.twins.clinic import KEYSTORES, OWNER, PROJECT_LFN, READER, Clinic, OpenClinic, project_acl, slices, until
from tests.twins.keystores import HOSPITAL, TwinKeystore, unreachable
from tests.twins.store import MemoryStore

NOBODY_AT_ALL = Acl(str(HOSPITAL), ())
M = TypeVar("M", bound=Message)


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[OpenClinic]:
    """Give a hospital with two registered slices, whose keystores it keeps current."""
    clinic = Clinic(folder, slices([1, 2]))
    async with clinic.open() as opened:
        await opened.harvest()
        opened.nursery.start_soon(keep_current, opened.hospital)
        await settled()
        yield opened


async def settled() -> None:
    """Let everything that can happen at once happen."""
    await trio.sleep(0.2)


async def asked(opened: OpenClinic, guid: Guid) -> tuple[set[str], Answers]:
    """Ask every keystore as the reader; give what each answered."""
    clients = {name: twin.as_seen_by(READER) for name, twin in opened.clinic.keystores.items()}
    async with trio.open_nursery() as nursery:
        answers = (await Keystores(clients, nursery).collect([guid], enough=3, deadline=trio.current_time() + 5))[guid]
        nursery.cancel_scope.cancel()
    return {name for name in clients if any(share.x == 1 + KEYSTORES.index(name) for share in answers.shares)}, answers


async def revoke(opened: OpenClinic, guid: Guid) -> int:
    """Take everybody's rights to a file's directory away; give the epoch."""
    lfn = next(Lfn((*PROJECT_LFN.parts, *name.split("/"))) for name, each in opened.files().items() if each == guid)

    def act(tx):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 short
        tx.acls.set(lfn.parent, NOBODY_AT_ALL, files=True)
        return tx.epochs.latest().number

    epoch: int = await opened.hospital.store.write(act)
    opened.hospital.outbox.ring()
    return epoch


async def bury(opened: OpenClinic, guid: Guid) -> int:
    """Destroy a key; give the epoch."""
    epoch = await opened.hospital.store.write(lambda tx: tx.epochs.bury(guid))
    opened.hospital.outbox.ring()
    return epoch


async def test_a_restarted_keystore_gives_shares_again_a_second_after_the_hospital_reached_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Not before it has heard, and without waiting for the next minute."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        guid = next(iter(opened.files().values()))
        assert (await asked(opened, guid))[0] == set(KEYSTORES)
        for twin in opened.clinic.keystores.values():
            twin.restart()
        nobody, answers = await asked(opened, guid)
        assert not nobody
        with pytest.raises(TooFewSharesError, match="has yet to hear"):
            raise answers.failure(2)
        for twin in opened.clinic.keystores.values():
            twin.failure = unreachable
        await trio.sleep(BEAT + 30)
        for twin in opened.clinic.keystores.values():
            twin.failure = None
        await trio.sleep(4)
        assert (await asked(opened, guid))[0] == set(KEYSTORES)


async def test_a_change_is_told_at_once(tmp_path: Path, autojump_clock: object) -> None:
    """A revocation and a destruction reach every keystore long before the next beat, and are counted."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        first, second = opened.files().values()
        epoch = await bury(opened, first)
        await settled()
        assert opened.hospital.store.read(lambda tx: behind(tx, opened.hospital, epoch)) == []
        assert (await asked(opened, first))[0] == set()
        assert (await asked(opened, second))[0] == set(KEYSTORES)
        epoch = await revoke(opened, second)
        await settled()
        assert opened.hospital.store.read(lambda tx: behind(tx, opened.hospital, epoch)) == []
        assert (await asked(opened, second))[0] == set()


async def test_k_keystores_restored_from_yesterday_still_hold_todays_revocations_and_destructions(
    tmp_path: Path, autojump_clock: object
) -> None:
    """The shelves are yesterday's, the hospital is away: nothing is given. It is back: today's decisions hold."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        first, second = opened.files().values()
        restored = [opened.clinic.keystores[name] for name in KEYSTORES[:2]]
        yesterday = [twin.shelf.page for twin in restored]
        await bury(opened, first)
        await revoke(opened, second)
        await settled()
        for twin, page in zip(restored, yesterday, strict=True):
            twin.shelf.page = page
            twin.restart()
        for guid in (first, second):
            assert (await asked(opened, guid))[0] == set()
        await trio.sleep(BEAT + 5)
        for guid, outcome in ((first, Outcome.DESTROYED), (second, Outcome.DENIED)):
            given, answers = await asked(opened, guid)
            assert given == set()
            assert str(answers.failure(2)).count(outcome.value) == len(KEYSTORES)


async def test_tombstones_come_before_acls(tmp_path: Path, autojump_clock: object) -> None:
    """Should the connection break between them, what was destroyed is destroyed."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        twin = opened.clinic.keystores[KEYSTORES[0]]
        twin.failure = unreachable
        first, second = opened.files().values()
        await revoke(opened, second)
        epoch = await bury(opened, first)
        await settled()
        assert opened.hospital.store.read(lambda tx: behind(tx, opened.hospital, epoch)) == [KEYSTORES[0]]
        assert opened.hospital.store.read(lambda tx: is_effective(tx, opened.hospital, epoch))
        twin.failure = None
        twin.paths.clear()
        await trio.sleep(5)
        told = [path.rpartition("/")[2] for path in twin.paths]
        assert told.index("unregister") < told.index("set-acls") < told.index("confirm")


async def test_a_change_that_too_few_have_stored_is_not_effective(tmp_path: Path, autojump_clock: object) -> None:
    """With k = 2 of 3, two that are away could still make the key."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        for name in KEYSTORES[1:]:
            opened.clinic.keystores[name].failure = unreachable
        epoch = await bury(opened, next(iter(opened.files().values())))
        await settled()
        assert opened.hospital.store.read(lambda tx: behind(tx, opened.hospital, epoch)) == list(KEYSTORES[1:])
        assert not opened.hospital.store.read(lambda tx: is_effective(tx, opened.hospital, epoch))


async def test_a_history_that_a_backup_has_parted_is_told_from_its_beginning(tmp_path: Path) -> None:
    """The hospital's store is yesterday's and has gone on from there: the numbers agree and the marks do not."""
    async with Clinic(tmp_path).open() as opened:
        hospital, twin = opened.hospital, opened.clinic.keystores[KEYSTORES[0]]
        lost = [await bury(opened, Guid(bytes([n] * 16))) for n in range(3)]
        assert await catch_up(KEYSTORES[0], hospital) == hospital.store.read(lambda tx: tx.epochs.latest())
        assert len(twin.shelf.page.graves) == len(lost)
    opened.clinic.store = MemoryStore()
    async with opened.clinic.open() as again:
        for n in range(3, 8):
            await bury(again, Guid(bytes([n] * 16)))
        await catch_up(KEYSTORES[0], again.hospital)
        assert len(twin.shelf.page.graves) == 8
        held = twin.shelf.page.epochs[str(HOSPITAL)]
        assert again.hospital.store.read(lambda tx: tx.epochs.holds(Epoch(held.epoch, held.mark)))


async def test_a_right_that_is_taken_away_after_a_restore_goes_at_keystores_that_know_later_versions(
    tmp_path: Path, autojump_clock: object
) -> None:
    """They keep what they were told before, and yet take what is decided now; else the change would be told as held."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        guid = next(iter(opened.files().values()))
        for twin in opened.clinic.keystores.values():
            page = twin.shelf.page
            page.acls.update(
                {key: msgspec.structs.replace(one, version=one.version + 5) for key, one in page.acls.items()}
            )
            known = page.epochs[str(HOSPITAL)]
            page.epochs[str(HOSPITAL)] = msgspec.structs.replace(known, epoch=known.epoch + 9, mark=bytes(16))
            twin.restart()
        await trio.sleep(BEAT + 5)
        assert (await asked(opened, guid))[0] == set(KEYSTORES)
        epoch = await revoke(opened, guid)
        await settled()
        assert opened.hospital.store.read(lambda tx: is_effective(tx, opened.hospital, epoch))
        assert (await asked(opened, guid))[0] == set()


async def test_what_is_decided_after_a_start_is_later_than_all_that_keystores_know(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Whoever put an older store back, and however: here nothing tells that keystores know more."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        for twin in opened.clinic.keystores.values():
            page = twin.shelf.page
            page.acls.update(
                {key: msgspec.structs.replace(one, version=one.version + 5) for key, one in page.acls.items()}
            )
    async with opened.clinic.open() as again:
        again.nursery.start_soon(keep_current, again.hospital)
        guid = next(iter(again.files().values()))
        await revoke(again, guid)
        await settled()
        assert (await asked(again, guid))[0] == set()


async def test_an_acl_that_was_set_while_shares_waited_is_no_error(tmp_path: Path) -> None:
    """A keystore that was away hears of it before it gets the shares, and of the older one with these."""
    async with Clinic(tmp_path, slices([1, 2])).open(deposits=False) as opened:
        await opened.harvest()
        await opened.hospital.store.write(lambda tx: tx.acls.set(PROJECT_LFN, project_acl()))
        for name in KEYSTORES:
            await catch_up(name, opened.hospital)
        with structlog.testing.capture_logs() as lines:
            opened.nursery.start_soon(deposit, opened.hospital)
            await until(lambda: len(opened.names()) == 2)
        assert [line["event"] for line in lines if line["log_level"] == "error"] == []
        opened.clinic.pacs.held += slices([3, 4], series=2)
        know_later(opened.clinic.keystores[KEYSTORES[0]], IN_2060)
        with structlog.testing.capture_logs() as lines:
            await opened.harvest()
            await until(lambda: len(opened.names()) == 4)
            await until(lambda: not opened.hospital.store.read(lambda tx: tx.outbox.destinations()))
        told = {(line["event"], line["keystore"]) for line in lines if line["log_level"] == "error"}
        assert told == {("a keystore goes by other ACLs than ours", KEYSTORES[0])}


def know_later(twin: TwinKeystore, version: int, acl: Acl | None = None) -> None:
    """Have a keystore know later versions of all ACLs, which say the same, or ``acl``."""
    acls = twin.shelf.page.acls
    for key, one in list(acls.items()):
        acls[key] = msgspec.structs.replace(one, version=version, acl=acl.encode() if acl else one.acl)


def forget_history(twin: TwinKeystore) -> None:
    """Have a keystore know more of a history than the hospital does, whose store an older one replaced."""
    epochs = twin.shelf.page.epochs
    epochs[str(HOSPITAL)] = msgspec.structs.replace(epochs[str(HOSPITAL)], epoch=99, mark=bytes(16))
    twin.restart()


IN_2060 = 1000 * 90 * 365 * 86_400


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_right_goes_at_keystores_that_know_versions_of_a_clock_that_was_years_ahead(
    tmp_path: Path, autojump_clock: object, *, is_away: bool
) -> None:
    """It was set under that clock, and an older store was put back: what is decided then holds at once, not in 2060."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        guid = next(iter(opened.files().values()))
        for twin in opened.clinic.keystores.values():
            know_later(twin, IN_2060)
            forget_history(twin)
        await trio.sleep(BEAT + 5)
        assert (await asked(opened, guid))[0] == set(KEYSTORES)
        away = opened.clinic.keystores[KEYSTORES[0]]
        away.failure = unreachable if is_away else None
        epoch = await revoke(opened, guid)
        await settled()
        assert opened.hospital.store.read(lambda tx: is_effective(tx, opened.hospital, epoch))
        away.failure = None
        await trio.sleep(BEAT + 5)
        assert (await asked(opened, guid))[0] == set()
        assert all(
            acl.version < 2 * IN_2060
            for twin in opened.clinic.keystores.values()
            for acl in twin.shelf.page.acls.values()
        )


async def test_an_older_store_that_was_put_back_lets_nobody_in_whom_keystores_have_heard_of_since(
    tmp_path: Path, autojump_clock: object
) -> None:
    """What it says of before is no decision of now."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        guid = next(iter(opened.files().values()))
        await opened.hospital.store.write(lambda tx: tx.acls.set(PROJECT_LFN, project_acl()))
        opened.hospital.outbox.ring()
        await settled()
        assert (await asked(opened, guid))[0] == set(KEYSTORES)
        for twin in opened.clinic.keystores.values():
            know_later(twin, IN_2060, NOBODY_AT_ALL)
            forget_history(twin)
        await trio.sleep(2 * BEAT)
        given, answers = await asked(opened, guid)
        assert given == set()
        assert str(answers.failure(2)).count(Outcome.DENIED.value) == len(KEYSTORES)


async def test_a_keystore_that_always_knows_later_acls_uses_up_no_versions(
    tmp_path: Path, autojump_clock: object
) -> None:
    """It lies; a change gets a later version once, and holds by the others."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        guid = next(iter(opened.files().values()))
        know_later(opened.clinic.keystores[KEYSTORES[0]], 2**63 - 1)
        epoch = await revoke(opened, guid)
        await settled()
        assert opened.hospital.store.read(lambda tx: is_effective(tx, opened.hospital, epoch))
        latest = opened.hospital.store.read(lambda tx: tx.epochs.latest())
        assert latest.number == epoch + 1
        opened.clinic.keystores[KEYSTORES[0]].restart()
        await trio.sleep(10 * BEAT)
        assert opened.hospital.store.read(lambda tx: tx.epochs.latest()) == latest
        assert KEYSTORES[1] not in (await asked(opened, guid))[0]


async def test_a_keystore_that_says_for_ever_that_it_is_not_current_is_left_alone_for_a_while(tmp_path: Path) -> None:
    """It keeps nobody busy; and what it has acknowledged counts."""
    async with Clinic(tmp_path).open() as opened:
        twin = opened.clinic.keystores[KEYSTORES[0]]
        twin.restart(currency=Currency(iter(range(0, 10**6, 301)).__next__))
        epoch = await bury(opened, Guid(bytes(16)))
        with pytest.raises(PeerTimedOutError, match="not current"):
            await catch_up(KEYSTORES[0], opened.hospital)
        assert opened.hospital.store.read(lambda tx: tx.epochs.acknowledged(KEYSTORES[0])) == epoch


async def test_a_hospital_that_may_not_know_the_latest_tells_nobody(tmp_path: Path, autojump_clock: object) -> None:
    """Another daemon may have told more, which must not be taken back; with its database it goes on."""
    assert autojump_clock is not None
    async with running(tmp_path) as opened:
        store = opened.hospital.store
        assert isinstance(store, MemoryStore)
        store.is_stale = True
        before = dict(opened.clinic.keystores[KEYSTORES[0]].shelf.page.acls)
        epoch = await revoke(opened, next(iter(opened.files().values())))
        await trio.sleep(2 * BEAT)
        assert opened.clinic.keystores[KEYSTORES[0]].shelf.page.acls == before
        assert store.read(lambda tx: behind(tx, opened.hospital, epoch)) == list(KEYSTORES)
        with pytest.raises(PeerUnreachableError):
            await catch_up(KEYSTORES[0], opened.hospital)
        store.is_stale = False
        await trio.sleep(BEAT)
        assert store.read(lambda tx: behind(tx, opened.hospital, epoch)) == []


class LosingTouch:
    """A keystore that hears of ACLs in the instant in which the hospital's store is no longer heard of."""

    def __init__(self, twin: TwinKeystore, store: MemoryStore) -> None:
        self._keystore = twin.as_seen_by(OWNER)
        self._store = store

    async def call(self, path: str, message: Message, reply: type[M], *, deadline: float) -> M:
        """See ``Caller``."""
        self._store.is_stale = self._store.is_stale or path == SET_ACLS_PATH
        return await self._keystore.call(path, message, reply, deadline=deadline)


async def test_what_was_told_while_the_store_was_lost_is_not_confirmed(tmp_path: Path) -> None:
    """Another daemon may have decided more by then, and the keystore would take itself for current."""
    async with Clinic(tmp_path, slices([1])).open() as opened:
        await opened.harvest()
        await catch_up(KEYSTORES[0], opened.hospital)
        twin, store = opened.clinic.keystores[KEYSTORES[0]], opened.hospital.store
        assert isinstance(store, MemoryStore)
        before = dict(twin.shelf.page.epochs)
        await revoke(opened, next(iter(opened.files().values())))
        peers = Keystores({KEYSTORES[0]: LosingTouch(twin, store)}, opened.nursery)
        with pytest.raises(PeerUnreachableError):
            await catch_up(KEYSTORES[0], opened.hospital, peers)
        assert twin.shelf.page.epochs == before
        store.is_stale = False
        await catch_up(KEYSTORES[0], opened.hospital)
        assert twin.shelf.page.epochs != before
