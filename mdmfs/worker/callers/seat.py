"""Who asks, and which files he is answered from: the port between the requests of a mount and its principals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from mdmfs.model.errors import AccessDeniedError
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Node, Totals
from mdmfs.worker.changing import Change

ABSENT_SECONDS: Final = 1.0
"""Nobody tells of names that come."""


class Files(Protocol):
    """What a request may be answered from; ``mdmfs.worker.filesystem.FileSystem`` says what each call does."""

    # Names and attributes

    async def lookup(self, parent: int, name: bytes) -> Node:
        """Find an entry of a directory and count the kernel's lookup."""

    def lookup_at_once(self, parent: int, name: bytes) -> Node | None:
        """Look up, where nothing has to be waited for."""

    def longest_name(self, parent: int) -> int:
        """Tell how many bytes a name in a directory has at most."""

    async def attributes(self, inode: int) -> Node:
        """Give the attributes of an inode in use."""

    def seconds_held(self, node: Node) -> float:
        """Tell for how long an entry that is told now may be remembered."""

    def target(self, inode: int) -> bytes | None:
        """Give where a symbolic link leads."""

    def retain(self, parent: int, node: Node) -> None:
        """Count a lookup of an entry that the kernel was told of."""

    async def change_name(self, change: Change) -> Node | None:
        """Make a change of a name; gives what has the name afterwards."""

    async def set_comment(self, inode: int, text: bytes) -> None:
        """Say something of a file or directory, or, by an empty text, no more."""

    # Directories

    async def open_directory(self, inode: int) -> int:
        """Open a directory and give a handle."""

    async def read_directory(self, handle: int, position: int) -> Iterator[tuple[bytes, Node, int]]:
        """Give the entries behind a position."""

    def directory_of(self, handle: int) -> int:
        """Give the inode that a handle was opened for."""

    def close_directory(self, handle: int) -> None:
        """End a handle."""

    # Files

    async def open_file(self, inode: int) -> int:
        """Open a file and give a handle."""

    def open_file_at_once(self, inode: int) -> int | None:
        """Open a file, where nothing has to be waited for."""

    async def read(self, handle: int, offset: int, length: int) -> bytes:
        """Give plaintext."""

    def read_at_once(self, handle: int, offset: int, length: int) -> memoryview | None:
        """Give plaintext, where nothing has to be waited for."""

    def header_end(self, handle: int) -> int:
        """Tell up to which byte a file can be read of which nothing but the header was asked for; 0 of any other."""

    def close_file(self, handle: int) -> None:
        """End a handle."""

    # Extended attributes and totals

    def attribute_names(self, inode: int) -> Sequence[bytes]:
        """Name the extended attributes."""

    async def attribute(self, inode: int, name: bytes) -> bytes:
        """Give an extended attribute."""

    async def stage(self, inode: int) -> None:
        """Have a file, or all below a directory, brought online."""

    async def totals(self) -> Totals:
        """Count what lies below the root."""

    def forget(self, inode: int, lookups: int) -> None:
        """Take lookups back."""


class Tree(Files, Protocol):
    """Files of which the names are known: one tree of a mount, or all that it has."""

    @property
    def root(self) -> Lfn:
        """What is shown."""

    def knows(self, inode: int) -> bool:
        """Ask whether an inode is in use."""

    def lfn_of(self, inode: int) -> Lfn:
        """Tell under which name an inode was last seen; raises ``NoSuchFileError``."""


class Seat(NamedTuple):
    """Where a caller is served: his files, and who he is on this machine."""

    files: Files
    uid: int
    gid: int
    seconds_absent: float = 0.0
    """For how long it may be remembered that a name is not there."""


class Callers(Protocol):
    """All who may ask."""

    def at_once(self, uid: int, *, is_harmless: bool = False) -> Seat | None:
        """Give a caller's seat; None where it has to be looked for.

        What is ``is_harmless`` is answered to everybody. Raises ``AccessDeniedError``.
        """

    async def find(self, uid: int, gid: int, tid: int) -> Seat:
        """Look for the seat of whoever asks as ``uid`` in the thread ``tid``; raises ``CredentialRefusedError``."""

    @property
    def doorman(self) -> Seat:
        """Who answers everybody for the mount point itself."""

    def of_handle(self, handle: int) -> Seat:
        """Give the seat at which a handle was opened."""

    def forget(self, inode: int, lookups: int) -> None:
        """Take lookups back."""


class OwnerOnly:
    """One user has mounted, and nobody else is served: there is no other credential. The kernel agrees."""

    def __init__(self, files: Files, uid: int, gid: int) -> None:
        self.doorman = Seat(files, uid, gid, ABSENT_SECONDS)

    def at_once(self, uid: int, *, is_harmless: bool = False) -> Seat:
        """Give the only seat."""
        if uid != self.doorman.uid and not is_harmless:
            message = f"uid {uid} is not the owner of this mount"
            raise AccessDeniedError(message)
        return self.doorman

    async def find(self, uid: int, gid: int, tid: int) -> Seat:  # noqa: ARG002 those of the port
        """Give the only seat."""
        return self.at_once(uid)

    def of_handle(self, handle: int) -> Seat:  # noqa: ARG002 that of the port
        """Give the only seat."""
        return self.doorman

    def forget(self, inode: int, lookups: int) -> None:
        """Take lookups back."""
        self.doorman.files.forget(inode, lookups)
