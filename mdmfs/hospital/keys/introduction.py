"""Introduction: give new shares to keystores that hold none of a key yet, before those that do change over."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.escrow import Deposit
from mdmfs.hospital.keys.amends import Shipment, deposits
from mdmfs.model.errors import MdmfsError, PeerTimedOutError, PeerUnreachableError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.keystores import Outcome

DEADLINE: Final = 20.0
_POLL_SECONDS: Final = 0.05
_TAKEN: Final = (Outcome.DONE, Outcome.DESTROYED)
"""A keystore that has destroyed its share of a key never takes another; the others do without it."""


class Introduced(NamedTuple):
    """What came of it."""

    shipments: list[Shipment]
    """To the other keystores, of files of which every newcomer has its share."""
    silent: dict[str, str]
    """Newcomers that did not take all of theirs, and why: these files stay as they are."""


class Given(NamedTuple):
    """What came of giving new keys to some keystores first."""

    taken: list[str]
    """The keystores that have all of their shares."""
    refused: dict[str, str]
    """Those that were asked and have not, and why."""
    is_safe: bool
    """Whether the files open as before where too few have taken theirs; else no more were asked, lest they do not."""
    is_certain: bool = True
    """Whether all answered; who did not may have taken its shares, or take them yet."""


async def introduce(hospital: Hospital, shipments: Sequence[Shipment]) -> Introduced:
    """Give every newcomer its shares, all at once; what one of them has not taken is sent to nobody else."""
    firsts = {name: [one.guid for one in shipments if name in one.newcomers] for name in hospital.keystores.names}
    given = hospital.store.read(lambda tx: deposits(tx, [shipment.to_newcomers() for shipment in shipments]))
    left: set[Guid] = set()
    silent: dict[str, str] = {}

    async def give(name: str, deposit: Deposit) -> None:
        try:
            outcomes = await _give(hospital, name, deposit)
        except MdmfsError as error:
            left.update(firsts[name])
            silent[name] = str(error)
            return
        refused = [guid for guid, outcome in zip(firsts[name], outcomes, strict=True) if outcome not in _TAKEN]
        if refused:
            left.update(refused)
            silent[name] = _told(outcomes)

    async with open_plain_nursery() as nursery:
        for name, deposit in given.items():
            nursery.start_soon(give, name, deposit)
    return Introduced([shipment.without_newcomers() for shipment in shipments if shipment.guid not in left], silent)


async def give_first(
    hospital: Hospital, shipments: Sequence[Shipment], names: Sequence[str], *, current: Collection[str], spare: int
) -> Given:
    """Give new keys to k keystores, one after another, before any other hears of them.

    Whoever has not taken its shares by then gives those of the old keys. ``current`` are the keystores that have some,
    and ``spare`` of these can change over and the files open as before; no further one is asked but the last needed.
    """
    taken: list[str] = []
    refused: dict[str, str] = {}
    is_certain = True
    for name in names:
        lacking = hospital.threshold - len(taken)
        if not lacking:
            break
        if name in current and spare <= 0 and lacking > 1:
            return Given(taken, refused, is_safe=False, is_certain=is_certain)
        own = functools.partial(deposits, shipments=[shipment.to(name) for shipment in shipments])
        try:
            outcomes = await _give(hospital, name, hospital.store.read(own)[name])
        except MdmfsError as error:
            refused[name] = str(error)
            is_certain &= not isinstance(error, PeerTimedOutError | PeerUnreachableError)
            continue
        if all(outcome in _TAKEN for outcome in outcomes):
            taken.append(name)
        else:
            refused[name] = _told(outcomes)
        spare -= name in current and any(outcome in _TAKEN for outcome in outcomes)
    return Given(taken, refused, is_safe=True, is_certain=is_certain)


def _told(outcomes: Sequence[Outcome]) -> str:
    refused = sum(outcome not in _TAKEN for outcome in outcomes)
    return f"it refused {refused} of {len(outcomes)} new shares"


async def _give(hospital: Hospital, name: str, deposit: Deposit) -> list[Outcome]:
    """Wait until what was sent before has arrived, so that it does not come after; then give.

    Raises ``PeerTimedOutError``, what the keystore's answer raises, and ``PeerUnreachableError`` where another daemon
    may have taken the store over: what this one gave would be in nobody's books.
    """
    deadline = trio.current_time() + DEADLINE
    last = hospital.store.read(lambda tx: tx.outbox.latest())
    while any(item.number <= last for item in hospital.store.read(lambda tx: tx.outbox.peek(name, limit=1))):
        if trio.current_time() >= deadline:
            message = "it has yet to take what was sent before"
            raise PeerTimedOutError(message)
        await trio.sleep(_POLL_SECONDS)
    hospital.store.refuse_stale()
    await hospital.keystores.set_acls(name, deposit.acls, deadline=deadline)
    return await hospital.keystores.register(name, deposit.entries, deadline=deadline)
