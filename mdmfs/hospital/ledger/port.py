"""The ports of the ledger: what a storage engine has to offer of unfinished work, inside one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from mdmfs.hospital.ledger.records import (
    CollectionRecord,
    DestructionRecord,
    Epoch,
    KeyChange,
    LossRecord,
    Notice,
    NoticedSeries,
    OutboxItem,
    OutboxSize,
    QuarantineRecord,
    SeriesRecord,
    SeriesState,
    TextKeyRecord,
)
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.names import Guid, Lfn
from mdmfs.model.subject import SubjectId


class SeriesLedger(Protocol):
    """The series that are or were registered; their instances are in ``UidMap.of_series``."""

    def put(self, record: SeriesRecord) -> None:
        """Keep a series, in place of what was kept of it."""

    def get(self, key: SeriesKey) -> SeriesRecord | None:
        """Give a series, or None."""

    def by_octets(self, octets: bytes) -> SeriesRecord | None:
        """Give the series whose ``SeriesKey.octets()`` these are, or None."""

    def by_lfn(self, lfn: Lfn) -> SeriesRecord | None:
        """Give the series whose directory this is, seen or not, or None."""

    def all(self, state: SeriesState | None = None) -> list[SeriesRecord]:
        """Give the series in a state, or all."""

    def page(
        self, limit: int, after: SeriesRecord | None = None, state: SeriesState | None = None
    ) -> list[SeriesRecord]:
        """Give some of all, or of those in a state, in an order that does not change, from the one after another on."""

    def remove(self, key: SeriesKey) -> bool:
        """Forget a series; False where it was not known."""


class Outbox(Protocol):
    """What is on its way to other zones: for each destination a queue."""

    def push(self, destination: str, kind: str, series: bytes, payload: bytes) -> int:
        """Append an item; give its number. The payload is sealed by the caller. A destination has 1 to 128 bytes."""

    def peek(self, destination: str, *, limit: int, after: int = 0) -> list[OutboxItem]:
        """Give the first items of a destination whose numbers come after one, lowest number first; they stay."""

    def drop(self, destination: str, numbers: Iterable[int]) -> int:
        """Forget items that have arrived; give how many there were."""

    def remaining(self, series: bytes, destination: str) -> int:
        """Count a destination's items of a series."""

    def destinations(self) -> list[str]:
        """Give the destinations with items, sorted by their UTF-8 bytes."""

    def size(self) -> OutboxSize:
        """Tell how much is waiting, over all destinations."""


class Quarantine(Protocol):
    """Instances that were refused."""

    def put(self, record: QuarantineRecord) -> None:
        """Keep why an instance is refused, in place of what was kept of it."""

    def get(self, series: SeriesKey, instance_uid: str) -> QuarantineRecord | None:
        """Tell why an instance is refused; None if it is not."""

    def all(self, project: str) -> list[QuarantineRecord]:
        """Give the instances of a project that are refused."""

    def page(
        self, limit: int, after: QuarantineRecord | None = None, project: str | None = None
    ) -> list[QuarantineRecord]:
        """Give some of all that is refused, or of a project's, from the one after another on.

        The order does not change, and those of a series come one after the other.
        """

    def of_series(self, series: SeriesKey) -> list[QuarantineRecord]:
        """Give the instances of a series that are refused."""

    def remove(self, series: SeriesKey, instance_uid: str) -> bool:
        """Forget a refusal; False where there was none."""


class Losses(Protocol):
    """Files that are LOST, as found by the latest recall or reconciliation, and when projects were reconciled."""

    def put(self, guid: Guid, record: LossRecord) -> None:
        """Keep that a file is lost, in place of what was kept of it."""

    def get(self, guid: Guid) -> LossRecord | None:
        """Tell why a file is lost; None if it is not."""

    def remove(self, guid: Guid) -> bool:
        """Say that a file is not lost; False where it was not."""

    def count(self) -> int:
        """Count the files that are lost."""

    def note_reconciled(self, project: str, when: float) -> None:
        """Remember when a project was last compared with its PACSs, to the end."""

    def last_reconciled(self, project: str) -> float:
        """Tell when a project was last compared with its PACSs; 0 where it never was."""


class Epochs(Protocol):
    """What every keystore must hear, also one that was restored from a backup: each change is an epoch, from 1."""

    def note_acl(self, acl_id: bytes) -> int:
        """Note that an ACL says something else now; give the epoch. The catalogue does it for every ACL it sets."""

    def bury(self, guid: Guid) -> int:
        """Note that a key is destroyed; give the epoch. The note is kept for ever."""

    def latest(self) -> Epoch:
        """Give the latest epoch; ``BEGINNING`` where nothing ever changed."""

    def holds(self, epoch: Epoch) -> bool:
        """Ask whether an epoch is one of this history, and not of one that a backup has cut off."""

    def after(self, number: int, *, limit: int) -> list[tuple[int, KeyChange]]:
        """Give the first changes after an epoch, oldest first."""

    def acknowledge(self, keystore: str, number: int) -> None:
        """Remember up to where a keystore has heard everything."""

    def acknowledged(self, keystore: str) -> int:
        """Give up to where a keystore has heard everything; 0 where it never has."""


class Records(Protocol):
    """Collections of records, as they were last defined, and who has sealed text in them."""

    def define(self, record: CollectionRecord) -> None:
        """Keep a collection's schema, in place of the one before."""

    def collection(self, project: str, name: str) -> CollectionRecord | None:
        """Give a collection's schema, or None."""

    def all(self) -> list[CollectionRecord]:
        """Give every collection's schema, of all projects."""

    def put_key(self, record: TextKeyRecord) -> None:
        """Keep what is known of the key of a subject's text in a collection."""

    def drop_key(self, record: TextKeyRecord) -> None:
        """Forget a key that is destroyed."""

    def key(self, subject: SubjectId, collection: str) -> TextKeyRecord | None:
        """Give it, or None."""

    def keys_of(self, subject: SubjectId) -> list[TextKeyRecord]:
        """Give the keys of a subject's text in all collections."""


class Destructions(Protocol):
    """Destructions that have begun and not ended."""

    def put(self, record: DestructionRecord) -> None:
        """Keep that files are to go."""

    def all(self) -> list[DestructionRecord]:
        """Give what has not ended."""

    def remove(self, record: DestructionRecord) -> bool:
        """Say that they are gone; False where nobody has said that they should."""


class Notices(Protocol):
    """What PACSs have told of and nobody has dealt with yet."""

    def put(self, notice: Notice) -> None:
        """Keep a notice; of an instance that comes again, the latest."""

    def all(self) -> list[NoticedSeries]:
        """Give the series told of, the one that has waited longest without news first."""

    def of_series(self, series: NoticedSeries) -> list[Notice]:
        """Give the instances told of."""

    def remove(self, series: NoticedSeries) -> bool:
        """Forget a series and its notices; False, and all stays, if something came since it was read."""
