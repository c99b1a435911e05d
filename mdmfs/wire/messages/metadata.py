"""The messages to and from a metadata service; the same rules as for ``mdmfs.wire.messages``.

A date travels as ``YYYY-MM-DD``, and every date is a shifted one. A subject travels by its 16 letters.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from mdmfs.wire.messages.keystores import VersionedAcl
from mdmfs.wire.messages.message import Count, Instant, Message, Size

TELL_PATH: Final = "/v1/tell"

FIND_PATH: Final = "/v1/find"
COUNT_PATH: Final = "/v1/count"
EXPLAIN_PATH: Final = "/v1/explain"
SCHEMA_PATH: Final = "/v1/schema"
RECORDS_PATH: Final = "/v1/records"
SNAPSHOT_PATH: Final = "/v1/snapshot"
SNAPSHOTS_PATH: Final = "/v1/snapshots"
DROP_SNAPSHOT_PATH: Final = "/v1/drop-snapshot"
FROZEN_PATH: Final = "/v1/frozen"
FROZEN_SERIES_PATH: Final = "/v1/frozen-series"

Scalar = str | int | float | bool | None
MAX_PAGE: Final = 10_000


# From the hospital only


class SeriesEntry(Message, frozen=True):
    """A series, by its LFN, and what its first image tells of it."""

    path: str
    acl_ids: list[list[bytes]]
    """For each name the ids of the ACLs above its files, outermost first, and last that of the files."""
    attributes: dict[str, str | int | float | bool]


class ImageEntry(Message, frozen=True):
    """One image, and what it alone has."""

    guid: bytes
    name: str
    """In its series' directory."""
    inode: int
    size: int
    sha256: bytes
    policy: bytes
    """The digest of the policy that it was de-identified by."""
    acl_ids: list[list[bytes]]
    attributes: dict[str, str | int | float | bool]


class PutImages(Message, frozen=True):
    """Keep these images; nobody finds them before their series is shown."""

    series: SeriesEntry
    images: list[ImageEntry]


class ShowSeries(Message, frozen=True):
    """Let a series be found from now on, or no longer."""

    path: str
    is_visible: bool = True
    hidden: list[bytes] = []
    """GUIDs of images that are not found with it; until it is shown without them here, or they are put again."""


class AttributeEntry(Message, frozen=True):
    """One attribute of a collection of records."""

    name: str
    type: str
    """``text``, ``integer``, ``number``, ``boolean``, ``date``, ``note`` or ``attachment``."""
    group: str = ""
    """Of attributes with an ACL of their own; empty for the collection's."""


class DefineCollection(Message, frozen=True):
    """Make a collection of records, or bring its schema to this; what is no longer named is dropped with its values."""

    project: str
    name: str
    """Words with dots between; it lies in the collection that all but the last of them name, and has its attributes."""
    acl_ids: list[list[bytes]]
    attributes: list[AttributeEntry]
    groups: dict[str, list[list[bytes]]]
    """For each attribute group its ACLs."""


class RecordEntry(Message, frozen=True):
    """One record of a subject."""

    guid: bytes
    subject: str
    values: dict[str, str | int | float | bool]
    key: bytes
    """The GUID of the key of this subject's free text; destroying it takes the record away."""
    sealed: bytes = b""
    """Free text and attachments, sealed under that key; empty where there are none."""
    acl_ids: tuple[tuple[bytes, ...], ...] = ()
    """Empty for those of the collection."""


class PutRecords(Message, frozen=True):
    """Keep these records, in place of those with the same GUIDs."""

    project: str
    collection: str
    records: list[RecordEntry]


class Parcel(enum.StrEnum):
    """What kind of message a hospital tells."""

    IMAGES = "images"
    SHOW = "show"
    COLLECTION = "collection"
    RECORDS = "records"


Told = PutImages | ShowSeries | DefineCollection | PutRecords


class Tell(Message, frozen=True):
    """Know these ACLs, then keep all this, in order; all of it, or nothing where any of it cannot be.

    Many small things go together: what each costs is mostly the way there, and its commit.
    """

    acls: list[VersionedAcl]
    parcels: list[tuple[Parcel, msgspec.Raw]]
    """Each a message of its kind; encoded, as it lay in the hospital's outbox."""


class Done(Message, frozen=True):
    """What was asked for is done, and on disk."""


# From whoever may read


class FoundLevel(enum.StrEnum):
    """What is looked for."""

    SERIES = "series"
    IMAGE = "image"


class Find(Message, frozen=True):
    """Ask for a page of what a query finds."""

    query: str
    level: FoundLevel = FoundLevel.SERIES
    after: tuple[Scalar, ...] = ()
    """The key of the last row of the page before."""
    limit: int = 1000
    within: str = ""
    """The LFN of the one series that is looked at; empty for all."""
    is_bare: bool = False
    """Whether paths are enough: rows have no columns then."""


class FoundPage(Message, frozen=True):
    """A page of rows, in the order of their keys."""

    columns: list[str]
    rows: list[list[Scalar]]
    """What is known of each series or image, by column; None where it is missing."""
    paths: list[str]
    """LFNs."""
    keys: list[list[Scalar]]
    """What each row is ordered by: the attributes of ``order by``, then path and name. What is missing comes last."""
    descending: list[bool]
    """For the first of the keys; the others ascend."""
    limit: int | None
    """Of the query, over all pages."""
    is_last: bool
    guids: tuple[bytes, ...] = ()
    """Of images."""


class CountFound(Message, frozen=True):
    """Ask how many series or images a query finds."""

    query: str
    level: FoundLevel = FoundLevel.SERIES


class Counted(Message, frozen=True):
    """How many."""

    count: int


class Explain(Message, frozen=True):
    """Ask what a query is understood as."""

    query: str
    level: FoundLevel = FoundLevel.SERIES


class Explanation(Message, frozen=True):
    """What a query is understood as, and what the database is asked; no value stands in the statement."""

    query: str
    statement: str


class AskSchema(Message, frozen=True):
    """Ask for the attributes that the caller may ask for."""


class SchemaTold(Message, frozen=True):
    """Attributes, each with what it belongs to."""

    attributes: list[tuple[str, str, str]]
    """Name, type, and ``series``, ``image`` or the name of a collection of records."""


class AskRecords(Message, frozen=True):
    """Ask for the records of a subject."""

    subject: str
    after: bytes = b""
    """The GUID of the last record of the page before."""
    limit: int = 100


class Record(Message, frozen=True):
    """One record, as much as the caller may read of it."""

    collection: str
    guid: bytes
    values: dict[str, Scalar]
    key: bytes
    sealed: bytes


class RecordPage(Message, frozen=True):
    """Some records of a subject."""

    records: list[Record]
    is_last: bool


class CreateSnapshot(Message, frozen=True):
    """Freeze the images of all series that a query finds, as they are now."""

    name: str
    query: str
    nonce: bytes
    """Random, 16 bytes: the same question asked again gives the same snapshot, and another one finds the name taken."""


class DropSnapshot(Message, frozen=True):
    """Forget a snapshot of the caller's own."""

    name: str


class Dropped(Message, frozen=True):
    """It is not there."""

    was_there: bool


class Snapshot(Message, frozen=True):
    """A frozen cohort: the part of it that lies at one hospital."""

    name: str
    author: str
    """A DN."""
    query: str
    created: Instant
    policies: list[bytes]
    """Digests of the policies by which its images were de-identified."""
    files: Count
    gone: Count
    """Files of it that the caller cannot read any more."""


class AskSnapshots(Message, frozen=True):
    """Ask for the caller's own snapshots."""


class Snapshots(Message, frozen=True):
    """The snapshots of one author."""

    snapshots: list[Snapshot]


class AskFrozenSeries(Message, frozen=True):
    """Ask for a page of the series of a snapshot of the caller's own."""

    name: str
    after: str = ""
    """The last one of the page before."""
    limit: int = 1000


class FrozenSeries(Message, frozen=True):
    """Some series of a snapshot."""

    paths: list[str]
    """LFNs, as they were."""
    is_last: bool


class AskFrozen(Message, frozen=True):
    """Ask for a page of the files of a snapshot of the caller's own."""

    name: str
    series: str = ""
    """Of one series only; empty for all."""
    after: tuple[str, str] | None = None
    """Series and name of the last file of the page before."""
    limit: int = 1000


class FrozenState(enum.StrEnum):
    """What has become of a file."""

    THERE = "there"
    HIDDEN = "hidden"
    """Its hospital does not show it at the moment."""
    REPLACED = "replaced"
    """Another rendition has its name; its key is destroyed."""
    GONE = "gone"
    """Its hospital has taken it away: name, key and ciphertext."""
    DENIED = "denied"
    """The caller may not read it any more."""


class FrozenFile(Message, frozen=True):
    """One file of a snapshot, as it was."""

    series: str
    """The LFN of its series."""
    name: str
    guid: bytes
    size: Size
    sha256: bytes
    policy: bytes
    """The digest of the policy that it was de-identified by."""
    state: FrozenState


class FrozenPage(Message, frozen=True):
    """Some files of a snapshot, by series and name."""

    files: list[FrozenFile]
    is_last: bool
