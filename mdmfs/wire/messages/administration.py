"""What a hospital's administrator asks of hospitald, by its own certificate only."""

from __future__ import annotations

from typing import Final

from mdmfs.wire.messages.message import Message

HARVEST_PATH: Final = "/v1/harvest"
HARVEST_PROGRESS_PATH: Final = "/v1/harvest-progress"
RERENDER_PATH: Final = "/v1/rerender"
RERENDER_PROGRESS_PATH: Final = "/v1/rerender-progress"
WITHDRAW_PATH: Final = "/v1/withdraw"
READERS_PATH: Final = "/v1/readers"

RECONCILE_PATH: Final = "/v1/reconcile"
RECONCILE_PROGRESS_PATH: Final = "/v1/reconcile-progress"
MERGE_PATH: Final = "/v1/merge"
FORGET_PATH: Final = "/v1/forget"

QUARANTINE_PATH: Final = "/v1/quarantine"
QUARANTINE_RETRY_PATH: Final = "/v1/quarantine-retry"
QUARANTINE_EXPLAIN_PATH: Final = "/v1/quarantine-explain"
REPLICAS_PATH: Final = "/v1/replicas"

HEALTH_PATH: Final = "/v1/health"


class StartHarvest(Message, frozen=True):
    """Start to register what a project includes, or find the run that is under way."""

    project: str
    pacs: str = ""
    """Only from this one of the project's PACSs; empty for all."""
    is_dry: bool = False
    """Only count: nothing is fetched or registered."""


class AskHarvest(Message, frozen=True):
    """Ask how far the latest harvest of a project is."""

    project: str
    wait: float = 0.0
    """For so many seconds, 10 at most, the answer waits for its end."""


class HarvestProgress(Message, frozen=True):
    """How far a harvest is."""

    series_found: int
    series_done: int
    instances_found: int
    """As the PACS counts; 0 for series that it does not count."""
    instances_done: int
    registered: int
    known: int
    refused: int
    octets: int
    """Of plaintext."""
    depositing: int
    """Series that are registered and wait for keystores to acknowledge; nobody sees them yet."""
    failures: list[str]
    """The first ones; without anything identifying."""
    is_over: bool
    new: int = 0
    """Of a dry run: instances that would be fetched."""
    foreign: int = 0
    """Series that the inclusion list does not mean, or the opt-out list does."""


class StartReconciliation(Message, frozen=True):
    """Start to compare what is registered of a project with its PACSs, or find the run that is under way."""

    project: str
    is_deep: bool = False
    """Fetch every image and compare its bytes, too."""


class AskReconciliation(Message, frozen=True):
    """Ask how far the latest reconciliation of a project is."""

    project: str


class ReconciliationProgress(Message, frozen=True):
    """How far a reconciliation is, and what it found."""

    series: int
    series_done: int
    lost: int
    """Files whose image has gone from the PACS since the run before."""
    found: int
    """Files that were lost and are there again."""
    changed: int
    """Files whose image in the PACS is another than was registered."""
    moved: int
    """Series that the PACS has under another patient now; their files are quarantined."""
    restored: int
    """Series that were quarantined for that, and are under their patient again."""
    new: int
    """Images of registered series that the PACS has and nobody has registered."""
    failures: list[str]
    """The first ones; without anything identifying."""
    is_over: bool


class MergeSubjects(Message, frozen=True):
    """Say that the hospital has merged a patient of a project into another one."""

    project: str
    patient: str
    """As a line of an inclusion list has it: ``ID^^^ISSUER``. To the hospital's own daemon only."""
    into: str
    is_dry: bool = False

    def __repr__(self) -> str:
        """Show no patient."""
        return "MergeSubjects(...)"


class Merged(Message, frozen=True):
    """What a merge did."""

    subject: str
    """The pseudonym under which his images are, and stay."""
    continues: str
    """The pseudonym under which new images come."""
    series: int
    """Series that were quarantined and are shown again."""


class ForgetSubjects(Message, frozen=True):
    """Forget who some subjects are, or all of a project, of which no file is left; again until all are done."""

    subjects: list[str] = []
    project: str = ""
    """Whose subjects, if none is named."""
    after: str = ""
    """Of a project: the last one that an answer spoke of."""
    is_dry: bool = False


class Forgotten(Message, frozen=True):
    """What was forgotten, and what was not."""

    files: dict[str, int]
    """By subject how many files it had."""
    kept: dict[str, str]
    """By subject why not."""
    after: str = ""
    """The last of these where there are more; else empty."""


class StartRerender(Message, frozen=True):
    """Start to render anew what was made under another policy or engine, or find the run that is under way."""

    project: str


class AskRerender(Message, frozen=True):
    """Ask how far the latest run is."""


class RerenderProgress(Message, frozen=True):
    """How far a run is that renders a project anew."""

    series_found: int
    series_done: int
    rendered: int
    """Instances registered again."""
    refused: int
    destroyed: int
    """Old files whose names and keys were taken away."""
    left: int
    """Files made under another policy or engine that are still there, as they were counted last."""
    failures: list[str]
    """The first ones; without anything identifying."""
    is_over: bool


class StartWithdraw(Message, frozen=True):
    """Start to take files away for ever, a key task of its own; ``AskKeyTask`` tells how far it is."""

    lfn: str = ""
    """A file, or a directory with all that is registered below it."""
    guids: list[bytes] = []
    """Or these files."""


class AskReaders(Message, frozen=True):
    """Ask who has had files that are no longer: those of a project made under other rules than now, or these."""

    project: str = ""
    guids: list[bytes] = []
    """Without project and guids it is the files that the latest key task destroyed."""


class Reader(Message, frozen=True):
    """Somebody who was given some of the files."""

    dn: str
    files: int
    first: float
    """When the first of them was released, seconds since the epoch."""
    latest: float


class Readers(Message, frozen=True):
    """Who has had files, by how many."""

    files: int
    """How many files the question was about."""
    readers: list[Reader]


class ListQuarantine(Message, frozen=True):
    """Ask what is quarantined in a project; with an empty name, in all, and what no project includes."""

    project: str = ""


class QuarantineGroup(Message, frozen=True):
    """Images of one series that are quarantined for one reason; nothing of it identifies anybody."""

    handle: str
    """Names the group until the daemon is started again."""
    project: str
    """Empty where no project includes them."""
    reason: str
    tag: str
    """Of the data element at fault, or empty; never its value."""
    images: int
    first: float
    latest: float
    directory: str
    """Where the images are, or would be; empty where nothing of the series was ever registered."""
    is_registered: bool
    """Whether they were registered, and their names taken away later."""


class QuarantineGroups(Message, frozen=True):
    """What is quarantined, the latest first."""

    groups: list[QuarantineGroup]
    left_out: int
    """How many groups there are beside these."""


class ExplainQuarantine(Message, frozen=True):
    """Ask about one group; with ``is_identified``, by which real UIDs the PACS knows it, which is audited."""

    handle: str
    is_identified: bool = False


class RealUids(Message, frozen=True):
    """By what a PACS knows an instance. To the hospital's own people only, when they ask for it."""

    study: str
    series: str
    instance: str

    def __repr__(self) -> str:
        """Show nothing."""
        return "RealUids(...)"


class QuarantineExplanation(Message, frozen=True):
    """Why images are quarantined, and what can be done."""

    group: QuarantineGroup
    what: str
    advice: str
    uids: list[RealUids]


class RetryQuarantined(Message, frozen=True):
    """Forget the refusals of a group whose images were never registered: the next harvest asks for them again."""

    handle: str


class Retried(Message, frozen=True):
    """How many refusals were forgotten."""

    images: int


class AskReplicas(Message, frozen=True):
    """Ask the hospital what is on storage elements."""

    forget: str = ""
    """A storage element that is no longer configured, and of which nothing is to be known any more."""


class StorageUse(Message, frozen=True):
    """What one storage element keeps."""

    element: str
    replicas: int
    size: int
    """Bytes of sealed objects."""
    leaving: int
    """How many are to be taken away and are not yet."""


class ReplicaLeft(Message, frozen=True):
    """A replica that is to go and is still there, or may be."""

    guid: bytes
    surl: str
    reason: str


class ReplicaUse(Message, frozen=True):
    """What is where, and what could not be taken away (of that at most ``MAX_BATCH``)."""

    storage: list[StorageUse]
    left: list[ReplicaLeft]


class AskHealth(Message, frozen=True):
    """Ask what the daemon alone knows of how the site does."""


class PacsHealth(Message, frozen=True, forbid_unknown_fields=False):
    """What the daemon knows of one PACS."""

    name: str
    retrieval: str
    """``get`` or ``move``, once it was negotiated; empty before."""
    is_left_alone: bool
    """Whether it failed so often that it is not asked at the moment."""


class CopyHealth(Message, frozen=True, forbid_unknown_fields=False):
    """How a daemon does that answers readers beside the one that works."""

    behind: int
    """Changes that it has heard of, and that its copy does not hold yet."""
    silence: float
    """Seconds since it asked the question that the one that works answered last, or since it began."""
    lease: float
    """Seconds for which it may answer without another one; 0: it answers nothing."""


class Health(Message, frozen=True, forbid_unknown_fields=False):
    """How the site does, as the hospital's daemon knows it.

    What a newer one tells beside that is passed over: nothing is decided by it, and an older ``mdmfs doctor`` says more
    by the rest than by an error.
    """

    pacs: list[PacsHealth]
    lies: dict[str, int]
    """How many wrong shares each keystore gave since the daemon's start."""
    outbox: int
    """Items that keystores have yet to take."""
    notices: int
    """Series that PACSs have told of and that are not dealt with."""
    files: int
    """Visible ones."""
    untold: list[str] = []
    """Keystores, and the metadata service, that have not acknowledged what was decided last."""
    copy: CopyHealth | None = None
    """Of a daemon that follows; None of the one that works."""
    headerless: int = 0
    """Visible files of which no header is kept, at least."""
    is_header_room: bool = True
    """Whether there is room for them."""
