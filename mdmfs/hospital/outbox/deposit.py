"""Deposit: bring the shares in the outbox to the keystores, and show a series once enough of them have acknowledged."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.records import OutboxItem, SeriesState
from mdmfs.hospital.metadata.outgoing import send_shown
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import MdmfsError
from mdmfs.model.pauses import pause_after
from mdmfs.wire.messages.keystores import Outcome, VersionedAcl

log = structlog.get_logger()

DEADLINE: Final = 20.0
"""Seconds for one batch at one keystore."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
_READ_AHEAD: Final = 4


async def deposit(hospital: Hospital) -> None:
    """Serve every keystore's queue, each at its own pace, until cancelled."""
    async with trio.open_nursery() as nursery:
        for keystore in hospital.keystores.names:
            nursery.start_soon(serve_queue, keystore, hospital, functools.partial(_deliver, keystore, hospital))


def show_deposited(tx: Transaction, key: SeriesKey, hospital: Hospital) -> None:
    """Show a series that is complete, if enough of the hospital's keystores keep a share of every file of it."""
    series = tx.series.get(key)
    if series is None or series.state is not SeriesState.DEPOSITING:
        return
    count = tx.uidmap.count_of_series(key)
    kept = [series.acknowledged.get(keystore, 0) for keystore in hospital.keystores.names]
    if sum(shares >= count for shares in kept) >= hospital.required:
        tx.catalogue.show_all(series.lfn)
        tx.series.put(msgspec.structs.replace(series, state=SeriesState.VISIBLE))
        if hospital.has_metadata:
            send_shown(tx, series)


async def serve_queue(
    destination: str,
    hospital: Hospital,
    deliver: Callable[[Sequence[OutboxItem]], Awaitable[None]],
    *,
    read_ahead: int = _READ_AHEAD,
) -> None:
    """Deliver what lies in the outbox for one destination, in order, until cancelled; a failure is tried again.

    ``deliver`` gets the first items, at most ``read_ahead`` of them, and drops those that have arrived. Nothing is
    delivered from a store that may not be the latest: another daemon may have delivered what came after it.
    """
    failures = 0
    while True:
        arrival = hospital.outbox.next()
        try:
            items = hospital.store.read(lambda tx: tx.outbox.peek(destination, limit=read_ahead))
            if items:
                hospital.store.refuse_stale()
                await deliver(items)
            failures = 0
        except MdmfsError as error:
            pause = pause_after(failures, FIRST_PAUSE, LONGEST_PAUSE) * (0.5 + secrets.randbelow(1000) / 2000)
            log.warning(
                "a peer does not take what is for it", peer=destination, reason=error.told_here, pause=round(pause, 1)
            )
            failures += 1
            await trio.sleep(pause)
            continue
        if not items:
            await arrival.wait()


async def _deliver(keystore: str, hospital: Hospital, items: Sequence[OutboxItem]) -> None:
    for item in items:
        hospital.store.refuse_stale()
        await _deposit(keystore, hospital, item)


async def _deposit(keystore: str, hospital: Hospital, item: OutboxItem) -> None:
    deposit = hospital.seal.open(keystore, item.payload)
    deadline = trio.current_time() + DEADLINE
    known = await hospital.keystores.set_acls(keystore, deposit.acls, deadline=deadline)
    outcomes = await hospital.keystores.register(keystore, deposit.entries, deadline=deadline)
    refused = [acl for acl, outcome in zip(deposit.acls, known, strict=True) if outcome is not Outcome.DONE]
    if others := hospital.store.read(lambda tx: sum(_is_as_it_was(tx, acl) for acl in refused)):
        log.error("a keystore goes by other ACLs than ours", keystore=keystore, refused=others)
    kept = outcomes.count(Outcome.DONE) + outcomes.count(Outcome.DESTROYED)  # what is destroyed needs no share
    if kept != len(outcomes):
        log.error("a keystore refused shares", keystore=keystore, refused=len(outcomes) - kept, of=len(outcomes))

    def acknowledge(tx: Transaction) -> None:
        tx.outbox.drop(keystore, [item.number])
        series = tx.series.by_octets(item.series)
        if series is not None:
            acknowledged = {**series.acknowledged, keystore: series.acknowledged.get(keystore, 0) + kept}
            tx.series.put(msgspec.structs.replace(series, acknowledged=acknowledged))
            show_deposited(tx, series.key, hospital)

    await hospital.store.write(acknowledge)
    hospital.feed.bell.ring()
    if hospital.has_metadata:
        hospital.outbox.ring()


def _is_as_it_was(tx: Transaction, sent: VersionedAcl) -> bool:
    """Ask whether an ACL says still what was sent: a keystore that was away hears of later ones before."""
    known = tx.acls.find(sent.id)
    return known is not None and known.version == sent.version
