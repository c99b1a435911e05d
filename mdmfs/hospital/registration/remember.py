"""What a transaction of registration keeps of a series: names, ACLs, UIDs and shares of its images, and refusals."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from mdmfs.hospital.catalogue.records import FileState, NewFile, Rendition
from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.escrow import FIRST_GENERATION, Deposit, NewKey, key_entries
from mdmfs.hospital.kept.known import Origin
from mdmfs.hospital.ledger.records import DEPOSIT, QuarantineRecord, SeriesRecord
from mdmfs.hospital.metadata.attributes import Attributes
from mdmfs.hospital.metadata.outgoing import send_images
from mdmfs.hospital.registration.naming import instance_lfn
from mdmfs.hospital.registration.settled import is_withdrawn
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import InstanceRecord
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.keystores import VersionedAcl

BEING_FORGOTTEN: Final = "who its subject was is just being forgotten"


class Measured(NamedTuple):
    """One instance, measured, with its key split; not yet remembered."""

    guid: Guid
    number: str
    """Instance Number."""
    instance: InstanceRecord
    rendition: Rendition
    modified: float
    """By the Study Date that the rendition has."""
    key: NewKey
    attributes: Attributes
    """Of its published header."""
    origin: Origin | None
    """By what its header is known when it arrives again."""


def remember(
    tx: Transaction, series: SeriesRecord, batch: Sequence[Measured], hospital: Hospital
) -> tuple[Lfn, list[Measured]]:
    """Remember a batch, but for what was withdrawn while it was on its way; gives the directory and the rest."""
    batch = [item for item in batch if not is_withdrawn(tx, series.key, item.instance.instance_uid)]
    tx.series.put(series)
    if not batch:
        return series.lfn, batch
    tx.catalogue.make_directories(series.lfn)
    aliases = {item.guid: _remember_one(tx, series, item, hospital.threshold) for item in batch}
    known = {acl_id for chains in aliases.values() for chain in chains for acl_id in chain}
    acls = [versioned for acl_id in sorted(known) if (versioned := _versioned(tx, acl_id))]
    keys = [item.key for item in batch]
    for keystore in hospital.keystores.names:
        deposit = Deposit(acls, key_entries(keys, keystore, aliases))
        tx.outbox.push(keystore, DEPOSIT, series.key.octets(), hospital.seal.seal(keystore, deposit))
    if hospital.has_metadata:
        send_images(tx, series.lfn, {item.guid: item.attributes for item in batch})
    return series.lfn, batch


def remember_refusal(tx: Transaction, record: QuarantineRecord) -> None:
    """Keep why an instance is refused; what is another patient's now stays held back until he is the one again."""
    before = tx.quarantine.get(record.series, record.instance_uid)
    if before is not None and before.reason == Reason.MOVED_PATIENT and record.reason == Reason.OTHER_PATIENT:
        record = msgspec.structs.replace(record, reason=before.reason)
    if not is_withdrawn(tx, record.series, record.instance_uid):
        tx.quarantine.put(record)


def _remember_one(tx: Transaction, series: SeriesRecord, item: Measured, threshold: int) -> list[list[bytes]]:
    lfn, takes_over, before = _name(tx, series, item)
    file = NewFile(
        guid=item.guid,
        project=series.project,
        rendition=item.rendition,
        threshold=threshold,
        modified=item.modified,
        generation=FIRST_GENERATION,
        key_check=item.key.check,
    )
    tx.catalogue.add_file(lfn, file, takes_over=takes_over, like=before)
    tx.uidmap.tie(item.guid, item.instance)
    tx.quarantine.remove(series.key, item.instance.instance_uid)
    return tx.acls.chains_of(item.guid)


def _name(tx: Transaction, series: SeriesRecord, item: Measured) -> tuple[Lfn, Guid | None, Guid | None]:
    """Find the name of an instance: the one that it had, or a new one; whom to take it over from; whose it was."""
    for guid in tx.uidmap.guids_of(series.project, item.instance.instance_uid):
        file = tx.catalogue.file(guid)
        if file is None or not file.places:
            continue
        lfn = series.lfn / file.places[0].name
        if file.state is FileState.VISIBLE:
            return lfn, guid, guid
        if file.state in {FileState.PENDING, FileState.QUARANTINED}:  # nobody sees it, and nobody shall
            tx.catalogue.withdraw([guid])
            tx.epochs.bury(guid)
            if tx.catalogue.holder(lfn) is None:
                return lfn, None, guid
    is_taken = functools.partial(_is_taken, tx)
    return instance_lfn(series.lfn, item.number, item.guid, is_taken=is_taken), None, None


def _is_taken(tx: Transaction, lfn: Lfn) -> bool:
    return tx.catalogue.holder(lfn) is not None


def _versioned(tx: Transaction, acl_id: bytes) -> VersionedAcl | None:
    found = tx.acls.find(acl_id)
    return None if found is None else VersionedAcl(found.id, found.version, found.acl.encode())
