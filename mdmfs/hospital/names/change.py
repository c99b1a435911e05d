"""Whether a principal may change a name, and the change: one transaction, done once however often it is asked for."""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.hospital.catalogue.records import DirectoryRecord, Done
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.projects import Project
from mdmfs.hospital.release.decision import acl_of
from mdmfs.hospital.sight import Sight
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import (
    AccessDeniedError,
    MalformedMessageError,
    NoSuchFileError,
    QuotaError,
    ReadOnlyError,
    RefusedNameError,
)
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.wire.messages.names import MAX_COMMENT_BYTES, TOKEN_SIZE, ChangedName, ChangeName, NameChange

MAX_MADE: Final = 250_000
"""Collections and aliases of one principal at one hospital."""
MAX_TARGET_BYTES: Final = 3500
"""With the way up to the root before it, it is a path that programs can use."""
RESERVED: Final = frozenset({".find", ".snapshots", ".records"})
"""What a mount shows under these names is its own; the last holds the ACLs of a project's collections of records."""
OF_SUBJECTS: Final = "sub-"
"""So the directories begin that registration makes in a project's."""
_OWNERS: Final = (Right.READ | Right.WRITE | Right.TRAVERSE | Right.ADMINISTER).value
_WRITES: Final = frozenset({NameChange.COLLECTION, NameChange.ALIAS, NameChange.RENAME, NameChange.COMMENT})
"""What says something new; what takes something away goes on after a project's end."""


class Wish(NamedTuple):
    """A change that somebody wants, read."""

    kind: NameChange
    lfn: Lfn
    other: Lfn | None
    text: str
    may_replace: bool
    token: bytes
    since: int

    @classmethod
    def parse(cls, asked: ChangeName) -> Wish:
        """Read a message; raises ``MalformedNameError``, ``RefusedNameError``, ``MalformedMessageError``."""
        if len(asked.token) != TOKEN_SIZE:
            message = f"a token has {TOKEN_SIZE} bytes"
            raise MalformedMessageError(message)
        other = Lfn.parse(asked.other) if asked.kind in {NameChange.ALIAS, NameChange.RENAME} else None
        if asked.kind is NameChange.ALIAS and len(asked.other.encode()) > MAX_TARGET_BYTES:
            message = f"an alias leads to a name of {MAX_TARGET_BYTES} bytes at most"
            raise RefusedNameError(message)
        _refuse_comment(asked.text)
        return cls(asked.kind, Lfn.parse(asked.lfn), other, asked.text, asked.may_replace, asked.token, asked.since)

    @property
    def told(self) -> str:
        """What the audit log says of it; the words of a comment are not in it."""
        match self.kind:
            case NameChange.ALIAS | NameChange.RENAME:
                return f"{self.kind}: {self.other}"
            case NameChange.COMMENT:
                return "comment" if self.text else "no comment"
            case _:
                return self.kind.value

    @property
    def made(self) -> Lfn | None:
        """The name that something has afterwards that it had not; None where only something went."""
        if self.kind is NameChange.RENAME:
            return self.other
        return self.lfn if self.kind in _WRITES else None

    @property
    def directories(self) -> list[Lfn]:
        """Those in which names come and go."""
        moved = [self.other.parent] if self.kind is NameChange.RENAME and self.other is not None else []
        return [self.lfn.parent, *moved]


def done_already(tx: Transaction, principal: Principal, wish: Wish) -> ChangedName | None:
    """Give the answer to a change that was made when it was asked for before."""
    done = tx.names.done(str(principal.dn), wish.token)
    return None if done is None else _answer(tx, done, is_only_change=False)


def check(tx: Transaction, principal: Principal, hospital: Hospital, wish: Wish) -> None:
    """Raise what refuses a change: ``NoSuchFileError``, ``AccessDeniedError``, ``ReadOnlyError``, and others."""
    sight = Sight(tx, principal, hospital.clock())
    is_own = principal.dn == hospital.dn
    project = _project_of(hospital, wish.lfn)
    if wish.kind in _WRITES and project.is_over(hospital.clock()):
        message = f"the project {project.name} has ended: nothing new is kept of it"
        raise AccessDeniedError(message)
    if wish.kind is NameChange.COMMENT:
        _refuse_commenting(tx, sight, wish.lfn, is_own=is_own)
        return
    _refuse_changing(tx, sight, wish.lfn, project, is_own=is_own)
    node = tx.catalogue.look_up(wish.lfn)
    if node is not None and node.kind is NodeKind.DIRECTORY and not (is_own or sight.may_pass(node.inode)):
        raise _unknown(wish.lfn)
    if wish.kind is NameChange.RENAME and wish.other is not None:
        project = _project_of(hospital, wish.other)
        _refuse_changing(tx, sight, wish.other, project, is_own=is_own)
    if wish.made is not None:
        _refuse_name(wish.made, project)
    is_new = wish.kind in {NameChange.COLLECTION, NameChange.ALIAS}
    if is_new and tx.names.made_by(str(principal.dn)) >= MAX_MADE:
        message = f"a principal has {MAX_MADE} collections and aliases at most: remove some"
        raise QuotaError(message)


def change(tx: Transaction, principal: Principal, hospital: Hospital, wish: Wish) -> ChangedName:
    """Do what a wish says, unless it is done; decides again."""
    before = done_already(tx, principal, wish)
    if before is not None:
        return before
    check(tx, principal, hospital, wish)
    now, maker, names = hospital.clock(), str(principal.dn), tx.names
    nodes = [tx.catalogue.look_up(lfn) for lfn in wish.directories]
    match wish:
        case Wish(NameChange.COLLECTION, lfn):
            version = names.make_collection(lfn, _acl_of_new(tx, lfn, maker), maker, now=now)
        case Wish(NameChange.ALIAS, lfn, Lfn() as target):
            version = names.make_alias(lfn, target, maker, now=now)
        case Wish(NameChange.RENAME, lfn, Lfn() as new):
            version = names.rename(lfn, new, may_replace=wish.may_replace, now=now)
        case Wish(NameChange.COMMENT, lfn):
            version = names.set_comment(lfn, wish.text)
        case _:
            is_directory = wish.kind is NameChange.REMOVE_COLLECTION
            version = names.remove(wish.lfn, is_directory=is_directory, now=now)
    done = Done(version, "" if wish.made is None else str(wish.made))
    names.note_done(maker, wish.token, done, now=now)
    inodes = [node.inode for node in nodes if node is not None]
    return _answer(tx, done, is_only_change=names.is_only_change(inodes, wish.since, version))


def comment(tx: Transaction, principal: Principal, hospital: Hospital, lfn: Lfn) -> str:
    """Give the comment on a name; raises ``NoSuchFileError`` for one that the principal may not see."""
    _seen(tx, Sight(tx, principal, hospital.clock()), lfn, is_own=principal.dn == hospital.dn)
    return tx.names.comment(lfn)


def acl_of_collection(above: Acl, maker: str) -> Acl:
    """Give the ACL that a collection begins with: the defaults of the directory above, and its maker for an owner.

    The owner of the directory above goes on seeing it, as the defaults say of owners.
    """
    return Acl(maker, _for_maker(above, maker), _for_maker(above, maker))


def _for_maker(above: Acl, maker: str) -> tuple[Entry, ...]:
    others = [entry for entry in above.defaults if entry.kind is not EntryKind.OWNER]
    theirs = next((entry.rights for entry in above.defaults if entry.kind is EntryKind.OWNER), 0)
    is_named = any(entry.kind is EntryKind.USER and entry.qualifier == above.owner for entry in others)
    named = [] if is_named or above.owner == maker else [Entry(EntryKind.USER, above.owner, theirs)]
    return (Entry(EntryKind.OWNER, "", _OWNERS), *named, *others)


def _acl_of_new(tx: Transaction, lfn: Lfn, maker: str) -> Acl:
    above = acl_of(tx, tx.acls.ids_of(lfn.parent)[0])
    if above is None:
        raise _unknown(lfn)
    return acl_of_collection(above, maker)


def _answer(tx: Transaction, done: Done, *, is_only_change: bool) -> ChangedName:
    node = tx.catalogue.look_up(Lfn.parse(done.lfn), with_aliases=True) if done.lfn else None
    return ChangedName(done.version, node, is_only_change)


# What refuses


def _project_of(hospital: Hospital, lfn: Lfn) -> Project:
    found = next((project for project in hospital.projects.values() if lfn.is_below(project.lfn)), None)
    if found is None:
        message = f"{lfn} is in no project: there nobody makes, moves or removes a name"
        raise ReadOnlyError(message)
    return found


def _refuse_changing(tx: Transaction, sight: Sight, lfn: Lfn, project: Project, *, is_own: bool) -> None:
    """Refuse to change a name in a directory without the rights x and w there, or in one that registration made."""
    above = tx.catalogue.look_up(lfn.parent) if lfn != project.lfn else None
    if lfn == project.lfn:
        message = f"{lfn} is a project's directory"
        raise ReadOnlyError(message)
    if above is None or not (is_own or sight.may_traverse(lfn.parent)):
        raise _unknown(lfn)
    record = _directory(tx, above)
    if not record.maker and lfn.parent != project.lfn:
        message = f"{lfn.parent} was made by registration: names are made in collections, and in {project.lfn}"
        raise ReadOnlyError(message)
    if not is_own and not sight.allows(record.acl, Right.WRITE):
        message = f"changing names in {lfn.parent} takes the right w, which this identity has not"
        raise AccessDeniedError(message)


def _refuse_commenting(tx: Transaction, sight: Sight, lfn: Lfn, *, is_own: bool) -> None:
    node = _seen(tx, sight, lfn, is_own=is_own)
    if node.kind is NodeKind.FILE:
        file = tx.catalogue.file(Guid(node.guid))
        acl_id = b"" if file is None else file.acl
    else:
        acl_id = _directory(tx, node).acl
    if not is_own and not sight.allows(acl_id, Right.WRITE):
        message = f"a comment on {lfn} takes the right w on it, which this identity has not"
        raise AccessDeniedError(message)


def _seen(tx: Transaction, sight: Sight, lfn: Lfn, *, is_own: bool) -> Node:
    node = tx.catalogue.look_up(lfn)
    if node is None or not (is_own or sight.may_traverse(lfn if node.kind is NodeKind.DIRECTORY else lfn.parent)):
        raise _unknown(lfn)
    return node


def _directory(tx: Transaction, node: Node) -> DirectoryRecord:
    record = tx.catalogue.directory(node.inode) if node.kind is NodeKind.DIRECTORY else None
    if record is None:
        message = f"{node.name} is no directory"
        raise NoSuchFileError(message)
    return record


def _refuse_name(lfn: Lfn, project: Project) -> None:
    """Refuse a name that registration, or a mount, may need."""
    if lfn.parent == project.lfn and lfn.name.startswith(OF_SUBJECTS):
        message = f"names that begin with {OF_SUBJECTS} are for registration in {project.lfn}"
        raise RefusedNameError(message)
    if lfn.name in RESERVED:
        message = f"{lfn.name} is a name that mounts or records use themselves"
        raise RefusedNameError(message)
    if any(unicodedata.category(letter) in {"Cf", "Cc", "Zl", "Zp"} for letter in lfn.name):
        message = f"a name in {lfn.parent} has no characters that do not show, or turn the direction of what is shown"
        raise RefusedNameError(message)


def _refuse_comment(text: str) -> None:
    if len(text.encode()) > MAX_COMMENT_BYTES:
        message = f"a comment has {MAX_COMMENT_BYTES} bytes at most"
        raise RefusedNameError(message)
    if any(unicodedata.category(letter) == "Cc" and letter not in "\n\t" for letter in text):
        message = "a comment has no control characters but line feeds and tabs"
        raise RefusedNameError(message)


def _unknown(lfn: Lfn) -> NoSuchFileError:
    return NoSuchFileError(f"there is no {lfn}, or it is not for this identity")
