"""Between a hospital and a worker: sealed objects, names, headers and where replicas are."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from mdmfs.model.names import GUID_SIZE, MAX_LFN_BYTES, MAX_NAME_BYTES
from mdmfs.wire.messages.message import MAX_BATCH, Count, Generation, Inode, Instant, Message, Size, Threshold

LIST_PATH: Final = "/v1/list"
DESCRIBE_PATH: Final = "/v1/describe"
LOCATE_PATH: Final = "/v1/locate"
CHANGES_PATH: Final = "/v1/changes"
GIVE_BACK_PATH: Final = "/v1/give-back"
TOTALS_PATH: Final = "/v1/totals"
HEADERS_PATH: Final = "/v1/headers"
MAX_HEADERS: Final = 64
"""Files whose headers one question may ask for."""
SEALED_PATH: Final = "/v1/sealed/"
"""GET ``/v1/sealed/GUID``: the sealed object, its length exact; ``ETag`` is the salt in hexadecimal digits.

``Range: bytes=N-`` with ``If-Range`` gives the rest of that very sealing with status 206, or a whole other one with 200
(RFC 9110 section 13.1.5): a transfer that was cut goes on.
"""
BUNDLE_PATH: Final = "/v1/bundle"
"""POST ``AskBundle``: the sealed objects of several files in one answer; ``mdmfs.wire.bundle`` says how."""
STAGED_PATH: Final = "/v1/staged"
"""POST ``AskBundle``, as above, by another daemon of the same hospital: that one decides and records by itself."""
MAX_BUNDLE: Final = 64
GENERATION_HEADER: Final = "mdmfs-generation"
"""Of an answer with a sealed object: the generation of its key."""
THRESHOLD_HEADER: Final = "mdmfs-threshold"
"""Of an answer with a sealed object: how many shares make its key."""
SINCE_HEADER: Final = "mdmfs-since"
"""Of a question to a daemon that only answers: the version of the feed that the answer has to know of, at least."""
REASON_HEADER: Final = "mdmfs-purpose"
"""What a user reads for, in his own words, percent-encoded (RFC 3986 section 2.1); for the audit log."""
MAX_REASON: Final = 200
"""Characters of it that are recorded."""
MAX_REPORTED: Final = 1000
"""Files of whose opens one report tells."""

TRANSFERS_PATH: Final = "/v1/transfers"

Replica = Annotated[str, msgspec.Meta(max_length=2000)]
"""A SURL. Mounts keep what is told of thousands of files."""


# Sealed objects


class AskBundle(Message, frozen=True):
    """Ask for files that a program will open next, because it goes through their siblings; ``MAX_BUNDLE`` at most."""

    guids: list[bytes]
    ahead: bool = True
    """Whether nobody has opened them yet; only a daemon of the same hospital says no."""


class SealedBeginning(Message, frozen=True):
    """What stands before the octets of a sealed object."""

    size: Size
    """Of the sealed object, exact."""
    generation: Generation
    """Of its key."""
    threshold: Threshold
    """How many shares make its key."""
    salt: bytes
    """Of this sealing."""


# The namespace


class NodeKind(enum.StrEnum):
    """What stands under a name."""

    DIRECTORY = "directory"
    FILE = "file"
    LINK = "link"
    """A symbolic link: an alias that a user made, or one that a mount makes up."""


class Node(Message, frozen=True, omit_defaults=True):
    """A name in a directory, with the attributes that ``ls -l`` shows; the same whoever asks."""

    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME_BYTES)]
    inode: Inode
    """The catalogue's number of the file or directory: never given twice; 1 is the root."""
    kind: NodeKind
    size: Size
    """Of the plaintext, exact; 0 for a directory."""
    modified: Instant
    """Midnight of the day that the image tells, of a directory the latest of those; or when a user changed it."""
    guid: Annotated[bytes, msgspec.Meta(max_length=GUID_SIZE)] = b""
    """Empty for a directory and a link."""
    target: Annotated[str, msgspec.Meta(max_length=MAX_LFN_BYTES)] = ""
    """The LFN that an alias leads to; there may be nothing."""
    is_made: bool = False
    """Whether a user made it: an alias, or a directory that is a collection."""
    is_commented: bool = False
    """Whether there is a comment on it."""


class ListDirectory(Message, frozen=True):
    """Ask for a page of a directory's entries, by name, in the order of their UTF-8 bytes."""

    lfn: str
    after: str = ""
    """The last name of the page before."""
    limit: int = MAX_BATCH


class DirectoryPage(Message, frozen=True):
    """A page of entries. Directories that the caller may not traverse are not in it."""

    directory: Node
    entries: list[Node]
    is_last: bool
    version: int
    """The version of the feed that this page shows, at least."""


class CachedOpens(Message, frozen=True):
    """How often a mount has opened a file, since its last report, without asking the hospital for it."""

    guid: bytes
    count: int


class OpensReport(Message, frozen=True):
    """What a mount tells of its own accord, by its own word; with a number that goes up, so that it counts once."""

    number: int
    opens: list[CachedOpens]
    """``MAX_REPORTED`` at most."""


class AskChanges(Message, frozen=True):
    """Say that a version of the feed is applied, and ask what has changed since.

    The answer waits up to ``wait`` seconds for a change, and renews the lease of a mount that names itself.
    """

    since: int
    wait: float
    mount: bytes = b""
    """16 random bytes for as long as the mount lives."""
    root: str = ""
    """The LFN that the mount shows; empty: all of it."""
    report: OpensReport | None = None
    """Of a mount that names itself: written to the audit log before there is an answer."""
    purpose: str = ""
    """What the opens that are reported were for."""
    groups: list[str] = []
    """Those of the answer that was applied last: where the caller is not in one of them, all is to be forgotten."""


class Changes(Message, frozen=True):
    """Directories whose listings and files whose bytes are no longer what they were."""

    version: int
    directories: list[Inode]
    """Inode numbers."""
    files: list[Inode]
    """Inode numbers of files whose name or rendition has gone."""
    lost: list[Inode] = []
    """Directories that the caller may no longer traverse: nothing at or below them is for him."""
    unreadable: list[Inode] = []
    """Directories whose files the caller may no longer read."""
    lease: Annotated[float, msgspec.Meta(ge=0.0, le=2.0**31)] = 0.0
    """Seconds for which what is held may be served, counted from when the question was sent; 0: no lease."""
    is_reset: bool = False
    """The feed no longer reaches back to ``since`` or has another history, the caller has lost a group, or is another:
    forget everything."""
    groups: list[str] = []
    """That the caller is in, as FQANs; first himself, ``dn:`` before his DN, and last the feed's history, ``feed:``
    before a mark of ``version``. The next question brings them back."""


class GiveBack(Message, frozen=True):
    """Give the lease of a mount back: it has ended, and nobody can read anything through it any more."""

    mount: bytes


class GivenBack(Message, frozen=True):
    """No change waits for that mount any more, and it is granted nothing again."""


class AskTotals(Message, frozen=True):
    """Ask how much there is below a directory, for ``statfs``."""

    lfn: str


class Totals(Message, frozen=True):
    """How much there is, of what the caller may traverse to."""

    files: Count
    size: Size
    """Bytes of plaintext."""


class AskHeaders(Message, frozen=True):
    """Ask for prefix objects: the first for a program that opens a file, the others for what it may open next."""

    guids: list[bytes]
    purpose: str = ""
    """What the user reads for, in his own words; for the audit log."""


class SealedHeader(Message, frozen=True):
    """A file's prefix object (docs/sealed-object.md); empty where there is none, or not for this caller."""

    sealed: bytes = b""
    generation: Generation = 0
    """Of the key."""
    threshold: Threshold = 0
    """How many shares make it."""


class SealedHeaders(Message, frozen=True):
    """One for each GUID that was asked for, in that order."""

    headers: list[SealedHeader]


class AskTransfers(Message, frozen=True):
    """Ask for the URLs of replicas, of ``MAX_BUNDLE`` files at most; to whom they are given, the files are released."""

    guids: list[bytes]
    purpose: str = ""
    """What the user reads for, in his own words; for the audit log."""
    ahead: bool = False
    """Whether no program has asked for them yet."""
    avoid: list[str] = []
    """Storage elements that do not answer, or not with what they should."""


class Transfer(Message, frozen=True):
    """Where the sealed object of a file is, besides with the hospital; without a TURL there is none for this caller."""

    turl: str = ""
    """By which anybody may fetch the bytes for a while, or whoever shows a proxy that the storage element accepts."""
    element: str = ""
    """The storage element, as the hospital calls it."""
    size: Size = 0
    """Of the sealed object, exact; more may follow it, and means nothing."""
    generation: Generation = 0
    threshold: Threshold = 0
    header: bytes = b""
    """The first 56 bytes: salt and commitment; another object under this name is told from it by them."""


class Transfers(Message, frozen=True):
    """One for each GUID that was asked for, in that order."""

    transfers: list[Transfer]
    are_there_any: bool
    """Whether this hospital has storage elements at all: else nobody need ask again soon."""


class Describe(Message, frozen=True):
    """Ask for all that a worker may know of one file."""

    guid: bytes


class FileDescription(Message, frozen=True):
    """One file, to one who may at least list its directory."""

    guid: Annotated[bytes, msgspec.Meta(max_length=GUID_SIZE)]
    inode: Inode
    size: Size
    header_length: Size
    """Bytes before the value of Pixel Data; the size where there is none."""
    sha256: Annotated[bytes, msgspec.Meta(max_length=32)]
    """Of the whole plaintext."""
    generation: Generation
    """Of the key; part of the sealed object's context."""
    threshold: Threshold
    """How many shares make the key."""
    locality: Annotated[str, msgspec.Meta(max_length=64)]
    replicas: Annotated[list[Replica], msgspec.Meta(max_length=100)]
    """SURLs."""


class Locate(Message, frozen=True):
    """Ask under which names files are, ``MAX_BATCH`` at most."""

    guids: list[bytes]


class FilePlace(Message, frozen=True):
    """A file, and one of its names that the caller may list."""

    node: Node
    lfn: Annotated[str, msgspec.Meta(max_length=MAX_LFN_BYTES)]
    above: Annotated[list[Inode], msgspec.Meta(max_length=MAX_LFN_BYTES // 2)]
    """The numbers of the directories above, from the root down."""


class Located(Message, frozen=True):
    """For each file its place; None for one that is not there, or not for the caller."""

    places: list[FilePlace | None]
