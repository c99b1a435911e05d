"""The order in which a program goes through a directory: which files it opens next, as far as its last opens tell."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Final, NamedTuple

import trio

from mdmfs.wire.messages.files import Node
from mdmfs.worker.namespace.listing import Listing

BURST_SECONDS: Final = 1.0
"""Two opens in one directory within this time make a burst: the shares of what comes next are fetched along."""
NEARLY: Final = 3
"""So many places further the next open may be, and the order is still that of the directory."""
SIBLINGS: Final = 32
PROVEN: Final = 32
"""After so many opens in order, the next ones are expected so, too: then as many more siblings are given."""


class _LastOpen(NamedTuple):
    inode: int
    parent: int
    position: int
    """In its directory."""
    at: float
    is_burst: bool
    """Whether it followed the open of another file of its directory closely."""
    in_order: int
    """How many up to this one each followed the one before it, or nearly."""


class Place(NamedTuple):
    """Where in its directory an open is, and what is opened after it."""

    position: int
    siblings: Sequence[Node]
    """What a program that opens one file after the other opens next."""
    is_in_order: bool
    """Whether the first of them is probably next."""


class ReadingOrder:
    """Follows the opens of one caller."""

    def __init__(self) -> None:
        self._last = _LastOpen(0, 0, 0, float("-inf"), is_burst=False, in_order=0)

    def note(self, node: Node, parent: int, listing: Listing | None) -> Place | None:
        """Know of an open; tells nothing where the listing of the directory is not here."""
        last, now = self._last, trio.current_time()
        is_again = last.inode == node.inode
        is_burst = last.is_burst if is_again else last.parent == parent and now <= last.at + BURST_SECONDS
        if listing is None:
            self._last = _LastOpen(node.inode, parent, 0, now, is_burst, in_order=0)
            return None
        position = bisect.bisect_left(listing.names, node.name.encode("utf-8", "surrogatepass"))
        in_order = last.in_order
        if not is_again:
            in_order = in_order + 1 if is_burst and last.position < position <= last.position + NEARLY else 0
        self._last = _LastOpen(node.inode, parent, position, now, is_burst, in_order)
        many = SIBLINGS + PROVEN if in_order >= PROVEN else SIBLINGS
        following = listing.in_order[position + 1 : position + 1 + many] if is_burst else ()
        return Place(position, following, is_in_order=in_order > 0)
