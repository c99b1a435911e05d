"""A directory as the hospital listed it: frozen, complete, with the version of the feed that it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final

from mdmfs.model.errors import MalformedMessageError
from mdmfs.model.names import MAX_NAME_BYTES, Lfn
from mdmfs.wire.messages import Node

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


def name_of(node: Node) -> bytes:
    """Give a name as the kernel wants it; ``MalformedMessageError`` for one that no directory can hold."""
    name = node.name.encode("utf-8", "surrogatepass")
    if name in _IMPOSSIBLE or len(name) > MAX_NAME_BYTES or b"/" in name or b"\0" in name:
        message = "the hospital lists a name that no directory can hold"
        raise MalformedMessageError(message)
    return name


def nodes_by_name(nodes: Iterable[Node]) -> dict[bytes, Node]:
    """Put entries under their names, in the order given."""
    return {name_of(node): node for node in nodes}


def gone_or_changed(before: Listing, after: Listing | None) -> list[bytes]:
    """Name the entries that a kernel holding ``before`` must forget; all of them where nothing came after."""
    if after is None:
        return list(before.names)
    return [name for name, node in before.nodes.items() if after.nodes.get(name) != node]
