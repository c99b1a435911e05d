"""Amends: what to send to keystores so that every share is there and right, or replaced; all by way of the outbox.

Shares lie sealed in the outbox until they have arrived, so a crash at any instant loses no key. Where a key is split
anew, keystores that hold no share of the present split get theirs first, and not by way of the outbox: only when they
have it do the others change over. So m holders, k of which make the key, and j newcomers serve readers at every instant
if m + j >= k + k' - 1 for the new threshold k': one replaced of three, or three that become five.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.escrow import Deposit
from mdmfs.hospital.keys.judge import Fault, Held, Verdict
from mdmfs.hospital.ledger.records import DEPOSIT, METADATA, RENEWALS
from mdmfs.hospital.metadata.withdrawal import withdraw_records_of
from mdmfs.hospital.store import Transaction
from mdmfs.model.names import Guid
from mdmfs.sharing.shamir import SECRET_SIZE, SPLIT_ID_SIZE, Share, another_share, split
from mdmfs.wire.messages.keystores import KeyEntry, VersionedAcl

DROPPED_AT_ONCE: Final = 100
REPAIRABLE = frozenset({Fault.MISSING, Fault.STALE, Fault.WRONG})


@dataclasses.dataclass(frozen=True, slots=True)
class Shipment:
    """New shares of one file, by keystore."""

    guid: Guid
    shares: Mapping[str, bytes] = dataclasses.field(repr=False)
    replaces: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    """The split id of the share that stands in its way, by keystore."""
    newcomers: frozenset[str] = frozenset()
    """Keystores that are to have theirs before any other."""

    def to_newcomers(self) -> Shipment:
        """Give what is to be sent first."""
        return self._among(self.newcomers)

    def without_newcomers(self) -> Shipment:
        """Give what is left to send when they have theirs."""
        return self._among(self.shares.keys() - self.newcomers)

    def to(self, name: str) -> Shipment:
        """Give what is for one keystore."""
        return self._among({name})

    def without(self, names: Collection[str]) -> Shipment:
        """Give what is for all but these keystores."""
        return self._among(self.shares.keys() - set(names))

    def _among(self, names: Collection[str]) -> Shipment:
        shares = {name: share for name, share in self.shares.items() if name in names}
        return dataclasses.replace(self, shares=shares, newcomers=frozenset())


def repair(names: Sequence[str], guid: Guid, verdict: Verdict, held: Mapping[str, Held]) -> Shipment | None:
    """Make the shares that are missing, stale or wrong anew, of the same split; None where nothing can be done.

    A keystore has the x that its place in the configuration gives, unless another holds that share.
    """
    honest = list(verdict.honest.values())
    if not honest:
        return None
    total, taken = honest[0].total, {share.x for share in honest}
    shares: dict[str, bytes] = {}
    for name, fault in verdict.faults.items():
        free = [x for x in (1 + names.index(name), *range(1, total + 1)) if x <= total and x not in taken]
        if fault in REPAIRABLE and free:
            taken.add(free[0])
            shares[name] = another_share(honest, free[0]).encode()
    return Shipment(guid, shares, _split_ids(held)) if shares else None


def resplit(names: Sequence[str], threshold: int, verdict: Verdict, held: Mapping[str, Held]) -> Shipment | None:
    """Split a key anew for these keystores; None where no key was found."""
    if not verdict.secret:
        return None
    (first, *_) = verdict.honest.values()
    shares = _split(verdict.secret, first, names, threshold)
    # one that holds nothing may have a share of the present split on its way
    replaces = dict.fromkeys(names, first.split_id) | _split_ids(held)
    newcomers = frozenset(names) - frozenset(verdict.honest)
    return Shipment(first.guid, dict(zip(names, shares, strict=True)), replaces, newcomers)


def _split(secret: bytes, first: Share, names: Sequence[str], threshold: int) -> list[bytes]:
    shares = split(
        secret,
        guid=first.guid,
        generation=first.generation,
        threshold=threshold,
        total=len(names),
        split_id=secrets.token_bytes(SPLIT_ID_SIZE),
        coefficients=secrets.token_bytes((threshold - 1) * SECRET_SIZE),
    )
    return [share.encode() for share in shares]


def _split_ids(held: Mapping[str, Held]) -> dict[str, bytes]:
    return {name: one.share.split_id for name, one in held.items() if one.share is not None}


def ship(tx: Transaction, hospital: Hospital, shipments: Iterable[Shipment]) -> None:
    """Put shares into the outbox, with the ACLs that they go by."""
    for keystore, deposit in deposits(tx, shipments).items():
        tx.outbox.push(keystore, DEPOSIT, b"", hospital.seal.seal(keystore, deposit))


def deposits(tx: Transaction, shipments: Iterable[Shipment]) -> dict[str, Deposit]:
    """Say what each keystore is to get."""
    entries: dict[str, list[KeyEntry]] = defaultdict(list)
    acls: dict[str, set[bytes]] = defaultdict(set)
    for shipment in shipments:
        aliases = tx.acls.chains_of(shipment.guid)
        for keystore, share in shipment.shares.items():
            entries[keystore].append(KeyEntry(share, aliases, shipment.replaces.get(keystore, b"")))
            acls[keystore].update(acl_id for chain in aliases for acl_id in chain)
    return {keystore: Deposit(_versions(tx, acls[keystore]), batch) for keystore, batch in entries.items()}


def _versions(tx: Transaction, ids: Iterable[bytes]) -> list[VersionedAcl]:
    known = [found for acl_id in sorted(ids) if (found := tx.acls.find(acl_id))]
    return [VersionedAcl(found.id, found.version, found.acl.encode()) for found in known]


def drop_for_removed(tx: Transaction, hospital: Hospital) -> int:
    """Drop some of what waits for keystores that are configured no more; gives how many items went.

    For when all keys are split anew: shares of earlier splits combine with none of those that are there now.
    """
    present = {*hospital.keystores.names, METADATA, RENEWALS}
    for name in tx.outbox.destinations():
        if name not in present:
            numbers = [item.number for item in tx.outbox.peek(name, limit=DROPPED_AT_ONCE)]
            return tx.outbox.drop(name, numbers)
    return 0


def adopt_threshold(tx: Transaction, hospital: Hospital, guids: Iterable[Guid]) -> None:
    """Say how many shares make a key from now on, of files that were split anew."""
    for guid in guids:
        file = tx.catalogue.file(guid)
        if file is not None and file.threshold != hospital.threshold:
            tx.catalogue.replace(msgspec.structs.replace(file, threshold=hospital.threshold))


def destroy(tx: Transaction, guids: Iterable[Guid]) -> int:
    """Take files away, and tell every keystore to destroy its share, for ever; gives the epoch."""
    gone = list(guids)
    tx.catalogue.withdraw(gone)
    for guid in gone:
        tx.epochs.bury(guid)
    withdraw_records_of(tx, gone)
    return tx.epochs.latest().number


def withdraw(tx: Transaction, files: Sequence[FileRecord]) -> tuple[int, list[FileRecord]]:
    """Destroy files because their images are to go, and give the epoch, unless more files are of the same images.

    Those are given then, and nothing is done: they were made under other rules and would take the names over, so all of
    them go at once or none. Refusals of the images are forgotten: what was refused is looked at again under other
    rules, and what was withdrawn is not. A file that had gone before names no image: its successor is another one's to
    take away.
    """
    alive = {file.guid for file in files if file.state is not FileState.WITHDRAWN}
    instances = [instance for guid in alive if (instance := tx.uidmap.resolve(guid))]
    of_images = {guid for it in instances for guid in tx.uidmap.guids_of(it.project, it.instance_uid)}
    others = [file for guid in of_images - alive if (file := tx.catalogue.file(guid))]
    left = [file for file in others if file.state is not FileState.WITHDRAWN]
    if left:
        return 0, left
    for instance in instances:
        tx.quarantine.remove(instance.series, instance.instance_uid)
    return destroy(tx, [file.guid for file in files]), []
