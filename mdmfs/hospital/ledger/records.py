"""What the hospital keeps of its unfinished work: these records never leave the hospital zone."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

import msgspec

from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.hospital.veil import Veiled
from mdmfs.model.names import Lfn
from mdmfs.model.subject import SubjectId

MAX_DESTINATION_BYTES: Final = 128
METADATA: Final = "metadata"
"""The metadata service's queue, and its name among those who must hear of every change: no keystore is called so."""
RENEWALS: Final = "renewals"
"""The queue of new keys that keystores may have and the store does not say are the files': no keystore is called so."""
DEPOSIT: Final = "deposit"
"""The kind of item that brings shares and ACLs to a keystore."""


class SeriesState(enum.IntEnum):
    """Where a series is in its registration."""

    REGISTERING = 1
    DEPOSITING = 2
    """All instances are registered; keystores have yet to acknowledge."""
    VISIBLE = 3
    HIDDEN = 4
    """Complete but for quarantined instances, and the project shows no part of a series."""


class SeriesRecord(Veiled, frozen=True, array_like=True):
    """One series of one project."""

    project: str
    study_uid: str
    series_uid: str
    pacs: str
    subject: SubjectId
    lfn: Lfn
    """Its directory."""
    state: SeriesState
    expected: int
    """How many instances the PACS counted."""
    acknowledged: dict[str, int]
    """How many shares each keystore keeps, by its name."""
    created: float

    @property
    def key(self) -> SeriesKey:
        """What the series is found by."""
        return SeriesKey(self.project, self.study_uid, self.series_uid)


class OutboxItem(Veiled, frozen=True, array_like=True):
    """Something that another zone must get, in order."""

    number: int
    """Ascending over all destinations, never given twice."""
    destination: str
    kind: str
    series: bytes
    """``SeriesKey.octets()``, or empty."""
    payload: bytes


class QuarantineRecord(Veiled, frozen=True, array_like=True):
    """An instance that was refused, and why; or a whole series, where no project includes it."""

    project: str
    """Empty where no project includes it."""
    study_uid: str
    series_uid: str
    instance_uid: str
    """Empty for a series that no project includes."""
    reason: str
    """The refusal's name."""
    tag: str
    """Of the data element at fault, ``(gggg,eeee)``, or empty; never its value."""
    when: float
    rules: bytes = b""
    """Under which it was refused, ``Project.rules``; empty where it was refused at a recall, or by an older version."""
    images: int = 1
    """More for a series that no project includes: of its images nothing is kept."""
    subject: str = ""
    """Whose series it is, where that was known when it was refused: he may be forgotten."""

    @property
    def series(self) -> SeriesKey:
        """The series that it belongs to."""
        return SeriesKey(self.project, self.study_uid, self.series_uid)


class LossCause(enum.StrEnum):
    """Why a file is LOST."""

    GONE = "gone"
    """The PACS no longer has the instance."""
    CHANGED = "changed"
    """The PACS has something else under its UID."""


class LossRecord(msgspec.Struct, frozen=True, array_like=True):
    """A file whose instance the PACS no longer gives as it was registered."""

    cause: LossCause
    when: float
    """When that was found."""


class KeyChangeKind(enum.IntEnum):
    """What a keystore must hear of."""

    ACL = 1
    """An ACL says something else: its id."""
    TOMBSTONE = 2
    """A key is destroyed: its GUID."""


class KeyChange(msgspec.Struct, frozen=True, array_like=True):
    """One change of who may have which key: one epoch."""

    kind: KeyChangeKind
    what: bytes
    mark: bytes
    """Random: two histories that a restored backup has parted have other marks under the same number."""


class Epoch(NamedTuple):
    """A point in the history of changes."""

    number: int
    mark: bytes


BEGINNING: Final = Epoch(0, b"")


class Notice(Veiled, frozen=True, array_like=True):
    """An instance that a PACS has told of by storing it to us."""

    pacs: str
    """The PACS's name in this hospital."""
    study_uid: str
    series_uid: str
    instance_uid: str
    class_uid: str
    when: float


class NoticedSeries(Veiled, frozen=True, array_like=True):
    """A series of which a PACS has told, until it was dealt with."""

    pacs: str
    study_uid: str
    series_uid: str
    first: float
    """When the first instance came."""
    latest: float
    """When the latest came."""
    arrivals: int
    """How often one came; more afterwards means that something is new."""


class OutboxSize(msgspec.Struct, frozen=True):
    """How much is waiting."""

    items: int
    octets: int
    """Of the payloads."""


class DestructionRecord(msgspec.Struct, frozen=True, array_like=True):
    """Which files are to be destroyed: one of the four says it."""

    guids: list[bytes]
    subject: str
    project: str
    below: str
    """An LFN."""
    up_to: int = 0
    """The highest inode number when it was decided: later images are not meant. 0 where an older program kept none."""


class AttributeOfRecords(msgspec.Struct, frozen=True, array_like=True):
    """One attribute of a collection of records."""

    name: str
    type: str
    column: str
    """What the files that are imported call it."""


class CollectionRecord(msgspec.Struct, frozen=True, array_like=True):
    """A collection of records of a project, as it was last defined; what it has from those above stands there."""

    project: str
    name: str
    lfn: str
    """Of the hidden directory whose ACL is the collection's."""
    attributes: list[AttributeOfRecords]
    key: list[str]
    """The attributes that make a record of a subject one; empty for that of the collection above, or for all."""


class TextKeyRecord(msgspec.Struct, frozen=True, array_like=True):
    """The key of a subject's sealed text in one collection: made once, kept by the keystores alone."""

    subject: SubjectId
    collection: str
    guid: bytes
    check: bytes
    """By which the hospital knows the right key again."""
    threshold: int
