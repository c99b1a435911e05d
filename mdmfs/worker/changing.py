"""Changes of names that programs on a mount ask for: told to the hospital, and seen here at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import msgspec

from mdmfs.model.errors import MalformedNameError, NotADirectoryFileError, RefusedNameError
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Node
from mdmfs.wire.messages.names import TOKEN_SIZE, ChangedName, ChangeName, NameChange
from mdmfs.worker.aliases import parse_target
from mdmfs.worker.lease import Lease
from mdmfs.worker.namespace.names import Namespace


class Change(NamedTuple):
    """What a program does to a name in a directory, by the numbers that the kernel uses."""

    kind: NameChange
    directory: int
    name: bytes
    target: bytes = b""
    """Of a link."""
    mount_points: Iterable[str] = ()
    """Below which absolute targets lie."""
    new_directory: int = 0
    new_name: bytes = b""
    may_replace: bool = True


class Changes(Protocol):
    """What is needed of ``mdmfs.worker.hospital.Hospital``."""

    async def change_name(self, change: ChangeName) -> ChangedName:
        """Change a name; asked again under the same token, it is done once."""


class Changing:
    """Changes names at one hospital."""

    def __init__(self, hospital: Changes, namespace: Namespace, lease: Lease) -> None:
        self._hospital = hospital
        self._namespace = namespace
        self._lease = lease

    async def change(self, change: Change) -> Node | None:
        """Make a change; gives what has the name afterwards, None where nothing has.

        When this returns, the hospital has it on disk. An answer that is lost is asked for again, by the same token.
        """
        directory = self._directory(change.directory)
        lfn, other = _named(directory, change.name), ""
        places = [(change.directory, change.name)]
        if change.kind is NameChange.ALIAS:
            other = str(parse_target(change.target, directory, self._namespace.shown, change.mount_points))
        if change.kind is NameChange.RENAME:
            new = _named(self._directory(change.new_directory), change.new_name)
            other = str(new)
            places.append((change.new_directory, change.new_name))
        token = secrets.token_bytes(TOKEN_SIZE)
        asked = ChangeName(token, change.kind, str(lfn), other=other, may_replace=change.may_replace)
        return await self._made(asked, places)

    async def comment(self, inode: int, lfn: Lfn, text: bytes) -> None:
        """Say something of what has a name; an empty text takes back what was said."""
        try:
            said = text.rstrip(b"\0").decode()
        except UnicodeDecodeError as error:
            message = "a comment is UTF-8"
            raise RefusedNameError(message) from error
        asked = ChangeName(secrets.token_bytes(TOKEN_SIZE), NameChange.COMMENT, str(lfn), text=said)
        await self._made(asked, self._namespace.places_of(inode))
        self._namespace.note_comment(inode, is_commented=bool(said))

    async def _made(self, asked: ChangeName, places: list[tuple[int, bytes]]) -> Node | None:
        """Ask, and note what changed in each place: what was there went, but for the last, which has the node.

        There is no place where what was changed stands in no directory that is in use.
        """
        names = self._namespace

        async def ask() -> tuple[ChangedName, dict[int, int]]:
            known = {inode: version for inode, _ in places if (version := names.version_held(inode)) is not None}
            are_all_known = len(known) == len({inode for inode, _ in places})
            since = min(known.values(), default=-1) if are_all_known else -1
            return await self._hospital.change_name(msgspec.structs.replace(asked, since=since)), known

        changed, known = await self._lease.held(ask)
        node = changed.node
        if node is not None and places:
            node = names.shown_as(node, places[-1][0])
        fresh: dict[int, dict[bytes, Node | None]] = {}
        for position, (inode, name) in enumerate(places):
            fresh.setdefault(inode, {})[name] = node if position == len(places) - 1 else None
        for inode, entries in fresh.items():
            version = known.get(inode) if changed.is_only_change else None
            names.note_change(inode, entries, changed.version, shown=version)
        return node

    def _directory(self, inode: int) -> Lfn:
        lfn = self._namespace.inodes.of(inode).lfn
        if lfn is None:
            message = f"inode {inode} is no directory"
            raise NotADirectoryFileError(message)
        return lfn


def _named(directory: Lfn, name: bytes) -> Lfn:
    try:
        return directory / name.decode()
    except (UnicodeDecodeError, MalformedNameError) as error:
        message = "a name is UTF-8, without control characters, and not too long with what is above it"
        raise RefusedNameError(message) from error
