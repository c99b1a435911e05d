"""A directory as the hospital listed it: frozen, complete, with the version of the feed that it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final

from mdmfs.model.errors import MalformedMessageError
from mdmfs.model.names import MAX_NAME_BYTES, Lfn
from mdmfs.wire.messages.files import Node

_IMPOSSIBLE: Final = frozenset({b"", b".", b".."})


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


def nodes_by_name(nodes: Iterable[Node]) -> dict[bytes, Node]:
    """Put entries under their names as the kernel wants them, in the order given.

    ``MalformedMessageError`` for a name that no directory can hold. They are looked at together: there may be many.
    """
    found = {node.name.encode("utf-8", "surrogatepass"): node for node in nodes}
    together = b"\n".join(found)
    longest = max(map(len, found), default=0)
    if longest > MAX_NAME_BYTES or b"/" in together or b"\0" in together or not _IMPOSSIBLE.isdisjoint(found):
        message = "the hospital lists a name that no directory can hold"
        raise MalformedMessageError(message)
    return found


def gone_or_changed(before: Listing, after: Listing | None) -> list[bytes]:
    """Name the entries that a kernel holding ``before`` must forget; all of them where nothing came after."""
    if after is None:
        return list(before.names)
    return [name for name, node in before.nodes.items() if after.nodes.get(name) != node]
