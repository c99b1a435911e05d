"""Changing ACLs: all that one ``setfacl`` names in one transaction, by those who may administer each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.access.edit import Edit, edited, endless, without_ended
from mdmfs.access.text import format_acl, format_entry
from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.catalogue.rights import OWNERS
from mdmfs.hospital.deid.policy import Heads
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.sight import Sight
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import (
    AccessDeniedError,
    BusyError,
    MalformedNameError,
    MdmfsError,
    NoSuchFileError,
    NotADirectoryFileError,
)
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import NodeKind

MAX_ACLS: Final = 100_000
"""In one change."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants changed."""

    lfn: Lfn
    edits: Sequence[Edit]
    files: bool = False
    """The ACL that the files directly in the directory share, in place of its own."""
    recursive: bool = False
    """Both, of the directory and of all below it."""
    keeps_mask: bool = False
    expected_version: int = 0
    """Do nothing unless the ACL (one only) has this version; 0: whatever it has."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One ACL, as it is or as it would be."""

    lfn: Lfn
    is_of_files: bool
    acl_id: bytes
    version: int
    acl: Acl
    guids: tuple[Guid, ...] = ()
    """Of one file: it, and those that had its name before, or are about to take it over; they open by their GUIDs."""

    @property
    def has_defaults(self) -> bool:
        """Whether its default entries mean anything: nothing is made below a file."""
        return not (self.is_of_files or self.guids)


def targets(tx: Transaction, principal: Principal, hospital: Hospital, wish: Wish) -> list[Target]:
    """Find what a wish changes, and what it would say afterwards; raises what refuses it."""
    found = [target for target in _named(tx, principal, hospital, wish) if target.acl_id]
    if not found:
        message = f"{wish.lfn} has no files yet: its default entries are what they will begin with"
        raise NoSuchFileError(message)
    if wish.expected_version and [target.version for target in found] != [wish.expected_version]:
        message = f"the ACL of {wish.lfn} has been changed meanwhile: read it again with getfacl"
        raise BusyError(message)
    changed = []
    for target in found:
        acl = edited(target.acl, wish.edits, keeps_mask=wish.keeps_mask)
        _refuse_everybody(hospital, target.lfn, acl)
        if not target.has_defaults:
            acl = Acl(acl.owner, acl.entries, target.acl.defaults)
        changed.append(dataclasses.replace(target, acl=acl))
    return changed


def _refuse_everybody(hospital: Hospital, lfn: Lfn, acl: Acl) -> None:
    """Keep faces with those who are named: an agreement is signed by a group, never by whoever has a credential."""
    is_read_by_all = any(
        entry.kind is EntryKind.OTHER and entry.rights & Right.READ.value for entry in (*acl.entries, *acl.defaults)
    )
    if is_read_by_all and any(
        project.policy.heads is Heads.AGREEMENT and lfn.parts[: len(project.lfn.parts)] == project.lfn.parts
        for project in hospital.projects.values()
    ):
        message = f"{lfn} may show faces, by an agreement with those who signed it: name users or groups, not other::r"
        raise AccessDeniedError(message)


def change(tx: Transaction, principal: Principal, hospital: Hospital, wish: Wish) -> list[Target]:
    """Do what a wish says, all of it; gives the ACLs as they are now."""
    now = [_set(tx, target) for target in targets(tx, principal, hospital, wish)]
    settle_top(tx, hospital)
    return now


def end_entries(tx: Transaction, hospital: Hospital, now: float) -> int:
    """Take out of every ACL what is past its end, so that keystores and mounts hear of it; tells how many ACLs.

    Everybody who decides leaves such an entry out by himself. What this brings is the word to those who hold pages.
    """
    count = 0
    for lfn in tx.catalogue.directories_below(Lfn(())):
        for is_of_files, acl_id in enumerate(tx.acls.ids_of(lfn)):
            found = tx.acls.find(acl_id)
            if found is not None and (left := without_ended(found.acl, now)) != found.acl:
                tx.acls.set(lfn, left, files=bool(is_of_files))
                count += 1
        for target in _apart(tx, lfn):
            if (left := without_ended(target.acl, now)) != target.acl:
                _set(tx, dataclasses.replace(target, acl=left))
                count += 1
    settle_top(tx, hospital)
    return count


def settle_top(tx: Transaction, hospital: Hospital) -> None:
    """Let those pass the hospital's own directory who may enter one of its projects, so that nobody else learns it."""
    top = Lfn((hospital.name,))
    passable = Acl(str(hospital.dn), (*OWNERS, *_who_may_pass(tx, hospital)))
    now = tx.acls.find(tx.acls.ids_of(top)[0])
    if now is None or now.acl.encode() != passable.encode():
        tx.acls.set(top, passable)


def before_by_id(tx: Transaction, since: int, until: int) -> dict[bytes, Acl]:
    """Give what each ACL that was set by these changes of the feed said before the first of them, by its id.

    Its entries have no ends: who had a right until one ended has lost it too.
    """
    found: dict[bytes, Acl] = {}
    for one in tx.feed.acls_before(since, until):
        record = tx.catalogue.directory(one.directory)
        if record is not None and not one.file:
            found.setdefault(record.file_acl if one.is_of_files else record.acl, endless(one.acl))
    return found


async def record_change(
    principal: Principal, hospital: Hospital, wish: Wish, address: str, outcome: str, count: int = 1
) -> None:
    """Write a change or its refusal down; raises ``StoreError``, and then it is not done."""
    await hospital.audit.record(
        AuditRecord(
            time=hospital.clock(),
            event=Event.REFUSAL if outcome else Event.ACL,
            dn=str(principal.dn),
            fqans=tuple(map(str, principal.fqans)),
            address=address,
            path=str(wish.lfn),
            outcome=outcome or "; ".join(map(_told, wish.edits)),
            count=count,
        )
    )


def _told(edit: Edit) -> str:
    entries = [*map(format_entry, edit.entries), *(f"default:{format_entry(entry)}" for entry in edit.defaults)]
    return f"{edit.kind} {','.join(entries)}".strip()


def _set(tx: Transaction, target: Target) -> Target:
    now = tx.acls.find(target.acl_id)
    if now is not None and now.acl.encode() == target.acl.encode():
        return target
    if not target.guids:
        changed = tx.acls.set(target.lfn, target.acl, files=target.is_of_files)
        return dataclasses.replace(target, version=changed.version)
    set_already: dict[bytes, int] = {}
    for guid in target.guids:  # those that share one ACL of their own are set once
        file = tx.catalogue.file(guid)
        if file is not None and file.acl not in set_already:
            changed = tx.acls.set_of_file(guid, target.acl)
            set_already[changed.id] = changed.version
    return dataclasses.replace(target, version=next(iter(set_already.values()), target.version))


def _named(tx: Transaction, principal: Principal, hospital: Hospital, wish: Wish) -> Iterator[Target]:
    sight = Sight(tx, principal, hospital.clock())
    is_own = principal.dn == hospital.dn
    _refuse_unseen(tx, sight, wish.lfn, is_own=is_own)
    if len(wish.lfn.parts) < min((len(project.lfn.parts) for project in hospital.projects.values()), default=2):
        message = f"{wish.lfn} lies above the projects: its ACL follows theirs"
        raise AccessDeniedError(message)
    node = tx.catalogue.look_up(wish.lfn)
    if node is not None and node.kind is NodeKind.FILE:
        _refuse_what_is_of_directories(wish)
        target = target_of_file(tx, wish.lfn, Guid(node.guid))
        if target is None:
            raise NoSuchFileError(_unknown(wish.lfn))
        if not is_own and not sight.allows(target.acl_id, Right.ADMINISTER):
            raise _not_administered(sight, wish.lfn, wish.lfn)
        yield target
        return
    directories = tx.catalogue.directories_below(wish.lfn) if wish.recursive else [wish.lfn]
    if len(directories) > MAX_ACLS // 2:
        message = f"there are more than {MAX_ACLS // 2} directories below {wish.lfn}: change parts of it"
        raise MalformedNameError(message)
    for lfn in directories:
        for target in _of_directory(tx, lfn, wish):
            if not is_own and not _administers(tx, sight, lfn, target.acl_id):
                raise _not_administered(sight, wish.lfn, lfn)
            yield target


def _administers(tx: Transaction, sight: Sight, lfn: Lfn, acl_id: bytes) -> bool:
    """Whether the principal may change an ACL: by itself, or, of a collection, by that of a directory it was made in.

    Else whoever makes a collection in a project would take it out of the hands of the project's owner.
    """
    if sight.allows(acl_id, Right.ADMINISTER):
        return True
    node = tx.catalogue.look_up(lfn)
    record = None if node is None else tx.catalogue.directory(node.inode)
    while record is not None and record.maker:
        above = tx.catalogue.directory(record.parent)
        if above is None or not sight.may_pass(above.inode):
            return False
        if sight.allows(above.acl, Right.ADMINISTER):
            return True
        record = above
    return False


def _of_directory(tx: Transaction, lfn: Lfn, wish: Wish) -> Iterator[Target]:
    """Give the ACLs of a directory, of its files, and of single files, as far as they are meant."""
    own, files = tx.acls.ids_of(lfn)
    for is_of_files, acl_id in enumerate((own, files)):
        found = tx.acls.find(acl_id)
        if found is not None and (wish.recursive or wish.files == bool(is_of_files)):
            yield Target(lfn, bool(is_of_files), acl_id, found.version, found.acl)
    if wish.recursive:
        yield from _apart(tx, lfn)


def target_of_file(tx: Transaction, lfn: Lfn, guid: Guid) -> Target | None:
    """Give the ACL that one file goes by: its own, or the one that it shares with its directory's files."""
    file = tx.catalogue.file(guid)
    found = None if file is None else tx.acls.find(file.acl)
    if file is None or found is None:
        return None
    instance = tx.uidmap.resolve(guid)
    others = [] if instance is None else tx.uidmap.guids_of(file.project, instance.instance_uid)
    same = [one for one in others if one != guid and (other := tx.catalogue.file(one)) and other.places == file.places]
    return Target(lfn, False, found.id, found.version, found.acl, (guid, *same))  # noqa: FBT003 a field


def _apart(tx: Transaction, directory: Lfn) -> Iterator[Target]:
    """Give each ACL that belongs to one file directly in a directory, once."""
    by_acl: dict[bytes, list[FileRecord]] = {}
    for file in tx.acls.files_apart(directory):
        by_acl.setdefault(file.acl, []).append(file)
    for acl_id, files in by_acl.items():
        found = tx.acls.find(acl_id)
        if found is not None:
            lfn = directory / files[0].places[0].name
            yield Target(lfn, False, acl_id, found.version, found.acl, tuple(one.guid for one in files))  # noqa: FBT003


def _refuse_what_is_of_directories(wish: Wish) -> None:
    """Refuse for a file, which whoever asks may know, what only directories have."""
    if wish.files:
        message = f"{wish.lfn} is a file: --files means what the files of a directory share, so name the directory"
        raise NotADirectoryFileError(message)
    if any(edit.defaults for edit in wish.edits):
        message = f"{wish.lfn} is a file: only directories have default entries"
        raise NotADirectoryFileError(message)


def _refuse_unseen(tx: Transaction, sight: Sight, lfn: Lfn, *, is_own: bool) -> None:
    """Refuse a name that the principal may not know as one that is not there."""
    unknown = NoSuchFileError(_unknown(lfn))
    node = tx.catalogue.look_up(lfn)
    if not is_own and (node is None or not (sight.may_traverse(lfn.parent) or not lfn.parts)):
        raise unknown
    if node is not None and node.kind is NodeKind.FILE:
        return
    own = tx.acls.ids_of(lfn)[0]
    if not is_own and not sight.passes(own) and not _administers(tx, sight, lfn, own):
        raise unknown


def _unknown(lfn: Lfn) -> str:
    return f"there is no {lfn}, or it is not for this identity"


def _not_administered(sight: Sight, asked: Lfn, lfn: Lfn) -> MdmfsError:
    known = lfn if lfn == asked or sight.may_traverse(lfn) else asked
    below = "" if known == lfn else "something below "
    return AccessDeniedError(f"changing the ACL of {below}{known} takes the right a, which this identity has not")


def _who_may_pass(tx: Transaction, hospital: Hospital) -> tuple[Entry, ...]:
    """Let every user and group through that one of the projects lets in now, and no one else."""
    named: set[tuple[EntryKind, str]] = set()
    for project in hospital.projects.values():
        found = tx.acls.find(tx.acls.ids_of(project.lfn)[0])
        if found is not None:
            named |= {(one.kind, one.qualifier) for one in found.acl.entries if one.qualifier and one.rights}
            named.add((EntryKind.USER, found.acl.owner))
            named |= {(entry.kind, "") for entry in found.acl.entries if entry.kind is EntryKind.OTHER and entry.rights}
    return tuple(Entry(kind, qualifier, Right.TRAVERSE.value) for kind, qualifier in sorted(named))


def texts(found: Iterable[Target]) -> list[str]:
    """Write ACLs as ``getfacl`` does."""
    return [
        f"# file: {target.lfn}{'/*' if target.is_of_files else ''}\n# owner: {target.acl.owner}\n"
        f"# version: {target.version}\n"
        f"{format_acl(target.acl if target.has_defaults else msgspec.structs.replace(target.acl, defaults=()))}"
        for target in found
    ]
