"""Names that users make, as rows: collections, aliases and comments; each change is whole, counted and done once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from mdmfs.access.acl import Acl
from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.acls import AclTable
from mdmfs.hospital.catalogue.entries import Entry
from mdmfs.hospital.catalogue.feed import Feed
from mdmfs.hospital.catalogue.records import ROOT_INODE, Commented, Done, Made
from mdmfs.hospital.catalogue.tree import DirectoryTree
from mdmfs.hospital.rows import Interned, Stored, add_to, counted, digest_key, interned_key, number_key
from mdmfs.model.errors import (
    IsADirectoryFileError,
    NameTakenError,
    NoSuchFileError,
    NotADirectoryFileError,
    NotEmptyError,
    ReadOnlyError,
    RefusedNameError,
)
from mdmfs.model.names import MAX_LFN_BYTES, Lfn
from mdmfs.rows.port import Rows

MAX_DEPTH: Final = 48
"""Parts of a name below which a user makes another: what leads from one alias to anywhere fits into a path."""
DONE_SECONDS: Final = 600.0
"""For which a change is known again: who did not hear the answer has given up by then."""
_FORGOTTEN_AT_ONCE: Final = 4


class _Done(msgspec.Struct, frozen=True, array_like=True):
    number: int
    version: int
    lfn: str


class _DoneInOrder(msgspec.Struct, frozen=True, array_like=True):
    key: bytes
    time: float


_DONE: Final = Stored(_Done)
_IN_ORDER: Final = Stored(_DoneInOrder)
_LAST_DONE: Final = tables.COUNTERS + b"done"


class Names:
    """What users make in the namespace, as one transaction sees it: collections, aliases and comments.

    Who may do that is not asked here. Each change is one version of the feed. What registration made is never moved,
    removed or replaced (``ReadOnlyError``); a name that is not there is ``NoSuchFileError``.

    ``M`` + number and ``W`` + digest: the DN of who makes names. ``b`` + number: how many he has. ``D`` + digest of who
    and of his token: what came of a change; ``E`` + number in order: which, and when.
    """

    def __init__(self, rows: Rows, tree: DirectoryTree, acls: AclTable, feed: Feed) -> None:
        self._rows = rows
        self._tree = tree
        self._directories = tree.directories
        self._entries = tree.entries
        self._acls = acls
        self._feed = feed
        self._makers = Interned(
            rows, numbers=tables.MAKER_NUMBERS, values=tables.MAKERS, counter=tables.COUNTERS + b"maker"
        )

    # Changes

    def make_collection(self, lfn: Lfn, acl: Acl, maker: str, *, now: float) -> int:
        """Make a directory that shows at once; give the feed's version. ``maker`` is a DN.

        Raises ``NameTakenError``, also for a name that waits for an image, and ``RefusedNameError`` for a long one.
        """
        parent = self._parent_for(lfn)
        number = self._makers.number_of(maker.encode())
        inode = self._tree.make(parent, lfn.name, self._acls.make(acl), modified=now, maker=number)
        self._count(number, 1)
        return self._tell(self._tree.settle(inode, 1, now=now))

    def make_alias(self, lfn: Lfn, target: Lfn, maker: str, *, now: float) -> int:
        """Make an alias, whatever stands at its target; version and errors as those of ``make_collection``."""
        parent = self._parent_for(lfn)
        number = self._makers.number_of(maker.encode())
        entry = Entry.of_alias(self._directories.new_inode(), target, now, number)
        self._entries.list_entry(parent, lfn.name, entry)
        self._count(number, 1)
        return self._tell(self._tree.settle(parent, 1, now=now))

    def rename(self, old: Lfn, new: Lfn, *, may_replace: bool, now: float) -> int:
        """Give a collection, with all below it, or an alias another name; version and errors as before.

        An alias may take the place of an alias, and a collection that of an empty one, if ``may_replace``. Raises
        ``RefusedNameError`` for a name below itself, and what ``remove`` raises of what is in the way.
        """
        source = self._made(old)
        if old == new:
            return self._feed.version()
        if source.is_directory and new.is_below(old):
            message = f"{old} cannot be moved below itself"
            raise RefusedNameError(message)
        parent, (into, before) = self._inode_of(old.parent), self._directory_and_entry(new)
        _refuse_long(new, *(self._longest_below(source.inode) if source.is_directory else ()))
        # what comes is counted before what goes, so that no directory vanishes in between
        touched = self._tree.settle(into, 1, now=now)
        if before is not None:
            touched += self._make_room(source, new, before, may_replace=may_replace, now=now)
        elif self._entries.hidden(into, new.name) is not None:
            raise _taken(new)
        if source.is_directory:
            self._tree.move(self._directories.get(source.inode), into, new.name)
        else:
            self._entries.move((parent, old.name), (into, new.name), source)
        return self._tell([*touched, *self._tree.settle(parent, -1, now=now)])

    def remove(self, lfn: Lfn, *, is_directory: bool, now: float) -> int:
        """Take an alias away, or an empty collection; give the feed's version.

        Raises ``NotEmptyError``, ``IsADirectoryFileError`` and ``NotADirectoryFileError``.
        """
        entry = self._made(lfn)
        if entry.is_directory and not is_directory:
            message = f"{lfn} is a collection: remove it as a directory"
            raise IsADirectoryFileError(message)
        if is_directory and not entry.is_directory:
            message = f"{lfn} is an alias, not a collection"
            raise NotADirectoryFileError(message)
        return self._tell(self._remove(lfn, entry, now))

    def remove_all(self, lfn: Lfn, *, now: float) -> int:
        """Take away all that users made at and below a name; give how many names went."""
        entry = self._directory_and_entry(lfn)[1]
        if entry is None:
            raise _missing(lfn)
        gone: Counter[int] = Counter()
        touched = self._empty(entry.inode, gone, now) if entry.is_directory else []
        for maker, names in gone.items():
            self._count(maker, -names)
        touched += self._remove(lfn, entry, now) if entry.maker else []
        self._tell(touched)
        return gone.total() + bool(entry.maker)

    def set_comment(self, lfn: Lfn, text: str) -> int:
        """Keep a comment on what shows under a name; an empty one is none. Gives the feed's version.

        It goes when the name goes, and stays when a new rendition takes the name over.
        """
        parent, entry = self._directory_and_entry(lfn)
        if entry is None:
            raise _missing(lfn)
        self._entries.comments.set(parent, lfn.name, text)
        return self._tell([parent])

    def drop_comments(self, lfn: Lfn) -> int:
        """Forget all comments at and below a name, whether it shows or not; give how many."""
        gone = [one for one in self._comments() if one[2].is_below(lfn)]
        for parent, name, _ in gone:
            self._entries.comments.drop(parent, name)
        self._tell([parent for parent, _, _ in gone])
        return len(gone)

    # Questions

    def comment(self, lfn: Lfn) -> str:
        """Give the comment on a name; empty where there is none."""
        parent, entry = self._directory_and_entry(lfn)
        return "" if entry is None else self._entries.comments.get(parent, lfn.name)

    def made_by(self, maker: str) -> int:
        """Count the collections and aliases that a user has."""
        found = self._makers.known(maker.encode())
        return 0 if found is None else counted(self._rows, tables.MADE_BY + interned_key(found))

    def made_below(self, lfn: Lfn) -> Iterator[Made]:
        """Go through what users made at and below a name, each collection before what is in it.

        Nothing is made below what registration made, but for directly below the name itself.
        """
        entry = self._directory_and_entry(lfn)[1]
        if entry is None:
            raise _missing(lfn)
        if entry.maker:
            yield self._told(lfn, entry)
        waiting = [(lfn, entry.inode)] if entry.is_directory else []
        while waiting:
            above, inode = waiting.pop()
            for name, found in self._entries.visible_in(inode):
                if found.maker:
                    yield self._told(above / name, found)
                if found.maker and found.is_directory:
                    waiting.append((above / name, found.inode))

    def comments_below(self, lfn: Lfn) -> Iterator[Commented]:
        """Go through the comments at and below a name."""
        for parent, name, commented in self._comments():
            if commented.is_below(lfn):
                yield Commented(commented, self._entries.comments.get(parent, name))

    def is_only_change(self, directories: list[int], since: int, version: int) -> bool:
        """Ask whether directories were as a version of the feed shows them until the change of another version.

        No also where it would take long to find out.
        """
        return self._feed.is_untouched(directories, since, version)

    # What was done already

    def done(self, principal: str, token: bytes) -> Done | None:
        """Give what came of a change that a principal asked for under a token; None where he asks for the first time.

        Of the last ten minutes.
        """
        value = self._rows.get(tables.DONE + digest_key(principal, token.hex()))
        if value is None:
            return None
        found = _DONE.decode(value)
        return Done(found.version, found.lfn)

    def note_done(self, principal: str, token: bytes, done: Done, *, now: float) -> None:
        """Remember what came of a change, and forget some of what nobody asks for any more."""
        key, number = digest_key(principal, token.hex()), add_to(self._rows, _LAST_DONE)
        self._rows.put(tables.DONE + key, _DONE.encode(_Done(number, done.version, done.lfn)))
        self._rows.put(tables.DONE_IN_ORDER + number_key(number), _IN_ORDER.encode(_DoneInOrder(key, now)))
        old: list[tuple[bytes, bytes]] = []
        for order, value in self._rows.scan(tables.DONE_IN_ORDER):
            one = _IN_ORDER.decode(value)
            if len(old) >= _FORGOTTEN_AT_ONCE or one.time > now - DONE_SECONDS:
                break
            old.append((order, one.key))
        for order, forgotten in old:
            self._rows.delete(tables.DONE_IN_ORDER + order)
            self._rows.delete(tables.DONE + forgotten)

    # Steps

    def _comments(self) -> Iterator[tuple[int, str, Lfn]]:
        """Go through what has a comment: the directory's number, the name in it, all of the name."""
        for parent, name in self._entries.comments.all():
            above = [record.name for record in self._directories.above(parent)[1:]]
            yield parent, name, Lfn((*above, name))

    def _inode_of(self, lfn: Lfn) -> int:
        inode = self._tree.inode_of(lfn)
        if inode is None or not (self._directories.get(inode).visible or inode == ROOT_INODE):
            raise _missing(lfn)
        return inode

    def _directory_and_entry(self, lfn: Lfn) -> tuple[int, Entry | None]:
        """Find the directory of a name, which is there, and what stands under it; raises ``NoSuchFileError``."""
        parent = self._inode_of(lfn.parent)
        return parent, self._entries.visible(parent, lfn.name) if lfn.parts else None

    def _parent_for(self, lfn: Lfn) -> int:
        """Give the directory for a name that is free; a name that waits for an image is taken."""
        parent, entry = self._directory_and_entry(lfn)
        _refuse_long(lfn)
        if entry is not None or not lfn.parts or self._entries.hidden(parent, lfn.name) is not None:
            raise _taken(lfn)
        return parent

    def _made(self, lfn: Lfn) -> Entry:
        entry = self._directory_and_entry(lfn)[1]
        if entry is None:
            raise _missing(lfn)
        if not entry.maker:
            message = f"{lfn} was made by registration: it cannot be moved, removed or replaced"
            raise ReadOnlyError(message)
        return entry

    def _make_room(self, source: Entry, new: Lfn, before: Entry, *, may_replace: bool, now: float) -> list[int]:
        if not may_replace:
            raise _taken(new)
        self._made(new)
        if before.is_directory and not source.is_directory:
            message = f"{new} is a collection, and an alias cannot take its place"
            raise IsADirectoryFileError(message)
        if source.is_directory and not before.is_directory:
            message = f"{new} is an alias, and a collection cannot take its place"
            raise NotADirectoryFileError(message)
        return self._remove(new, before, now)

    def _remove(self, lfn: Lfn, entry: Entry, now: float) -> list[int]:
        parent = self._inode_of(lfn.parent)
        self._count(entry.maker, -1)
        if not entry.is_directory:
            self._entries.remove(parent, lfn.name)
            return self._tree.settle(parent, -1, now=now)
        if self._directories.get(entry.inode).visible > 1:
            message = f"{lfn} is not empty"
            raise NotEmptyError(message)
        return self._remove_empty(entry.inode, now)

    def _remove_empty(self, inode: int, now: float) -> list[int]:
        """Forget a collection in which nothing is; gives the directories touched."""
        touched = self._tree.settle(inode, -1, now=now)
        record = self._directories.get(inode)
        self._tree.drop(record)
        self._acls.drop(record.acl)
        return [one for one in touched if one != inode]

    def _empty(self, inode: int, gone: Counter[int], now: float) -> list[int]:
        """Take away what users made below a directory, counting it by maker; gives the directories touched."""
        touched: list[int] = []
        aliases = 0
        for name, entry in self._entries.visible_in(inode):
            if not entry.maker:
                continue
            gone[entry.maker] += 1
            if entry.is_directory:
                self._empty(entry.inode, gone, now)
                touched += self._remove_empty(entry.inode, now)
            else:
                self._entries.remove(inode, name)
                aliases += 1
        return [*touched, *self._tree.settle(inode, -aliases, now=now)] if aliases else touched

    def _longest_below(self, inode: int) -> tuple[int, int]:
        """Give by how many parts, and how many bytes, names go on below a collection."""
        depth, length, waiting = 0, 0, [(inode, 0, 0)]
        while waiting:
            directory, parts, octets = waiting.pop()
            for name, entry in self._entries.visible_in(directory):
                further = octets + 1 + len(name.encode())
                depth, length = max(depth, parts + 1), max(length, further)
                if entry.is_directory:
                    waiting.append((entry.inode, parts + 1, further))
        return depth, length

    def _told(self, lfn: Lfn, entry: Entry) -> Made:
        maker = self._makers.value_of(entry.maker).decode()
        return Made(lfn, maker, entry.reference.decode() if entry.is_alias else "", entry.modified)

    def _count(self, maker: int, amount: int) -> None:
        add_to(self._rows, tables.MADE_BY + interned_key(maker), amount)

    def _tell(self, touched: list[int]) -> int:
        return self._feed.append(touched, ())


def _refuse_long(lfn: Lfn, parts: int = 0, octets: int = 0) -> None:
    """Refuse a name so deep, or so long with what is below it, that some program could not use it."""
    if len(lfn.parts) + parts > MAX_DEPTH:
        message = f"names go {MAX_DEPTH} directories deep at most"
        raise RefusedNameError(message)
    if len(str(lfn).encode()) + octets > MAX_LFN_BYTES:
        message = f"a name, and each below it, has {MAX_LFN_BYTES} bytes at most"
        raise RefusedNameError(message)


def _missing(lfn: Lfn) -> NoSuchFileError:
    return NoSuchFileError(f"there is no {lfn}, or it is not for this identity")


def _taken(lfn: Lfn) -> NameTakenError:
    return NameTakenError(f"{lfn} is there already")
