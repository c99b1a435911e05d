"""Settling: what becomes of new keys that were noted, and whose rotation was broken off."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

import structlog
import trio

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys import renewals
from mdmfs.hospital.keys.holders import ask_holders
from mdmfs.hospital.keys.judge import open_with
from mdmfs.hospital.ledger.records import OutboxItem
from mdmfs.model.errors import BusyError, MdmfsError
from mdmfs.model.names import Guid

log = structlog.get_logger()

LATE: Final = 60.0
"""Seconds in which a keystore may yet take new keys that were on their way when a rotation was broken off."""


class Settled(NamedTuple):
    """What became of a note."""

    changed: list[Guid]
    """Files that have their new key since."""
    is_whole: bool
    """Whether all of its files have it."""


async def adopt(
    hospital: Hospital, new: Sequence[renewals.Renewal], given: Collection[str] = (), note: int | None = None
) -> list[Guid]:
    """Make new keys the files' own, see ``renewals.adopt``; gives the files that have another one now."""
    changed = await hospital.store.write(lambda tx: renewals.adopt(tx, hospital, new, given, note))
    tell_of_change(hospital, changed)
    return changed


def tell_of_change(hospital: Hospital, guids: Iterable[Guid]) -> None:
    """Let what is sealed under old keys go, and wake who tells keystores and mounts."""
    for guid in guids:
        hospital.discard(guid)
    hospital.outbox.ring()
    hospital.feed.bell.ring()


async def settle(
    hospital: Hospital, note: int, new: Sequence[renewals.Renewal], *, is_certain: bool, silent: Collection[str] = ()
) -> Settled:
    """Make keys the files' own that were noted, but where the old ones still open them.

    A keystore may have taken them and could not say so; those that are known to be ``silent`` are not asked. The note
    goes with that, or where it ``is_certain`` that none is on its way. Raises ``BusyError`` where fewer keystores
    answer than make a key: then the note stays.
    """
    found = hospital.store.read(lambda tx: [tx.catalogue.file(one.shipment.guid) for one in new])
    files = [file for file in found if file is not None and file.state is not FileState.WITHDRAWN]
    names = [name for name in hospital.keystores.names if name not in silent]
    answers = (await ask_holders(hospital, [file.guid for file in files], names)).answers
    if len(answers) < hospital.threshold:
        message = f"only {len(answers)} of the {hospital.threshold} keystores that make a key tell what they hold"
        raise BusyError(message, what_to_do="see to the keystores; it is looked at again within ten minutes")
    left = open_with(files, answers)
    closed = [one for one in new if one.shipment.guid not in left]
    return Settled(await adopt(hospital, closed, note=note if is_certain or not left else None), is_whole=not left)


class Settling:
    """The notes of a hospital, and since when it has looked at them."""

    def __init__(self, hospital: Hospital) -> None:
        """Look at none yet."""
        self._hospital = hospital
        self._since: dict[int, float] = {}
        """By the number of a note: when it was looked at first, by trio's clock."""

    async def go_on(self) -> bool:
        """Look at each note; False where keystores have yet to say what they have, or may take new keys yet."""
        is_settled = True
        for item in self._hospital.store.read(renewals.noted):
            try:
                is_settled &= await self._go_on_with(item)
            except MdmfsError as error:
                log.warning("a rotation that was broken off is not settled yet", reason=error.told_here)
                is_settled = False
        return is_settled

    async def _go_on_with(self, item: OutboxItem) -> bool:
        note, new, now = item.number, renewals.read_note(self._hospital, item), trio.current_time()
        is_certain = now >= self._since.setdefault(note, now) + LATE
        settled = await settle(self._hospital, note, new, is_certain=is_certain)
        if not (settled.is_whole or is_certain):
            return False
        self._since.pop(note)
        log.warning("a rotation that was broken off is settled", files=len(new))
        return True
