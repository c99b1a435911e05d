"""The ports of the catalogue: what a storage engine has to offer of the namespace, inside one transaction.

What is not visible has no name for anybody: ``look_up`` and ``list_page`` know visible files and the directories above
them, nothing else. A directory appears with its first visible file below and vanishes with its last, but is never
deleted: it keeps its inode number and its ACL. Inode numbers are never given twice.

Each directory has an ACL id of its own, and the files directly in it share a second one: ``Acls.set`` never changes
more than it names, and a change is one message however many files there are. ACL ids are random.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from mdmfs.access.acl import Acl
from mdmfs.hospital.catalogue.records import (
    AclBefore,
    Commented,
    DirectoryRecord,
    Done,
    FileRecord,
    Made,
    NewFile,
    Page,
    Totals,
    VersionOfAcl,
)
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import Changes, Node
from mdmfs.wire.messages.message import MAX_BATCH


class Catalogue(Protocol):
    """The namespace, as one transaction sees it."""

    # Registration

    def make_directories(self, lfn: Lfn, *, acl: Acl | None = None) -> int:
        """Make a directory and those missing above it, hidden for now; give its inode number.

        Their time is the latest of what is shown in or below them, 1980 at first, until a user changes them.

        Each missing one (the root counts as missing until it has an ACL) gets ``acl``, or without one what its parent's
        ACL passes on (``Acl.inherited``). What exists stays as it is. Raises ``NotADirectoryFileError`` if a file
        stands in the way and ``StoreError`` if there is no ACL to inherit.
        """

    def holder(self, lfn: Lfn) -> Guid | None:
        """Give the GUID that holds or has reserved this name, visible or not; None if a new file may have it.

        Raises ``IsADirectoryFileError`` if it is a directory.
        """

    def add_file(
        self, lfn: Lfn, file: NewFile, *, takes_over: Guid | None = None, like: Guid | None = None
    ) -> FileRecord:
        """Register a file as PENDING: its name is reserved and its ACL is the one that its directory's files share.

        Where ``takes_over``, or ``like``, which had the name before, has an ACL of its own, it goes by that one. It has
        another time than that one, too (``catalogue.times``).

        The directory must exist (``make_directories``), else ``NoSuchFileError``. ``takes_over`` names the visible file
        whose LFN this one will have when it is shown. Raises ``StoreError`` if the GUID is known, if another GUID
        reserved the name, or if one holds it that is not the one to take over; ``IsADirectoryFileError`` as it says.
        """

    def show(self, guids: Iterable[Guid]) -> int:
        """Make PENDING or QUARANTINED files VISIBLE, all at once, as one version of the feed; give that version.

        A file taken over becomes SUPERSEDED. Files already visible stay so. Raises ``NoSuchFileError`` for an unknown
        GUID and ``StoreError`` for a withdrawn or superseded one, or if a quarantined one's name has been given away.
        """

    def show_all(self, lfn: Lfn) -> int:
        """Make all files VISIBLE that are PENDING directly in a directory, as ``show`` does; give the feed's version.

        What it writes does not grow with them, but for those that take over names. Raises ``NoSuchFileError``.
        """

    def quarantine(self, guids: Iterable[Guid]) -> int:
        """Take files and their names away until they are shown again; give the feed's version. No time changes.

        Withdrawn files stay so. Raises ``NoSuchFileError`` for an unknown GUID.
        """

    def withdraw(self, guids: Iterable[Guid]) -> int:
        """Take files away for ever, whatever state they are in; give the feed's version. No time changes.

        Raises ``NoSuchFileError`` for an unknown GUID.
        """

    def replace(self, record: FileRecord) -> None:
        """Change what belongs to a file's key: generation, threshold and check.

        Raises ``NoSuchFileError`` for an unknown GUID and ``StoreError`` if anything else differs.
        """

    # Questions

    def file(self, guid: Guid) -> FileRecord | None:
        """Give a file's record, in whatever state it is."""

    def latest_inode(self) -> int:
        """Give the highest inode number that was given yet: whatever is made later has a higher one."""

    def directory(self, inode: int) -> DirectoryRecord | None:
        """Give a directory's record, seen or hidden."""

    def look_up(self, lfn: Lfn, *, with_aliases: bool = False) -> Node | None:
        """Give the visible file or directory of this name; None where there is none, or a file stands above it.

        An alias is not followed; it is told of to those who ask for it.
        """

    def list_page(self, inode: int, *, after: str = "", limit: int = MAX_BATCH) -> Page:
        """Give the visible entries of a directory whose names come after ``after``, aliases among them.

        Raises ``NoSuchFileError`` if there is no such directory or it is hidden. ``limit`` is at least 1.
        """

    def files(self, *, after: int = 0, limit: int = MAX_BATCH) -> list[FileRecord]:
        """Give the files of all projects with inode numbers above ``after``, in all states and in that order."""

    def totals(self, project: str | None = None) -> Totals:
        """Count the visible files of a project, or of all."""

    def directories_above(self, inode: int) -> list[DirectoryRecord]:
        """Give all directories above this one, from the root down, and last itself; raises ``NoSuchFileError``."""

    def directories_below(self, lfn: Lfn) -> list[Lfn]:
        """Give a directory and all below it, seen or hidden, each before what is in it; raises ``NoSuchFileError``."""

    def has_files_below(self, lfn: Lfn) -> bool:
        """Ask whether a file has a name in a directory or below it, seen or not; where one is seen, few rows tell.

        What is QUARANTINED has none.
        """


class Acls(Protocol):
    """Who may use what is in the namespace, as one transaction sees it."""

    # Questions

    def find(self, acl_id: bytes) -> VersionOfAcl | None:
        """Give what an ACL says now; None for an id that is not known."""

    def first(self, acl_id: bytes) -> Acl | None:
        """Give what an ACL said when it was made; None for an id that is not known."""

    def next_end(self, after: float) -> float:
        """Tell when the first entry of an ACL ends, of those that end after a time; infinity where none does.

        Counted are ACLs too that no longer are what some directory has.
        """

    def ids_of(self, lfn: Lfn) -> tuple[bytes, bytes]:
        """Give the ids of a directory's own ACL and of the one that its files share, empty where it never had a file.

        Hidden directories count. Raises ``NoSuchFileError`` and ``NotADirectoryFileError``.
        """

    def ids_above(self, inode: int) -> list[bytes]:
        """Give the ids of the ACLs of all directories above this one, the root's first, and last its own.

        An id may be empty: no ACL, closed. Raises ``NoSuchFileError`` if there is no such directory.
        """

    def chains_of(self, guid: Guid) -> list[list[bytes]]:
        """Give the chain of each name of a file: the ids of the ACLs of all directories above it, and last its own.

        That of a withdrawn file is empty: nobody may open it. Raises ``NoSuchFileError`` for an unknown GUID.
        """

    def files_apart(self, lfn: Lfn) -> list[FileRecord]:
        """Give the files directly in a directory that have an ACL of their own, in all states but WITHDRAWN."""

    # Changes

    def set(self, lfn: Lfn, acl: Acl, *, files: bool = False) -> VersionOfAcl:
        """Set the next version of a directory's ACL, or with ``files`` of the one that the files directly in it share.

        Hidden directories count. The feed names the directory and the one above it, and keeps what the ACL said before
        (``Feed.acls_before``): who has lost something can be told. Raises ``NoSuchFileError`` if there is no such
        directory, or with ``files`` if it never had a file, and ``NotADirectoryFileError`` for the name of a file.
        """

    def set_of_file(self, guid: Guid, acl: Acl) -> VersionOfAcl:
        """Set the ACL of one file, in any state but WITHDRAWN: its own from then on, and its GUID is the id.

        Files that took the name of this one over since then go by the same. Its first version follows that of the ACL
        it shared before. The feed has no inode for it, but its ``acls_before`` has. Raises ``NoSuchFileError``.
        """

    def outdo(self, known: VersionOfAcl) -> bool:
        """Let an ACL say the same as a version later than any of a clock, where a keystore knows a later one.

        True where it has a later version now; False where it had one so late already.
        """


class Feed(Protocol):
    """What changed in the namespace, version by version: each change of the other ports is one."""

    def version(self) -> int:
        """Give the version of the last change; 0 before the first."""

    def mark(self, version: int) -> bytes:
        """Give what tells a version of the feed from that of another history; empty where the feed has none of it."""

    def since(self, version: int, *, limit: int = MAX_BATCH) -> Changes:
        """Give what changed after a version, up to the version that the answer names.

        The answer ends after the change with which it names ``limit`` inodes or more. ``is_reset`` if the feed no
        longer reaches back that far, or has never been there (the store was restored).
        """

    def acls_before(self, since: int, until: int) -> list[AclBefore]:
        """Give what ACLs said before they were set by the changes after ``since``, up to ``until``, oldest first."""


class Names(Protocol):
    """What users make in the namespace, as one transaction sees it: collections, aliases and comments.

    Who may do that is not asked here. Each change is one version of the feed. What registration made is never moved,
    removed or replaced (``ReadOnlyError``); a name that is not there is ``NoSuchFileError``.
    """

    def make_collection(self, lfn: Lfn, acl: Acl, maker: str, *, now: float) -> int:
        """Make a directory that shows at once; give the feed's version. ``maker`` is a DN.

        Raises ``NameTakenError``, also for a name that waits for an image, and ``RefusedNameError`` for a long one.
        """

    def make_alias(self, lfn: Lfn, target: Lfn, maker: str, *, now: float) -> int:
        """Make an alias, whatever stands at its target; version and errors as those of ``make_collection``."""

    def rename(self, old: Lfn, new: Lfn, *, may_replace: bool, now: float) -> int:
        """Give a collection, with all below it, or an alias another name; version and errors as before.

        An alias may take the place of an alias, and a collection that of an empty one, if ``may_replace``. Raises
        ``RefusedNameError`` for a name below itself, and what ``remove`` raises of what is in the way.
        """

    def remove(self, lfn: Lfn, *, is_directory: bool, now: float) -> int:
        """Take an alias away, or an empty collection; give the feed's version.

        Raises ``NotEmptyError``, ``IsADirectoryFileError`` and ``NotADirectoryFileError``.
        """

    def remove_all(self, lfn: Lfn, *, now: float) -> int:
        """Take away all that users made at and below a name; give how many names went."""

    def set_comment(self, lfn: Lfn, text: str) -> int:
        """Keep a comment on what shows under a name; an empty one is none. Gives the feed's version.

        It goes when the name goes, and stays when a new rendition takes the name over.
        """

    def drop_comments(self, lfn: Lfn) -> int:
        """Forget all comments at and below a name, whether it shows or not; give how many."""

    def comment(self, lfn: Lfn) -> str:
        """Give the comment on a name; empty where there is none."""

    def made_by(self, maker: str) -> int:
        """Count the collections and aliases that a user has."""

    def made_below(self, lfn: Lfn) -> Iterator[Made]:
        """Go through what users made at and below a name, each collection before what is in it."""

    def comments_below(self, lfn: Lfn) -> Iterator[Commented]:
        """Go through the comments at and below a name."""

    def is_only_change(self, directories: list[int], since: int, version: int) -> bool:
        """Ask whether directories were as a version of the feed shows them until the change of another version.

        No also where it would take long to find out.
        """

    def done(self, principal: str, token: bytes) -> Done | None:
        """Give what came of a change that a principal asked for under a token; None where he asks for the first time.

        Of the last ten minutes.
        """

    def note_done(self, principal: str, token: bytes, done: Done, *, now: float) -> None:
        """Remember what came of a change."""
