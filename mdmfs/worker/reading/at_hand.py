"""What is at hand of a file: the loop opens it here and now, and who asks waits for nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog

from mdmfs.model.errors import IntegrityError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.kept import Seal
from mdmfs.worker.keys.ring import unlock_with
from mdmfs.worker.reading import headers
from mdmfs.worker.reading.bringing import AT_ONCE, lock_of
from mdmfs.worker.reading.open_file import OpenFile
from mdmfs.worker.reading.parts import Parts

log = structlog.get_logger(__name__)


class AtHand:
    """Opens small files whose ciphertext, and others whose header, is here with the shares of its key."""

    def __init__(self, parts: Parts, *, may_push: Callable[[int], bool]) -> None:
        """See ``Opener``, which shares all of it."""
        self._parts = parts
        self._may_push = may_push
        self._next: Node | None = None
        """What is probably opened next."""

    def open(self, node: Node) -> OpenFile | None:
        """Open a file of which the kernel has no handle; None where something is not at hand, or not right."""
        guid = Guid(node.guid)
        return self._open_pushing(node, guid) if guid in self._parts.cache else self._open_header(node, guid)

    def show(self, node: Node) -> None:
        """Push the header of a file that is kept, see ``OpenFile.begin_with``; once until it is closed again.

        Not while the kernel has a handle of one that broke, see ``_open_pushing``.
        """
        file = self._parts.files.get(node.inode)
        if file is None or file not in self._parts.kept or node.inode in self._parts.handles:
            return
        is_same = file.guid.octets == node.guid
        if is_same and file.beginning is not None and file.rests_on_header and not file.is_shown:
            file.begin_with(file.beginning, self._parts.pages.port)

    def open_ahead(self, node: Node, *, is_header_only: bool) -> None:
        """Open a file that is probably opened next, where it or its header is at hand: while this one is read.

        Who reads what is in the page cache meanwhile has a processor of his own. With ``is_header_only`` of this one,
        its reader goes through headers: that is Python mostly, which asks for a terminal before it reads.
        """
        self._next = node
        self._parts.pages.port.meanwhile(self._open_next, gives_way=is_header_only)

    def _open_next(self) -> None:
        node, self._next = self._next, None
        if node is None or node.kind is not NodeKind.FILE or not self._may_push(node.inode):
            return
        try:
            self._get_ready(node)
        except Exception:  # of this file, or of another one that is let go for it: nobody waits for either
            log.exception("opening ahead failed unexpectedly")

    def _get_ready(self, node: Node) -> None:
        self.show(node)
        if node.inode in self._parts.files or node.inode in self._parts.handles:
            return  # among others, it was opened before its turn came
        guid = Guid(node.guid)
        file = self.open(node) if self._parts.keys.holds(guid) else None
        if file is not None:
            file.readers += 1
            self._parts.kept.keep(file, self._parts.keys.held_until(guid), is_next=True)

    def _open_pushing(self, node: Node, guid: Guid) -> OpenFile | None:
        """Open a small file here and now, none of whose pages is there: None where something is not at hand, or right.

        Pushing holds up nobody: with no other handle of the file no READ of its pages is pending. With one, the loop
        would wait for ever for the READ that it is to answer itself.
        """
        if node.size > self._largest_at_once or not self._parts.keys.holds(guid):
            return None
        found = self._parts.cache.open(guid, node.size)
        if found is None:
            return None
        file = OpenFile(node)
        file.adopt(found[0])
        if not found[0].is_in_memory():
            self._parts.disk.note_slow()
            file.close_if_unused()
            return None
        with contextlib.suppress(IntegrityError):
            if self._push_at_once(file, *found):
                self._parts.files[node.inode] = file
                return file
        file.close_if_unused()
        return None

    def lies_on_disk(self, node: Node) -> bool:
        """Ask whether a small file that nobody has open needs nothing but its object from the disk."""
        is_open, guid = node.inode in self._parts.files or node.inode in self._parts.handles, Guid(node.guid)
        return (
            not is_open
            and node.size <= self._largest_at_once
            and self._parts.keys.holds(guid)
            and guid in self._parts.cache
        )

    @property
    def _largest_at_once(self) -> int:
        """Up to which size files are pushed by the loop."""
        return min(AT_ONCE, self._parts.memory.pushed)

    def _push_at_once(self, file: OpenFile, ciphertext: Ciphertext, seal: Seal) -> bool:
        unsealer = unlock_with(self._parts.keys.fresh(file.guid, seal.threshold), lock_of(file, ciphertext, seal))
        if unsealer is None:
            return False
        file.sealed = ciphertext, seal
        file.take(ciphertext, unsealer)
        self._parts.pages.note_some(file.inode)
        if not file.push_at_once(self._parts.pages.port, is_resident=self._parts.pages.has_whole(file.inode)):
            return False
        self._parts.pages.note_whole(file.inode)
        return True

    def _open_header(self, node: Node, guid: Guid) -> OpenFile | None:
        """Open a file by its header here and now, where that and its shares are at hand, and its body is not."""
        header = self._parts.headers.held(guid)
        answers = None if header is None else self._parts.keys.fresh(guid, header.threshold)
        if header is None or answers is None:
            return None
        with contextlib.suppress(IntegrityError, ValueError):
            unsealer = unlock_with(answers, headers.lock_of(guid, header))
            if unsealer is not None:
                file = self._parts.files[node.inode] = OpenFile(node)
                file.is_wanted = True
                self._parts.pages.note_some(node.inode)
                file.begin_with(headers.unseal(unsealer, header, node.size), self._parts.pages.port)
                file.ready.set()
                return file
        self._parts.files.pop(node.inode, None)
        return None
