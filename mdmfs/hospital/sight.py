"""What a principal may know of the namespace, inside one transaction: whatever face asks, the answer is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

from mdmfs.access.acl import Acl, Right
from mdmfs.access.decide import Verdict, decide
from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.release.decision import acl_of
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import NoSuchFileError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import FilePlace, Node, NodeKind


class Passed(NamedTuple):
    """What was decided of traversing for one principal at one moment, by ids of ACLs and by directories."""

    acls: dict[bytes, bool]
    directories: dict[int, bool]

    @classmethod
    def nothing(cls) -> Self:
        """Begin with no decision."""
        return cls({}, {})


class Sight:
    """The namespace as one principal may see it at one moment; ``now`` is in seconds since the epoch."""

    def __init__(
        self,
        tx: Transaction,
        principal: Principal,
        now: float,
        before: Mapping[bytes, Acl] | None = None,
        passed: Passed | None = None,
    ) -> None:
        """``before`` gives other ACLs, by their ids, than those of the transaction: what they said once.

        ``passed`` is what was decided already of this principal, this moment and this state of the store; it grows.
        """
        self._tx = tx
        self._before = before or {}
        self._passed = passed or Passed.nothing()
        self._principal = principal
        self._now = now

    def node(self, lfn: Lfn) -> Node:
        """Give a file or directory; raises ``NoSuchFileError``, the same for what is not there and what is not his."""
        node = self._tx.catalogue.look_up(lfn)
        directory = lfn.parent if node is not None and node.kind is NodeKind.FILE else lfn
        if node is None or not self.may_traverse(directory):
            message = f"there is no {lfn}, or it is not for this identity"
            raise NoSuchFileError(message)
        return node

    def entries(self, inode: int, after: str, limit: int, *, with_aliases: bool = False) -> tuple[list[Node], bool]:
        """Give what the principal may see of a page, and whether it is the last; only the last one may be empty."""
        while True:
            page = self._tx.catalogue.list_page(inode, after=after, limit=limit)
            acls = page.directory_acls
            entries = [
                node
                for node in page.nodes
                if (node.inode not in acls or self.passes(acls[node.inode]))
                and (with_aliases or node.kind is not NodeKind.LINK)
            ]
            if entries or page.is_last:
                return entries, page.is_last
            after = page.nodes[-1].name

    def may_know(self, file: FileRecord) -> bool:
        """Whether one of the file's names stands in a directory that the principal may list."""
        return any(self.may_pass(place.parent) for place in file.places)

    def place(self, guid: Guid) -> FilePlace | None:
        """Give a visible file under a name that the principal may list; None where there is none for him."""
        catalogue = self._tx.catalogue
        file = catalogue.file(guid)
        if file is None or file.state is not FileState.VISIBLE:
            return None
        for where in file.places:
            if self.may_pass(where.parent):
                above = catalogue.directories_above(where.parent)
                lfn = Lfn((*(record.name for record in above[1:]), where.name))
                node = Node(where.name, file.inode, NodeKind.FILE, file.rendition.size, file.modified, guid.octets)
                return FilePlace(node, str(lfn), [record.inode for record in above])
        return None

    def may_traverse(self, directory: Lfn) -> bool:
        """Whether the principal may traverse a directory that is seen, and all above it."""
        node = self._tx.catalogue.look_up(directory)
        return node is not None and self.may_pass(node.inode)

    def may_pass(self, inode: int) -> bool:
        """Whether the principal may traverse a directory, seen or hidden, and all above it."""
        known = self._passed.directories.get(inode)
        if known is None:
            is_there = self._tx.catalogue.directory(inode) is not None
            known = is_there and all(self.passes(acl_id) for acl_id in self._tx.acls.ids_above(inode))
            self._passed.directories[inode] = known
        return known

    def may_read_files_of(self, inode: int) -> bool:
        """Whether the principal may read the files directly in a directory."""
        record = self._tx.catalogue.directory(inode)
        return record is not None and self.may_pass(inode) and self.allows(record.file_acl, Right.READ)

    def passes(self, acl_id: bytes) -> bool:
        """Whether one ACL lets the principal traverse; many directories are asked about with the same ones above."""
        known = self._passed.acls.get(acl_id)
        if known is None:
            known = self._passed.acls[acl_id] = self.allows(acl_id, Right.TRAVERSE)
        return known

    def allows(self, acl_id: bytes, right: Right) -> bool:
        """Whether one ACL allows something."""
        verdict = self.verdict(acl_id, right)
        return verdict is not None and verdict.allowed

    def verdict(self, acl_id: bytes, right: Right) -> Verdict | None:
        """Give what one ACL says; None for one that is not known, which closes."""
        acl = self._before.get(acl_id) or acl_of(self._tx, acl_id)
        return None if acl is None else decide(self._principal, acl, right, self._now)
