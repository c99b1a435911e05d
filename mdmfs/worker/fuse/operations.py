"""The FUSE operations: parse, call the file system, reply. Nothing is decided here.

The kernel may keep names and attributes for long, because the feed takes back what changes. A name that is not there is
kept for a second, since nobody tells of those.
"""

# ruff: noqa: ARG002 the signatures are those of pyfuse3.Operations

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn, cast

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from mdmfs.model.errors import (
    BusyError,
    CredentialExpiredError,
    CredentialRefusedError,
    NoSuchFileError,
    ReadOnlyError,
)
from mdmfs.model.names import MAX_NAME_BYTES
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.wire.messages.names import NameChange
from mdmfs.worker.attributes import COMMENT_ATTRIBUTE, STAGE_ATTRIBUTE
from mdmfs.worker.callers.seat import Callers, Seat
from mdmfs.worker.changing import Change
from mdmfs.worker.configuration import CONFIGURATION_ATTRIBUTE
from mdmfs.worker.fuse.errnos import replying_errno
from mdmfs.worker.fuse.page_by_page import PageByPage
from mdmfs.worker.fuse.patience import SignalWatch
from mdmfs.worker.fuse.replies import blank, entry_of, fill, limit, nothing
from mdmfs.worker.numbered import are_of_one_tree

FRAGMENT: Final = 4096
MAX_WAITING_OPENS: Final = 600
"""More are refused: the rest of ``mount.MAX_TASKS`` is for everyone else."""
PID_ATTRIBUTE: Final = b"user.mdmfs.pid"
"""Of the mount point: which process serves it, for ``umount`` to wait for. Not listed, since no file has it."""
_FOR_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_TRUNC


class MdmfsOperations(pyfuse3.Operations):
    """One mount, for whoever ``Callers`` lets in."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self, callers: Callers, watch: SignalWatch, configuration: str = "", mount_points: Sequence[str] = ()
    ) -> None:
        """Serve the callers; commands on a path of this mount go by the file ``configuration``.

        ``mount_points`` is what the mount point is called: targets below it are names of this mount.
        """
        super().__init__()
        self._mount_points = mount_points
        self._configuration = configuration
        self._callers = callers
        self._watch = watch
        self._by_page = PageByPage()
        self._opens = trio.CapacityLimiter(MAX_WAITING_OPENS)
        self.begun = trio.Event()
        """Set when the kernel has said hello and been answered: a task that waits for it runs after the answer."""

    def init(self) -> None:
        """Note that the kernel and we have agreed."""
        self.begun.set()

    # Names and attributes

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        """Find a name; one that is not there is an answer too, which the kernel keeps for a moment."""
        with replying_errno("lookup"):
            seat = await self._seat_of(ctx)
            files = seat.files
            if len(name) > MAX_NAME_BYTES and len(name) > files.longest_name(parent_inode):
                raise FUSEError(errno.ENAMETOOLONG)
            try:
                node = files.lookup_at_once(parent_inode, name)
                if node is None:
                    with self._watch.interruptible(ctx.pid):
                        node = await files.lookup(parent_inode, name)
            except NoSuchFileError:
                return nothing(seat)
            return entry_of(node, seat)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """Give attributes; the mount point's own to everyone, so that ``ls`` of its parent works."""
        with replying_errno("getattr"), self._watch.interruptible(ctx.pid):
            is_root = inode == pyfuse3.ROOT_INODE
            seat = self._callers.doorman if is_root else await self._seat_of(ctx, is_harmless=True)
            return entry_of(await seat.files.attributes(inode), seat)

    async def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        """Say what the mode bits say; who may read is decided by open, who may change names by the change."""
        with replying_errno("access"), self._watch.interruptible(ctx.pid):
            seat = await self._seat_of(ctx)
            node = await seat.files.attributes(inode)
            if mode & os.W_OK and node.kind is NodeKind.FILE:
                _refuse_write()
            return node.kind is not NodeKind.FILE or not mode & os.X_OK

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Take lookup counts back."""
        with replying_errno("forget"):
            for inode, lookups in inode_list:
                self._callers.forget(inode, lookups)

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> bytes:
        """Give where a link leads."""
        with replying_errno("readlink"):
            seat = await self._seat_of(ctx)
            target = seat.files.target(inode)
            if target is None:
                raise FUSEError(errno.EINVAL)
            return target

    # Directories

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Open a directory."""
        with replying_errno("opendir"), self._watch.interruptible(ctx.pid):
            seat = await self._seat_of(ctx)
            return FileHandleT(await seat.files.open_directory(inode))

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Give entries with their attributes, as many as fit."""
        with replying_errno("readdir"):
            seat = self._callers.of_handle(fh)
            parent = seat.files.directory_of(fh)
            entry, reply, retain = blank(seat), pyfuse3.readdir_reply, seat.files.retain
            before: Node | None = None
            for name, node, position in await seat.files.read_directory(fh, start_id):
                # all of one kind and hospital are told within microseconds
                if before is None or type(before) is not type(node) or not are_of_one_tree(before.inode, node.inode):
                    limit(entry, node, seat)
                fill(entry, node, before)
                before = node
                if not reply(token, FileNameT(name), entry, position):
                    return
                retain(parent, node)

    async def releasedir(self, fh: FileHandleT) -> None:
        """Close a directory."""
        with replying_errno("releasedir"):
            self._callers.of_handle(fh).files.close_directory(fh)

    # Files

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """Open a file for reading. O_NONBLOCK is ignored: tar, grep and file set it and take EAGAIN for an end."""
        with replying_errno("open"):
            seat = await self._seat_of(ctx)
            if flags & _FOR_WRITING:
                _refuse_write()
            handle = seat.files.open_file_at_once(inode)
            if handle is None:
                with self._waiting_to_open(), self._watch.interruptible(ctx.pid):
                    handle = await seat.files.open_file(inode)
            self._by_page.note_open(FileHandleT(handle), flags)
            return FileInfo(fh=FileHandleT(handle), keep_cache=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Give bytes, never fewer than asked for but at the end of the file."""
        with replying_errno("read"):
            files = self._callers.of_handle(fh).files
            octets = files.read_at_once(fh, off, size)
            if octets is not None:
                return cast("bytes", octets)  # pyfuse3 takes any buffer, and replies before the loop's next step
            header_end = files.header_end(fh)
            if header_end and self._by_page.refuses(fh, off, size, header_end):
                raise FUSEError(errno.EINTR)  # whoever switched to O_DIRECT behind our back asks again
            return await files.read(fh, off, size)

    async def release(self, fh: FileHandleT) -> None:
        """Close a file."""
        with replying_errno("release"):
            self._by_page.note_closed(fh)
            self._callers.of_handle(fh).files.close_file(fh)

    # Extended attributes and totals

    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """Give an extended attribute."""
        with replying_errno("getxattr"), self._watch.interruptible(ctx.pid):
            seat = self._callers.at_once(ctx.uid)
            if not name.startswith(b"user."):
                # Not ENODATA: told once that a name space is not supported, `ls -l` asks for no other file.
                raise FUSEError(errno.EOPNOTSUPP)
            if inode == pyfuse3.ROOT_INODE and name == PID_ATTRIBUTE:
                return str(os.getpid()).encode()
            if name == os.fsencode(CONFIGURATION_ATTRIBUTE) and self._configuration:
                return os.fsencode(self._configuration)
            seat = seat or await self._callers.find(ctx.uid, ctx.gid, ctx.pid)
            return await seat.files.attribute(inode, name)

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        """Name the extended attributes."""
        with replying_errno("listxattr"):
            seat = await self._seat_of(ctx)
            return [XAttrNameT(name) for name in seat.files.attribute_names(inode)]

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Give the catalogue's totals; nothing is free, since nothing can be written."""
        with replying_errno("statfs"), self._watch.interruptible(ctx.pid):
            try:
                seat = await self._seat_of(ctx, is_harmless=True)
            except (CredentialRefusedError, CredentialExpiredError):
                seat = self._callers.doorman  # ``df`` of somebody without a proxy looks at every mount of a node
            totals = await seat.files.totals()
            answer = StatvfsData()
            answer.f_bsize = answer.f_frsize = FRAGMENT
            answer.f_blocks = -(-totals.size // FRAGMENT)
            answer.f_files = totals.files
            answer.f_bfree = answer.f_bavail = answer.f_ffree = answer.f_favail = 0
            answer.f_namemax = MAX_NAME_BYTES
            return answer

    # Names that users make: decided at the hospital

    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        """Make a collection; its rights are those that the directory above passes on, whatever the mode says."""
        return await self._made("mkdir", Change(NameChange.COLLECTION, parent_inode, name), ctx)

    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """Make an alias."""
        alias = Change(NameChange.ALIAS, parent_inode, name, target=target, mount_points=self._mount_points)
        return await self._made("symlink", alias, ctx)

    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Remove an alias; an image is read-only."""
        await self._changed("unlink", Change(NameChange.REMOVE, parent_inode, name), ctx)

    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Remove an empty collection."""
        await self._changed("rmdir", Change(NameChange.REMOVE_COLLECTION, parent_inode, name), ctx)

    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        """Give a collection or an alias another name; two names do not change places."""
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise FUSEError(errno.EINVAL)
        change = Change(
            NameChange.RENAME,
            parent_inode_old,
            name_old,
            new_directory=parent_inode_new,
            new_name=name_new,
            may_replace=not flags,
        )
        await self._changed("rename", change, ctx)

    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: SetattrFields, fh: FileHandleT | None, ctx: RequestContext
    ) -> EntryAttributes:
        """Change nothing: of what a user made without complaint, so that ``cp -a`` can copy it; else EROFS."""
        with replying_errno("setattr"), self._watch.interruptible(ctx.pid):
            seat = await self._seat_of(ctx)
            node = await seat.files.attributes(inode)
            if not node.is_made or fields.update_size:
                _refuse_write()
            return entry_of(node, seat)

    async def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        """EROFS, but for comments, and for the attribute that asks for staging and changes no byte."""
        with replying_errno("setxattr"), self._watch.interruptible(ctx.pid):
            seat = await self._seat_of(ctx)
            if not name.startswith(b"user."):
                raise FUSEError(errno.EOPNOTSUPP)  # `cp -a` goes on without POSIX ACLs then
            if name == COMMENT_ATTRIBUTE:
                await seat.files.set_comment(inode, value)
            elif name == STAGE_ATTRIBUTE:
                await seat.files.stage(inode)
            else:
                raise FUSEError(errno.EROFS)

    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        """EROFS, but for comments."""
        with replying_errno("removexattr"), self._watch.interruptible(ctx.pid):
            seat = await self._seat_of(ctx)
            if name != COMMENT_ATTRIBUTE:
                raise FUSEError(errno.EROFS)
            await seat.files.set_comment(inode, b"")

    # Writes: one answer to all

    async def link(self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext) -> NoReturn:
        """EPERM: a second name of an image is an alias (``ln -s``), which ends with the image and has no rights."""
        raise FUSEError(errno.EPERM)

    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> NoReturn:
        """EROFS."""
        raise FUSEError(errno.EROFS)

    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> NoReturn:
        """EROFS."""
        raise FUSEError(errno.EROFS)

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> NoReturn:
        """EROFS."""
        raise FUSEError(errno.EROFS)

    # Replies

    async def _made(self, operation: str, change: Change, ctx: RequestContext) -> EntryAttributes:
        """Make a change and give what has the name then, which the kernel counts as looked up."""
        with replying_errno(operation), self._watch.interruptible(ctx.pid):
            seat, node = await self._change(change, ctx)
            if node is None:
                message = f"what was made in inode {change.directory} is gone already"
                raise NoSuchFileError(message)
            seat.files.retain(change.directory, node)
            return entry_of(node, seat)

    async def _changed(self, operation: str, change: Change, ctx: RequestContext) -> None:
        with replying_errno(operation), self._watch.interruptible(ctx.pid):
            await self._change(change, ctx)

    async def _change(self, change: Change, ctx: RequestContext) -> tuple[Seat, Node | None]:
        seat = await self._seat_of(ctx)
        if len(change.name) > MAX_NAME_BYTES or len(change.new_name) > MAX_NAME_BYTES:
            raise FUSEError(errno.ENAMETOOLONG)
        return seat, await seat.files.change_name(change)

    @contextlib.contextmanager
    def _waiting_to_open(self) -> Iterator[None]:
        """Count an open that waits; ``BusyError`` where too many do."""
        try:
            self._opens.acquire_nowait()
        except trio.WouldBlock as error:
            message = f"{MAX_WAITING_OPENS} opens are waiting already"
            raise BusyError(message) from error
        try:
            yield
        finally:
            self._opens.release()

    async def _seat_of(self, ctx: RequestContext, *, is_harmless: bool = False) -> Seat:
        """Find out who asks; what is harmless is answered to everybody where there is but one seat."""
        seat = self._callers.at_once(ctx.uid, is_harmless=is_harmless)
        if seat is None:
            with self._watch.interruptible(ctx.pid):
                seat = await self._callers.find(ctx.uid, ctx.gid, ctx.pid)
        return seat


def _refuse_write() -> NoReturn:
    message = "the images are read-only"
    raise ReadOnlyError(message)
