"""What the catalogue keeps of a file, a directory and an ACL: pseudonymous, no real UID and no key."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

import msgspec

from mdmfs.access.acl import Acl
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import Node

ROOT_INODE: Final = 1


class FileState(enum.IntEnum):
    """Where a file is in its life."""

    PENDING = 1
    """Registered, its name reserved; nobody sees it yet."""
    VISIBLE = 2
    QUARANTINED = 3
    """Refused at a recall: its name is gone, until ``show``."""
    WITHDRAWN = 4
    """Gone for ever; the record stays as the answer to who asks for the GUID."""
    SUPERSEDED = 5
    """A newer file has taken over its name; the GUID still opens."""


class Rendition(msgspec.Struct, frozen=True, array_like=True):
    """The exact bytes that a file has, and what made them so."""

    size: int
    header_length: int
    """Bytes before the value of Pixel Data; the size where there is none."""
    sha256: bytes
    header_sha256: bytes
    segment_sha256: bytes
    """The digests of each 4 MiB of the plaintext, one after the other."""
    policy: bytes
    """The policy's digest, 32 bytes."""
    engine_generation: int
    transfer_syntax: str
    """Of the rendition."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A name in a directory."""

    parent: int
    """The directory's inode number."""
    name: str


class NewFile(msgspec.Struct, frozen=True):
    """A file that is about to be registered; the catalogue gives it its inode and its ACL."""

    guid: Guid
    project: str
    rendition: Rendition
    threshold: int
    modified: float
    """Of its image (``catalogue.times``), never of the clock."""
    key_check: bytes
    """By which the hospital knows the right key again (``mdmfs.hospital.kept.escrow``); not the key."""
    generation: int = 1


class FileRecord(msgspec.Struct, frozen=True):
    """A registered file."""

    guid: Guid
    inode: int
    project: str
    acl: bytes
    """The id of the ACL that the files of its directory share, or of its own."""
    generation: int
    """Of the key, from 1."""
    threshold: int
    """How many shares make the key."""
    key_check: bytes
    state: FileState
    modified: float
    places: tuple[Place, ...]
    """Its names, the first one of the LFN it was registered under; none once it is withdrawn."""
    rendition: Rendition


class DirectoryRecord(msgspec.Struct, frozen=True, array_like=True):
    """A directory; it is seen only while ``visible`` is not 0 (the root always is)."""

    inode: int
    parent: int
    name: str
    acl: bytes
    """The id of its own ACL, 16 bytes, or empty: no ACL, closed."""
    file_acl: bytes
    """The id of the ACL that its files share; empty before the first file."""
    modified: float
    """The latest of what was registered in or below it; or when a user last changed it."""
    visible: int
    """How many entries show in its listing; a collection counts one more, so that it shows while it is empty."""
    maker: int = 0
    """The number of the user who made it (``catalogue.made``): then it is a collection; 0: registration did."""
    shown: int = 0
    """Files registered in it are seen up to this inode number (``EntryTable``)."""


class VersionOfAcl(NamedTuple):
    """What an ACL says now, and how many times it was set."""

    id: bytes
    version: int
    acl: Acl


class AclBefore(NamedTuple):
    """What an ACL said until it was set anew."""

    directory: int
    """Whose it is: the inode number."""
    is_of_files: bool
    """Whether it is the one that the files directly in the directory share."""
    acl: Acl
    file: int = 0
    """The inode number of the one file whose it is; 0: of the directory, or of its files."""
    acl_id: bytes = b""
    """Of that one."""


class Page(NamedTuple):
    """A page of a directory's listing, in the order of the names' UTF-8 bytes."""

    nodes: list[Node]
    directory_acls: dict[int, bytes]
    """For each directory among the nodes, by its inode number, the id of its own ACL."""
    is_last: bool


class Made(NamedTuple):
    """A name that a user made."""

    lfn: Lfn
    maker: str
    """A DN."""
    target: str
    """Where an alias leads; empty for a collection."""
    modified: float


class Commented(NamedTuple):
    """A comment on a name."""

    lfn: Lfn
    text: str


class Done(NamedTuple):
    """A change of names that was made."""

    version: int
    """Of the feed."""
    lfn: str
    """What was made or moved, as it was called then; empty where nothing was."""


class Totals(NamedTuple):
    """What is visible."""

    files: int
    octets: int
