"""The ports of a store's floor: rows inside one transaction, and the engine that runs acts on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol, TypeVar

from mdmfs.daemon.formats import Format

MAX_KEY_BYTES: Final = 511

T = TypeVar("T")


class Rows(Protocol):
    """Keys of a table's byte and 1 to 511 more, in the order of their bytes, inside one transaction.

    After its end everything raises ``StoreError``.
    """

    @property
    def version(self) -> int:
        """The number (``Engine.version``) of the last commit that this view shows; of no use while writing."""

    def get(self, key: bytes) -> bytes | None:
        """Give the value of a key, or None."""

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value, in place of the one before; raises ``StoreError`` in a reading transaction."""

    def add(self, key: bytes, value: bytes) -> bool:
        """Keep a value where there is none yet; False where there is one. Raises as ``put``."""

    def delete(self, key: bytes) -> bool:
        """Forget a key; False where there was none. Raises ``StoreError`` in a reading transaction."""

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Go through the keys that begin with ``prefix``, from ``prefix + start`` on; keys come without the prefix.

        The prefix is at least the table's byte. Nothing is written while this runs.
        """

    def scan_back(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Go through the keys that begin with ``prefix`` from the last to the first, as ``scan`` does."""


class Layout(NamedTuple):
    """What one kind of store is made of."""

    what: str
    """For messages: ``hospital's store``."""
    holds: str
    """What others must not see, for messages: ``patients``."""
    tables: Mapping[int, bytes]
    """The byte of each table, and the name of its database in LMDB."""
    ascending: frozenset[int]
    """Tables whose new keys mostly come last: an engine can pack them densely."""
    mark: bytes
    """The key under which the store carries the number of its format."""
    format: Format[Rows]
    fill: Callable[[Rows], None]
    """Put what a new store begins with."""

    @property
    def copied(self) -> bytes:
        """The key that the copy of a database has, and tells up to which commit it goes."""
        return self.mark[:1] + b"copied"

    def begin(self, rows: Rows, where: object) -> bool:
        """Make an empty store ready, or bring an older one one step further; tells whether there may be another step.

        ``where`` names the store in errors. Raises ``StoreError`` for one that this program cannot read.
        """
        found = rows.get(self.mark)
        if found is None:
            rows.put(self.mark, self.format.mark)
            self.fill(rows)
            return False
        reached = self.format.advance(found, rows, where)
        if reached is not None:
            rows.put(self.mark, reached)
        return reached is not None


class Engine(Protocol):
    """Where rows are kept. Everything raises ``StoreError`` when they are damaged, closed or of a newer format."""

    async def write(self, act: Callable[[Rows], T]) -> T:
        """Run ``act`` in a transaction of its own, off the event loop, and give what it gives, once that is durable.

        An exception in it undoes all that it wrote, and comes out here; acts of other callers are not touched. Acts run
        one at a time, in the order of the calls. A call that has begun is not cancelled. ``act`` has no effects but on
        the rows, since it may be run again. Raises ``OutOfSpaceError`` where there is no room; nothing is half-written.
        """

    def read(self, act: Callable[[Rows], T]) -> T:
        """Run ``act`` on what is committed, on the calling thread, whichever that is; writing raises ``StoreError``."""

    def version(self) -> int:
        """Give a number that rises with every commit, whoever makes it, as soon as ``read`` shows it; not inside."""

    def refuse_stale(self) -> None:
        """Raise ``PeerUnreachableError`` where what is read here may no longer be true: nobody is to be told it."""

    async def announce(self, told: str) -> None:
        """Leave a word for who follows these rows on another machine; nothing where nobody can."""

    async def run(self) -> None:
        """See to what the engine has to see to; raises ``StoreError`` where it cannot go on."""

    async def aclose(self) -> None:
        """Wait for the writes that have begun, and close."""
