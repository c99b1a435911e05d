"""A directory as the hospital listed it: frozen, complete, with the version of the feed that it shows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from mdmfs.model.errors import MalformedMessageError, MalformedNameError
from mdmfs.model.names import FORBIDDEN_IN_NAMES, GUID_SIZE, MAX_LFN_BYTES, MAX_NAME_BYTES, Lfn
from mdmfs.wire.messages.files import DirectoryPage, Node, NodeKind

_IMPOSSIBLE: Final = frozenset({b"", b".", b".."})
_FORBIDDEN: Final = re.compile(FORBIDDEN_IN_NAMES.pattern.encode())


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """All entries of one directory, in the order of their names' bytes."""

    lfn: Lfn
    directory: Node
    names: tuple[bytes, ...]
    in_order: tuple[Node, ...]
    nodes: Mapping[bytes, Node]
    version: int
    """Of the feed: changes up to this one are in it."""
    taken: float
    """When, on trio's clock."""


@dataclasses.dataclass(slots=True)
class OpenDirectory:
    """What one handle shows, however the directory changes meanwhile; of each there may be many."""

    inode: int
    opened: float
    """When, on trio's clock."""
    listing: Listing | None
    """Until somebody begins to read; then its entries alone, of which a newer copy shares most."""
    nodes: Sequence[Node] = ()

    def entries(self, position: int) -> Iterator[tuple[bytes, Node, int]]:
        """Give what comes behind a position: name, attributes and the position after it."""
        for index in range(position, len(self.nodes)):
            yield self.nodes[index].name.encode(), self.nodes[index], index + 1


def nodes_by_name(nodes: Iterable[Node], directory: Lfn) -> dict[bytes, Node]:
    """Put entries of a directory under their names as the kernel wants them, in the order given.

    ``MalformedMessageError`` for a name that no LFN can have, and for a file that has no GUID: later on either would
    look as if nothing were there. They are looked at together: there may be many.
    """
    found = {node.name.encode("utf-8", "surrogatepass"): node for node in nodes}
    longest = max(map(len, found), default=0)
    room = min(MAX_NAME_BYTES, MAX_LFN_BYTES - len(str(directory).encode()) - 1)
    if longest > room or _FORBIDDEN.search(b" ".join(found)) or not _IMPOSSIBLE.isdisjoint(found):
        message = f"the hospital lists a name in {directory} that no LFN can have"
        raise MalformedMessageError(message)
    if not {len(node.guid) for node in found.values() if node.kind is NodeKind.FILE} <= {GUID_SIZE}:
        message = f"the hospital lists a file in {directory} that has no GUID"
        raise MalformedMessageError(message)
    return found


def shared(nodes: dict[bytes, Node], before: Mapping[bytes, Node]) -> dict[bytes, Node]:
    """Take the very entries of a copy before that are the same: who still reads that one holds none of his own."""
    return {
        name: old if (old := before.get(name)) is not None and old == node else node for name, node in nodes.items()
    }


def gone_or_changed(before: Listing, after: Listing | None) -> list[bytes]:
    """Name the entries that a kernel holding ``before`` must forget; all of them where nothing came after."""
    if after is None:
        return list(before.names)
    return [name for name, node in before.nodes.items() if after.nodes.get(name) != node]


def last_name(page: DirectoryPage, lfn: Lfn) -> str:
    """Give the name behind which the next page begins; raises ``MalformedMessageError``."""
    if not page.entries:
        message = f"the hospital sent an empty page of {lfn} that is not the last"
        raise MalformedMessageError(message)
    return page.entries[-1].name


def target_of(node: Node) -> Lfn:
    """Tell where an alias leads; raises ``MalformedMessageError``."""
    try:
        return Lfn.parse(node.target)
    except MalformedNameError as error:
        message = "the hospital tells of an alias that leads to no name"
        raise MalformedMessageError(message) from error
