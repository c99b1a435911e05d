"""Outgoing: what the metadata service is to be told lies in the outbox, in the transaction that makes it true."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.ledger.records import METADATA, SeriesRecord
from mdmfs.hospital.metadata.attributes import Attributes, attributes_of_path
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.keystores import VersionedAcl
from mdmfs.wire.messages.metadata import (
    DefineCollection,
    ImageEntry,
    Parcel,
    PutImages,
    PutRecords,
    SeriesEntry,
    ShowSeries,
)


class Wrapped(msgspec.Struct, frozen=True, array_like=True):
    """One message, and the ACLs that it speaks of, which are told before it."""

    acls: list[VersionedAcl]
    message: msgspec.Raw


def send_images(tx: Transaction, series: Lfn, images: Mapping[Guid, Attributes]) -> None:
    """Send the attributes of images whose files are registered; nobody finds them before ``send_shown``."""
    files = {guid: file for guid in images if (file := tx.catalogue.file(guid)) is not None}
    chains = {guid: tx.acls.chains_of(guid) for guid in files}
    if not files:
        return
    first = next(iter(files))
    entry = SeriesEntry(str(series), chains[first], {**images[first].series, **attributes_of_path(series)})
    entries = [_entry(file, chains[guid], images[guid]) for guid, file in files.items()]
    _send(tx, Parcel.IMAGES, PutImages(entry, entries), [one for chain in chains.values() for one in chain])


def send_shown(tx: Transaction, series: SeriesRecord, *, is_visible: bool = True) -> None:
    """Let a series be found from now on, without those of its images that were put away; or no longer."""
    hidden = _put_away(tx, series.key) if is_visible else []
    _send(tx, Parcel.SHOW, ShowSeries(str(series.lfn), is_visible, hidden), [])


def _put_away(tx: Transaction, key: SeriesKey) -> list[bytes]:
    """List the files of a series that had names, and have none because their instances are quarantined."""
    instances = [record.instance_uid for record in tx.quarantine.of_series(key)]
    guids = [guid for instance_uid in instances for guid in tx.uidmap.guids_of(key.project, instance_uid)]
    files = [tx.catalogue.file(guid) for guid in guids]
    return [file.guid.octets for file in files if file is not None and file.state is FileState.QUARANTINED]


def send_collection(tx: Transaction, message: DefineCollection) -> None:
    """Send the schema of a collection of records."""
    _send(tx, Parcel.COLLECTION, message, [*message.acl_ids, *(one for ids in message.groups.values() for one in ids)])


def send_records(tx: Transaction, message: PutRecords) -> None:
    """Send records."""
    _send(tx, Parcel.RECORDS, message, [])


def versions(tx: Transaction, acl_ids: Iterable[bytes]) -> list[VersionedAcl]:
    """Give what ACLs say now."""
    found = [tx.acls.find(acl_id) for acl_id in sorted(set(acl_ids))]
    return [VersionedAcl(one.id, one.version, one.acl.encode()) for one in found if one is not None]


def _send(tx: Transaction, kind: Parcel, message: msgspec.Struct, chains: Sequence[Sequence[bytes]]) -> None:
    acls = versions(tx, (acl_id for chain in chains for acl_id in chain))
    wrapped = Wrapped(acls, msgspec.Raw(msgspec.msgpack.encode(message)))
    tx.outbox.push(METADATA, kind.value, b"", msgspec.msgpack.encode(wrapped))


def _entry(file: FileRecord, chains: list[list[bytes]], attributes: Attributes) -> ImageEntry:
    return ImageEntry(
        guid=file.guid.octets,
        name=file.places[0].name,
        inode=file.inode,
        size=file.rendition.size,
        sha256=file.rendition.sha256,
        policy=file.rendition.policy,
        acl_ids=chains,
        attributes=dict(attributes.image),
    )
