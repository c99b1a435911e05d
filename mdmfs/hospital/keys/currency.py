"""Currency: tell every keystore what was decided, at once and again after each of its starts, tombstones first.

A keystore gives shares of our keys only while it knows that nothing was decided since (docs/adr/0007). It cannot know
that by itself, so each is told at least every minute; between two times a question waits at it, which breaks when it
stops, so that a keystore that is started again is current after a second.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator
from typing import Final

import structlog
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.catalogue.records import VersionOfAcl
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.records import METADATA, Epoch, KeyChange, KeyChangeKind
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import MdmfsError, PeerTimedOutError
from mdmfs.model.names import Guid
from mdmfs.model.pauses import pause_after
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.keystores import Outcome, VersionedAcl

log = structlog.get_logger()

BEAT: Final = 60.0
"""Seconds between two confirmations; a keystore without one holds its shares back after 300."""
DEADLINE: Final = 20.0
PAGE: Final = 2000
MAX_ROUNDS: Final = 3
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 2.0


async def keep_current(hospital: Hospital, *others: Keystores) -> None:
    """Keep every keystore current, and who else must hear of ACLs and tombstones, until cancelled."""
    async with trio.open_nursery() as nursery:
        for peers in (hospital.keystores, *others):
            for name in peers.names:
                nursery.start_soon(_serve, name, hospital, peers)


async def catch_up(keystore: str, hospital: Hospital, peers: Keystores | None = None) -> Epoch:
    """Tell one keystore every change that it does not know, then that there is no more; gives the epoch it knows.

    Raises what a call raises, and ``PeerUnreachableError`` where the store may not be the latest; what was told until
    then stays told.
    """
    peers = peers or hospital.keystores
    held = await peers.epoch(keystore, deadline=_soon())
    for _ in range(MAX_ROUNDS):
        hospital.store.refuse_stale()
        latest = hospital.store.read(lambda tx: tx.epochs.latest())
        if await _tell_after(Epoch(held.epoch, held.mark), latest, keystore, hospital, peers):
            continue  # what it refused is told again as a later version, before it is said to hold
        hospital.store.refuse_stale()  # another daemon may have decided more: what it told is not to be taken back
        held = await peers.confirm(keystore, *latest, held.nonce, deadline=_soon())
        await _acknowledge(keystore, latest.number, hospital)
        # not current, where telling took longer than a confirmation lasts: the next one has less to tell
        if held.is_current:
            return latest
    message = f"{keystore} has heard everything {MAX_ROUNDS} times, and says that it is not current"
    raise PeerTimedOutError(message)


def behind(tx: Transaction, hospital: Hospital, number: int) -> list[str]:
    """Name the keystores, and the metadata service, that have not acknowledged an epoch.

    A change is effective, whatever those do, when so many have that the others are fewer than the threshold.
    """
    names = [*hospital.keystores.names, *([METADATA] if hospital.has_metadata else ())]
    return [name for name in names if tx.epochs.acknowledged(name) < number]


def is_effective(tx: Transaction, hospital: Hospital, number: int) -> bool:
    """Ask whether an epoch holds: n - k + 1 keystores have stored it, and the metadata service."""
    missing = behind(tx, hospital, number)
    return METADATA not in missing and len(missing) < hospital.threshold


async def _serve(keystore: str, hospital: Hospital, peers: Keystores) -> None:
    failures = 0
    while True:
        change = hospital.outbox.next()
        try:
            told = await catch_up(keystore, hospital, peers)
            if failures:
                log.info("a keystore is current again", keystore=keystore, epoch=told.number)
            failures = 0
            if hospital.store.read(lambda tx: tx.epochs.latest()) == told:
                await _wait_until_due(keystore, hospital, peers, change, told)
        except MdmfsError as error:
            if not failures:
                log.warning("a keystore cannot be kept current", keystore=keystore, reason=error.told_here)
            pause = pause_after(failures, FIRST_PAUSE, LONGEST_PAUSE) * (0.5 + secrets.randbelow(1000) / 1000)
            failures += 1
            await trio.sleep(pause)


async def _wait_until_due(keystore: str, hospital: Hospital, peers: Keystores, change: trio.Event, told: Epoch) -> None:
    """Wait for a new epoch, for the time of the next confirmation, or until the keystore breaks the connection off."""
    async with open_plain_nursery() as nursery:

        async def wait_for_change(event: trio.Event) -> None:
            while True:
                await event.wait()
                event = hospital.outbox.next()
                if hospital.store.read(lambda tx: tx.epochs.latest()) != told:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(wait_for_change, change)
        await peers.epoch(keystore, wait=BEAT, deadline=trio.current_time() + BEAT + DEADLINE)
        nursery.cancel_scope.cancel()


async def _acknowledge(keystore: str, number: int, hospital: Hospital) -> None:
    if hospital.store.read(lambda tx: tx.epochs.acknowledged(keystore)) != number:
        await hospital.store.write(lambda tx: tx.epochs.acknowledge(keystore, number))


async def _tell_after(known: Epoch, latest: Epoch, keystore: str, hospital: Hospital, peers: Keystores) -> bool:
    """Tell what a keystore does not know; all there is, where what it knows is not of this history.

    True where it refused what was decided since, of which there is a later version now. What was decided before is not
    let outdo what it knows of a history that was lost: that may have shut somebody out.
    """
    is_ours = hospital.store.read(lambda tx: tx.epochs.holds(known))
    if not is_ours:
        log.error("the hospital's store or the shelf was restored: all is told again", keystore=keystore)
    since = known.number if is_ours else 0
    await _tell_tombstones(keystore, hospital, peers, since, latest.number)
    refused = await _tell_acls(keystore, hospital, peers, since, latest.number)
    is_outdone = is_ours and bool(refused) and await hospital.store.write(functools.partial(_outdo, refused=refused))
    if is_outdone:
        log.warning("a keystore knew later versions of ACLs; they are set again", keystore=keystore, acls=len(refused))
    elif refused:
        log.error("a keystore goes by other ACLs than ours", keystore=keystore, refused=len(refused))
    return is_outdone


async def _tell_tombstones(keystore: str, hospital: Hospital, peers: Keystores, since: int, until: int) -> None:
    for page in _pages(hospital.store, since, until):
        guids = [Guid(change.what) for change in page if change.kind is KeyChangeKind.TOMBSTONE]
        if guids:
            outcomes = await peers.unregister(keystore, guids, deadline=_soon())
            _tell_refusals(keystore, outcomes, "a keystore does not destroy keys of ours")


async def _tell_acls(keystore: str, hospital: Hospital, peers: Keystores, since: int, until: int) -> list[VersionOfAcl]:
    """Tell ACLs, and give those that were refused."""
    refused: list[VersionOfAcl] = []
    for page in _pages(hospital.store, since, until):
        ids = dict.fromkeys(change.what for change in page if change.kind is KeyChangeKind.ACL)
        acls = [acl for acl_id in ids if (acl := hospital.store.read(functools.partial(_acl, acl_id=acl_id)))]
        if acls:
            versioned = [VersionedAcl(one.id, one.version, one.acl.encode()) for one in acls]
            outcomes = await peers.set_acls(keystore, versioned, deadline=_soon())
            refused += [acl for acl, outcome in zip(acls, outcomes, strict=True) if outcome is not Outcome.DONE]
    return refused


def _outdo(tx: Transaction, *, refused: list[VersionOfAcl]) -> bool:
    return sum(tx.acls.outdo(acl) for acl in refused) > 0


def _pages(store: Store, since: int, until: int) -> Iterator[list[KeyChange]]:
    while since < until:
        page = store.read(lambda tx, since=since: tx.epochs.after(since, limit=PAGE))  # type: ignore[misc]
        if not page:
            return
        yield [change for _, change in page]
        since = page[-1][0]


def _acl(tx: Transaction, acl_id: bytes) -> VersionOfAcl | None:
    return tx.acls.find(acl_id)


def _soon() -> float:
    return trio.current_time() + DEADLINE


def _tell_refusals(keystore: str, outcomes: list[Outcome], event: str) -> None:
    refused = len(outcomes) - outcomes.count(Outcome.DONE)
    if refused:
        log.error(event, keystore=keystore, refused=refused, of=len(outcomes))
