"""New keys of files: they are the files' own once the store says so, and some keystores may have them before.

So they are noted before a keystore is given any, in the outbox, sealed, in a queue that is sent to nobody. What a kill
leaves there is settled by who starts next: the files have the new keys, unless the old ones still open them. As a
keystore may take its shares long after whoever sent them gave up, a note goes only when that was so for a while.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.escrow import make_key
from mdmfs.hospital.keys.amends import Shipment, deposits, ship
from mdmfs.hospital.ledger.records import RENEWALS, OutboxItem
from mdmfs.hospital.store import Transaction
from mdmfs.model.names import Guid
from mdmfs.sharing.shamir import Share

MOST_LOST: Final = 2**16
"""Rotations of a key that a restored store may have lost; who claims more would use up all generations there are."""
AT_ONCE: Final = 16
"""Notes that are looked at together; there is mostly one at most."""


class Renewal(NamedTuple):
    """A new key of one file, which is the file's when ``adopt`` says so."""

    generation: int
    threshold: int
    check: bytes
    shipment: Shipment


def new_keys(
    tx: Transaction, hospital: Hospital, guids: Iterable[Guid], latest: Mapping[Guid, int] | None = None
) -> list[Renewal]:
    """Make new keys, of the next generation.

    ``latest`` are the generations that keystores hold: later ones than ours, where our store was restored, or one lies.
    What is noted counts, too: a keystore that does not answer may hold it, and takes no other key of its generation.
    """
    files = [file for guid in guids if (file := tx.catalogue.file(guid)) and file.state is not FileState.WITHDRAWN]
    held, sent = latest or {}, _noted_generations(tx)
    return [_new_key(hospital, file, _after(file, held.get(file.guid, 0), sent.get(file.guid, 0))) for file in files]


def adopt(
    tx: Transaction,
    hospital: Hospital,
    renewals: Sequence[Renewal],
    given: Collection[str] = (),
    note: int | None = None,
) -> list[Guid]:
    """Let the old keys open nothing new; gives the files that have another one now. Their note, if any, is dropped.

    Shares go to the keystores that were not ``given`` them. A file that is gone by now, or has a later key, stays so.
    """
    if note is not None:
        tx.outbox.drop(RENEWALS, [note])
    adopted: list[Guid] = []
    for generation, threshold, check, shipment in renewals:
        file = tx.catalogue.file(shipment.guid)
        if file is not None and file.state is not FileState.WITHDRAWN and file.generation < generation:
            renewed = msgspec.structs.replace(file, generation=generation, threshold=threshold, key_check=check)
            tx.catalogue.replace(renewed)
            adopted.append(file.guid)
    own = frozenset(adopted)
    ship(tx, hospital, [one.shipment.without(given) for one in renewals if one.shipment.guid in own])
    return adopted


def _after(file: FileRecord, *others: int) -> int:
    return 1 + max(file.generation, *(other for other in others if other <= file.generation + MOST_LOST))


def _new_key(hospital: Hospital, file: FileRecord, generation: int) -> Renewal:
    key = make_key(file.guid, hospital.keystores.names, hospital.threshold, generation)
    return Renewal(generation, hospital.threshold, key.check, Shipment(file.guid, key.shares))


class _Note(msgspec.Struct, frozen=True, array_like=True):
    """New keys, as they are noted."""

    keys: list[tuple[bytes, int, int, bytes]]
    """GUID, generation, threshold and check of each."""
    deposits: dict[str, bytes]
    """What each keystore is to get, sealed for it."""


def note(tx: Transaction, hospital: Hospital, renewals: Sequence[Renewal]) -> int:
    """Note new keys that no keystore has yet; gives the number by which ``adopt`` ends the note."""
    whole = deposits(tx, [one.shipment for one in renewals])
    sealed = {keystore: hospital.seal.seal(keystore, deposit) for keystore, deposit in whole.items()}
    keys = [(one.shipment.guid.octets, one.generation, one.threshold, one.check) for one in renewals]
    return tx.outbox.push(RENEWALS, RENEWALS, b"", msgspec.msgpack.encode(_Note(keys, sealed)))


def noted(tx: Transaction) -> list[OutboxItem]:
    """Give the notes that were neither adopted nor dropped."""
    return tx.outbox.peek(RENEWALS, limit=AT_ONCE)


def _noted_generations(tx: Transaction) -> dict[Guid, int]:
    keys = [key for item in noted(tx) for key in msgspec.msgpack.decode(item.payload, type=_Note).keys]
    return {Guid(guid): generation for guid, generation, *_ in sorted(keys)}


def read_note(hospital: Hospital, item: OutboxItem) -> list[Renewal]:
    """Give the new keys of a note; raises ``StoreError`` where it does not open."""
    told = msgspec.msgpack.decode(item.payload, type=_Note)
    shares: dict[bytes, dict[str, bytes]] = defaultdict(dict)
    for keystore, sealed in told.deposits.items():
        for entry in hospital.seal.open(keystore, sealed).entries:
            shares[Share.parse(entry.share).guid.octets][keystore] = entry.share
    return [
        Renewal(generation, threshold, check, Shipment(Guid(guid), shares[guid]))
        for guid, generation, threshold, check in told.keys
    ]
