"""The inodes that somebody still counts on: what stands behind each, and how often the kernel looked it up."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from mdmfs.model.errors import NoSuchFileError
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import Node, NodeKind


@dataclasses.dataclass(slots=True)
class Known:
    """One inode in use. A file's name is the one it was last seen under: with aliases it has several."""

    node: Node
    parent: int
    lfn: Lfn | None
    """Of a directory; files are asked for by GUID. A file that is known by a virtual name has one too."""
    lookups: int = 0


class Inodes:
    """A table by inode number. The root stays for ever, all others while the kernel's lookup count is above 0."""

    def __init__(self, root: Node, lfn: Lfn) -> None:
        self._root = root.inode
        self._known = {root.inode: Known(root, root.inode, lfn)}
        self._above: dict[int, int] = {}
        """The directory above one that is not in use itself, where a file of it is known by a virtual name."""

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, inode: int) -> bool:
        return inode in self._known

    def of(self, inode: int) -> Known:
        """Find an inode; raises ``NoSuchFileError`` for one that was forgotten or never given out."""
        known = self._known.get(inode)
        if known is None:
            message = f"inode {inode} is not in use"
            raise NoSuchFileError(message)
        return known

    def lfn_of(self, inode: int) -> Lfn:
        """Tell under which name an inode was last seen; raises ``NoSuchFileError``."""
        known = self.of(inode)
        if known.lfn is not None:
            return known.lfn
        above = self.of(known.parent).lfn
        if above is None:
            message = f"inode {inode} has no directory any more"
            raise NoSuchFileError(message)
        return above / known.node.name

    def is_called(self, inode: int, lfn: Lfn) -> bool:
        """Ask whether a directory was last seen under this name; yes for one that is not in use."""
        known = self._known.get(inode)
        return known is None or known.lfn is lfn or known.lfn == lfn

    def retain(self, node: Node, parent: int, parent_lfn: Lfn) -> None:
        """Count one lookup of an entry that the kernel was told of."""
        known = self._known.get(node.inode)
        if known is None:
            lfn = parent_lfn / node.name if node.kind is NodeKind.DIRECTORY else None
            known = self._known[node.inode] = Known(node, parent, lfn)
        else:
            self._place(known, node, parent, parent_lfn)
        known.lookups += 1

    def retain_placed(self, node: Node, lfn: Lfn, above: Sequence[int]) -> None:
        """Count a lookup of a file by a virtual name; ``above`` are the directories above its own, from the root."""
        known = self._known.get(node.inode)
        if known is None:
            known = self._known[node.inode] = Known(node, above[-1], lfn)
        known.parent, known.node = above[-1], node
        known.lookups += 1
        self._above.update(zip(above[1:], above, strict=False))

    def files(self) -> list[int]:
        """Name the inodes of all files in use."""
        return [inode for inode, known in self._known.items() if known.node.kind is NodeKind.FILE]

    def files_in(self, parents: Collection[int]) -> list[int]:
        """Name the inodes of the files in use that were last seen in some directories."""
        if not parents:
            return []  # as in nearly every change, and there may be many
        found = self._known.items()
        return [inode for inode, known in found if known.parent in parents and known.node.kind is NodeKind.FILE]

    def below(self, tops: Collection[int]) -> list[int]:
        """Name the inodes in use at and below some directories, each below where it was last seen."""
        if not tops:
            return []
        is_below = {self._root: False} | dict.fromkeys(tops, True)

        def decide(inode: int) -> bool:
            path = []
            while inode not in is_below:
                path.append(inode)
                is_below[inode] = False  # a hospital may tell of a directory that lies below itself
                known = self._known.get(inode)
                if known is None and inode not in self._above:
                    break
                inode = self._above[inode] if known is None else known.parent
            answer = is_below.get(inode, False)
            is_below.update(dict.fromkeys(path, answer))
            return answer

        return [inode for inode in self._known if decide(inode)]

    def renew(self, node: Node, parent: int = 0, parent_lfn: Lfn | None = None) -> None:
        """Take over new attributes of an inode, where it is in use; a directory's place, too, with all below it."""
        known = self._known.get(node.inode)
        if known is None:
            return
        if node.kind is NodeKind.DIRECTORY and parent_lfn is not None:
            self._place(known, node, parent, parent_lfn)
        known.node = node

    def _place(self, known: Known, node: Node, parent: int, parent_lfn: Lfn) -> None:
        """Take over where an inode was seen now; below a directory that was moved, all names are others."""
        moved = known.node.name != node.name or known.parent != parent
        known.node = node
        if not moved:
            return
        before, known.parent = known.lfn, parent
        known.lfn = parent_lfn / node.name if node.kind is NodeKind.DIRECTORY else None
        if before is None or known.lfn is None or before == known.lfn:
            return
        for other in self._known.values():
            if other is not known and other.lfn is not None and other.lfn.is_below(before):
                other.lfn = Lfn((*known.lfn.parts, *other.lfn.parts[len(before.parts) :]))

    def forget(self, inode: int, lookups: int) -> bool:
        """Take back lookups; True where the inode is no longer in use."""
        known = self._known.get(inode)
        if known is None:
            return True
        known.lookups -= lookups
        if known.lookups > 0 or inode == self._root:
            return False
        del self._known[inode]
        return True
