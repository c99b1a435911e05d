"""Defining: collections of records, one below the other, made and altered while all else goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.access.decide import decide
from mdmfs.access.text import format_entry
from mdmfs.hospital.catalogue.rights import OWNERS
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.records import AttributeOfRecords, CollectionRecord
from mdmfs.hospital.metadata.attributes import NAMES_OF_IMAGES
from mdmfs.hospital.metadata.outgoing import send_collection
from mdmfs.hospital.store import Transaction
from mdmfs.model.collection import above, lies_within, lineage
from mdmfs.model.errors import ConfigurationError, NoSuchFileError, UnknownNameError
from mdmfs.model.identity import Dn, Fqan, Principal
from mdmfs.model.names import Lfn
from mdmfs.wire.definitions import MAX_COLLECTIONS, SEALED, fault_of
from mdmfs.wire.messages.metadata import AttributeEntry, DefineCollection
from mdmfs.wire.messages.records import Barred, DefinedRecords, DefineRecords

COLLECTIONS: Final = ".records"
"""The hidden directory of a project whose entries' ACLs are those of its collections: ``setfacl`` changes them."""
_READS: Final = (Right.READ | Right.TRAVERSE).value
_PASSES: Final = (*OWNERS, Entry(EntryKind.OTHER, "", Right.TRAVERSE.value))
"""Whoever may pass the project may pass the directory of its collections: each says who may read it."""
_SOMEBODY: Final = Dn.parse("/CN=nobody that is named anywhere")


async def define_records(hospital: Hospital, asked: DefineRecords) -> DefinedRecords:
    """Make or alter a collection; an ACL that is there stays, and a new one without readers has what is passed on.

    Raises ``ConfigurationError`` for what cannot be, ``UnknownNameError`` for a project that there is not.
    """
    project = project_of_records(hospital, asked.project)
    own = [AttributeOfRecords(one.name, one.type, one.column) for one in asked.attributes]
    entries = [AttributeEntry(one.name, one.type, one.group) for one in asked.attributes]
    wanted = DefineCollection(asked.project, asked.name, [], entries, {name: [] for name in asked.narrow})

    def act(tx: Transaction) -> list[Barred]:
        _refuse(tx, wanted, asked.key)
        lfn = _place(project, asked.name)
        if tx.records.collection(asked.project, asked.name) is None:
            _refuse_new(tx, lfn)
        tx.catalogue.make_directories(project / COLLECTIONS, acl=Acl(str(hospital.dn), _PASSES))
        readers = _acl(hospital, asked.readers, asked.groups)
        is_given = bool(asked.readers or asked.groups or not above(asked.name))
        inode = tx.catalogue.make_directories(lfn, acl=readers if is_given else None)
        groups = {
            name: tx.catalogue.make_directories(lfn / name, acl=_acl(hospital, dns, []))
            for name, dns in asked.narrow.items()
        }
        tx.records.define(CollectionRecord(asked.project, asked.name, str(lfn), own, asked.key))
        message = msgspec.structs.replace(
            wanted,
            acl_ids=[tx.acls.ids_above(inode)],
            groups={name: [tx.acls.ids_above(one)] for name, one in groups.items()},
        )
        send_collection(tx, message)
        return list(_barred(tx, lfn, project, asked, hospital.clock()))

    barred = await hospital.store.write(act)
    hospital.outbox.ring()
    return DefinedRecords(barred)


def whole_collection(tx: Transaction, project: str, name: str) -> CollectionRecord | None:
    """Give a collection with all that it has from above: attributes, and the key where it says none itself."""
    line = [tx.records.collection(project, one) for one in lineage(name)]
    known = [one for one in line if one is not None]
    if not known or known[-1].name != name:
        return None
    return msgspec.structs.replace(
        known[-1],
        attributes=[attribute for one in known for attribute in one.attributes],
        key=next((one.key for one in reversed(known) if one.key), []),
    )


def project_of_records(hospital: Hospital, name: str) -> Lfn:
    """Give the directory of a project; raises ``ConfigurationError`` and ``UnknownNameError``."""
    if not hospital.has_metadata:
        message = "this hospital keeps no records: its configuration has no [metadata]"
        raise ConfigurationError(message, what_to_do="add the table, and restart hospitald: docs/configuration.md")
    project = hospital.projects.get(name)
    if project is None or project.is_over(hospital.clock()):
        message = f"there is no project {name}, or its last day is past"
        raise UnknownNameError(message)
    return project.lfn


def _refuse(tx: Transaction, wanted: DefineCollection, key: list[str]) -> None:
    """Refuse what the metadata service would, and a key of what is not there, here or in a collection below."""
    there = [one for one in tx.records.all() if one.project == wanted.project]
    known = {one.name: {attribute.name: attribute.type for attribute in one.attributes} for one in there}
    reason = fault_of(wanted, known, NAMES_OF_IMAGES)
    if reason:
        raise ConfigurationError(reason)
    known[wanted.name] = {attribute.name: attribute.type for attribute in wanted.attributes}
    keys = {one.name: one.key for one in there if lies_within(one.name, wanted.name)} | {wanted.name: key}
    for collection, names in keys.items():
        kinds = {name: kind for one in lineage(collection) for name, kind in known[one].items()}
        for name in names:
            if kinds.get(name, SEALED[0]) in SEALED:
                message = f"{name} is part of the key of {collection} and would be no plain attribute of it"
                raise ConfigurationError(message)


def _refuse_new(tx: Transaction, lfn: Lfn) -> None:
    """Refuse one too many, and one whose directory is there already: its ACL may be anybody's."""
    if len(tx.records.all()) >= MAX_COLLECTIONS:
        message = f"there are {MAX_COLLECTIONS} collections, as many as a metadata service may have"
        raise ConfigurationError(message)
    try:
        tx.acls.ids_of(lfn)
    except NoSuchFileError:
        return
    message = f"there is a directory {lfn} already: a group of attributes has that name, or somebody made it"
    raise ConfigurationError(message, what_to_do="call the collection otherwise")


def _barred(tx: Transaction, lfn: Lfn, project: Lfn, asked: DefineRecords, now: float) -> Iterable[Barred]:
    """Name those who may read a collection, and by that name alone may not pass one above it."""
    passes = Right.TRAVERSE.value
    named = [(Entry(EntryKind.USER, dn, passes), Principal(Dn.parse(dn), (), now + 1)) for dn in asked.readers]
    named += [
        (Entry(EntryKind.GROUP, fqan, passes), Principal(_SOMEBODY, (Fqan.parse(fqan),), now + 1))
        for fqan in asked.groups
    ]
    place = lfn.parent
    while place != project / COLLECTIONS:
        found = tx.acls.find(tx.acls.ids_of(place)[0])
        for entry, principal in named:
            if found is None or not decide(principal, found.acl, Right.TRAVERSE, now).allowed:
                yield Barred(format_entry(entry), str(place))
        place = place.parent


def _place(project: Lfn, name: str) -> Lfn:
    place = project / COLLECTIONS
    for word in name.split("."):
        place = place / word
    return place


def _acl(hospital: Hospital, readers: list[str], groups: list[str]) -> Acl:
    """Let some read; who is let in here is let into what will be made below."""
    named = [Entry(EntryKind.USER, dn, _READS) for dn in dict.fromkeys(readers)]
    named += [Entry(EntryKind.GROUP, fqan, _READS) for fqan in dict.fromkeys(groups)]
    entries = (*OWNERS, *named)
    return Acl(str(hospital.dn), entries, entries)
