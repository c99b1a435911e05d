"""Introduction: give new shares to keystores that hold none of a key yet, before those that do change over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys.amends import Shipment, deposits
from mdmfs.hospital.release.escrow import Deposit
from mdmfs.model.errors import MdmfsError, PeerTimedOutError
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
            silent[name] = f"it refused {len(refused)} of {len(outcomes)} new shares"

    async with open_plain_nursery() as nursery:
        for name, deposit in given.items():
            nursery.start_soon(give, name, deposit)
    return Introduced([shipment.without_newcomers() for shipment in shipments if shipment.guid not in left], silent)


async def _give(hospital: Hospital, name: str, deposit: Deposit) -> list[Outcome]:
    """Wait until what was sent before has arrived, so that it does not come after; then give."""
    deadline = trio.current_time() + DEADLINE
    while hospital.store.read(lambda tx: tx.outbox.peek(name, limit=1)):
        if trio.current_time() >= deadline:
            message = "it has yet to take what was sent before"
            raise PeerTimedOutError(message)
        await trio.sleep(_POLL_SECONDS)
    await hospital.keystores.set_acls(name, deposit.acls, deadline=deadline)
    return await hospital.keystores.register(name, deposit.entries, deadline=deadline)
