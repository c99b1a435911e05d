"""The port between the requests of a mount and the trees that they are answered from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Node, Totals
from mdmfs.worker.changing import Change


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
