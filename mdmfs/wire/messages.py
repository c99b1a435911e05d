"""The messages between zones: frozen values in MessagePack; the protocol's version is in every path (``/v1/``).

Identifiers travel as bytes: a GUID and an ACL id have 16. Times are seconds since the epoch, sizes are bytes. No
message to a worker or keystore has room for a patient's identifier or a real DICOM UID.
"""

from __future__ import annotations

import enum
from typing import Final, Self

import msgspec

from mdmfs.access.edit import Edit
from mdmfs.model.errors import ERRORS_BY_CODE, MdmfsError

MEDIA_TYPE: Final = "application/msgpack"
MAX_MESSAGE_BYTES: Final = 16 * 2**20
MAX_BATCH: Final = 10_000

LIST_PATH: Final = "/v1/list"
DESCRIBE_PATH: Final = "/v1/describe"
LOCATE_PATH: Final = "/v1/locate"
CHANGES_PATH: Final = "/v1/changes"
TOTALS_PATH: Final = "/v1/totals"
HEADERS_PATH: Final = "/v1/headers"
MAX_HEADERS: Final = 64
"""Files whose headers one question may ask for."""
SEALED_PATH: Final = "/v1/sealed/"
"""GET ``/v1/sealed/GUID``: the sealed object, its length exact; ``ETag`` is the salt in hexadecimal digits.

``Range: bytes=N-`` with ``If-Range`` gives the rest of that very sealing with status 206, or a whole other one with 200
(RFC 9110 section 13.1.5): a transfer that was cut goes on.
"""
BUNDLE_PATH: Final = "/v1/bundle"
"""POST ``AskBundle``: the sealed objects of several files in one answer; ``mdmfs.wire.bundle`` says how."""
MAX_BUNDLE: Final = 64
GENERATION_HEADER: Final = "mdmfs-generation"
"""Of an answer with a sealed object: the generation of its key."""
THRESHOLD_HEADER: Final = "mdmfs-threshold"
"""Of an answer with a sealed object: how many shares make its key."""
REASON_HEADER: Final = "mdmfs-purpose"
"""What a user reads for, in his own words, percent-encoded (RFC 3986 section 2.1); for the audit log."""
MAX_REASON: Final = 200
"""Characters of it that are recorded."""
MAX_REPORTED: Final = 1000
"""Files of whose opens one report tells."""

READ_ACL_PATH: Final = "/v1/read-acl"
CHANGE_ACL_PATH: Final = "/v1/change-acl"
ACL_EFFECT_PATH: Final = "/v1/acl-effect"
WHY_PATH: Final = "/v1/why"

HARVEST_PATH: Final = "/v1/harvest"
HARVEST_PROGRESS_PATH: Final = "/v1/harvest-progress"
RERENDER_PATH: Final = "/v1/rerender"
RERENDER_PROGRESS_PATH: Final = "/v1/rerender-progress"
WITHDRAW_PATH: Final = "/v1/withdraw"
READERS_PATH: Final = "/v1/readers"

RECONCILE_PATH: Final = "/v1/reconcile"
RECONCILE_PROGRESS_PATH: Final = "/v1/reconcile-progress"
MERGE_PATH: Final = "/v1/merge"

QUARANTINE_PATH: Final = "/v1/quarantine"
QUARANTINE_RETRY_PATH: Final = "/v1/quarantine-retry"
QUARANTINE_EXPLAIN_PATH: Final = "/v1/quarantine-explain"

TRANSFERS_PATH: Final = "/v1/transfers"
REPLICAS_PATH: Final = "/v1/replicas"

HEALTH_PATH: Final = "/v1/health"

KEYS_PATH: Final = "/v1/keys"
KEYS_PROGRESS_PATH: Final = "/v1/keys-progress"
KEYS_CERTIFY_PATH: Final = "/v1/keys-certify"

REGISTER_PATH: Final = "/v1/register"
COLLECT_PATH: Final = "/v1/collect"
UNREGISTER_PATH: Final = "/v1/unregister"
SET_ACLS_PATH: Final = "/v1/set-acls"
STATUS_PATH: Final = "/v1/status"
EPOCH_PATH: Final = "/v1/epoch"
CONFIRM_PATH: Final = "/v1/confirm"
CERTIFY_PATH: Final = "/v1/certify"
WITNESS_PATH: Final = "/v1/witness"
WITNESSED_PATH: Final = "/v1/witnessed"


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The root of all messages."""


class Failure(Message, frozen=True, omit_defaults=True):
    """The body of every answer that is no success: a code of ``mdmfs.model.errors`` and a sentence for people."""

    code: str
    message: str
    incident: str = ""
    """Under which number the peer's log tells more; empty where there is no more to tell."""
    what_to_do: str = ""
    """Where that is not what the code stands for."""

    @classmethod
    def of(cls, error: MdmfsError) -> Self:
        """Tell of an error; where on this machine it arose stays here."""
        own = "" if error.what_to_do == type(error).what_to_do else error.what_to_do
        return cls(error.code, str(error), what_to_do=own)

    def error(self) -> MdmfsError:
        """Make the error again that a peer told of."""
        return ERRORS_BY_CODE.get(self.code, MdmfsError)(self.message, what_to_do=self.what_to_do)


# Hospital to worker: sealed objects


class AskBundle(Message, frozen=True):
    """Ask for files that a program will open next, because it goes through their siblings; ``MAX_BUNDLE`` at most."""

    guids: list[bytes]


class SealedBeginning(Message, frozen=True):
    """What stands before the octets of a sealed object."""

    size: int
    """Of the sealed object, exact."""
    generation: int
    """Of its key."""
    threshold: int
    """How many shares make its key."""
    salt: bytes
    """Of this sealing."""


# Hospital to worker: the namespace


class NodeKind(enum.StrEnum):
    """What stands under a name."""

    DIRECTORY = "directory"
    FILE = "file"
    LINK = "link"
    """A symbolic link: an alias that a user made, or one that a mount makes up."""


class Node(Message, frozen=True, omit_defaults=True):
    """A name in a directory, with the attributes that ``ls -l`` shows; the same whoever asks."""

    name: str
    inode: int
    """The catalogue's number of the file or directory: never given twice; 1 is the root."""
    kind: NodeKind
    size: int
    """Of the plaintext, exact; 0 for a directory."""
    modified: float
    """When it was registered, or the directory last changed."""
    guid: bytes = b""
    """Empty for a directory and a link."""
    target: str = ""
    """The LFN that an alias leads to; there may be nothing."""
    is_made: bool = False
    """Whether a user made it: an alias, or a directory that is a collection."""
    is_commented: bool = False
    """Whether there is a comment on it."""


class ListDirectory(Message, frozen=True):
    """Ask for a page of a directory's entries, by name, in the order of their UTF-8 bytes."""

    lfn: str
    after: str = ""
    """The last name of the page before."""
    limit: int = MAX_BATCH


class DirectoryPage(Message, frozen=True):
    """A page of entries. Directories that the caller may not traverse are not in it."""

    directory: Node
    entries: list[Node]
    is_last: bool
    version: int
    """The version of the feed that this page shows, at least."""


class CachedOpens(Message, frozen=True):
    """How often a mount has opened a file, since its last report, without asking the hospital for it."""

    guid: bytes
    count: int


class OpensReport(Message, frozen=True):
    """What a mount tells of its own accord, by its own word; with a number that goes up, so that it counts once."""

    number: int
    opens: list[CachedOpens]
    """``MAX_REPORTED`` at most."""


class AskChanges(Message, frozen=True):
    """Say that a version of the feed is applied, and ask what has changed since.

    The answer waits up to ``wait`` seconds for a change, and renews the lease of a mount that names itself.
    """

    since: int
    wait: float
    mount: bytes = b""
    """16 random bytes for as long as the mount lives."""
    root: str = ""
    """The LFN that the mount shows; empty: all of it."""
    report: OpensReport | None = None
    """Of a mount that names itself: written to the audit log before there is an answer."""
    purpose: str = ""
    """What the opens that are reported were for."""
    groups: list[str] = []
    """Those of the answer that was applied last: where the caller has lost one of them, all is to be forgotten."""


class Changes(Message, frozen=True):
    """Directories whose listings and files whose bytes are no longer what they were."""

    version: int
    directories: list[int]
    """Inode numbers."""
    files: list[int]
    """Inode numbers of files whose name or rendition has gone."""
    lost: list[int] = []
    """Directories that the caller may no longer traverse: nothing at or below them is for him."""
    unreadable: list[int] = []
    """Directories whose files the caller may no longer read."""
    lease: float = 0.0
    """Seconds for which what is held may be served, counted from when the question was sent; 0: no lease."""
    is_reset: bool = False
    """The feed no longer reaches back to ``since``, or the caller has lost a group: forget everything."""
    groups: list[str] = []
    """That the caller is in, as FQANs: the next question brings them back."""


class AskTotals(Message, frozen=True):
    """Ask how much there is below a directory, for ``statfs``."""

    lfn: str


class Totals(Message, frozen=True):
    """How much there is, of what the caller may traverse to."""

    files: int
    size: int
    """Bytes of plaintext."""


class AskHeaders(Message, frozen=True):
    """Ask for prefix objects: the first for a program that opens a file, the others for what it may open next."""

    guids: list[bytes]
    purpose: str = ""
    """What the user reads for, in his own words; for the audit log."""


class SealedHeader(Message, frozen=True):
    """A file's prefix object (docs/sealed-object.md); empty where there is none, or not for this caller."""

    sealed: bytes = b""
    generation: int = 0
    """Of the key."""
    threshold: int = 0
    """How many shares make it."""


class SealedHeaders(Message, frozen=True):
    """One for each GUID that was asked for, in that order."""

    headers: list[SealedHeader]


class AskTransfers(Message, frozen=True):
    """Ask for the URLs of replicas, of ``MAX_BUNDLE`` files at most; to whom they are given, the files are released."""

    guids: list[bytes]
    purpose: str = ""
    """What the user reads for, in his own words; for the audit log."""
    ahead: bool = False
    """Whether no program has asked for them yet."""
    avoid: list[str] = []
    """Storage elements that do not answer, or not with what they should."""


class Transfer(Message, frozen=True):
    """Where the sealed object of a file is, besides with the hospital; without a TURL there is none for this caller."""

    turl: str = ""
    """By which anybody may fetch the bytes for a while, or whoever shows a proxy that the storage element accepts."""
    element: str = ""
    """The storage element, as the hospital calls it."""
    size: int = 0
    """Of the sealed object, exact; more may follow it, and means nothing."""
    generation: int = 0
    threshold: int = 0
    header: bytes = b""
    """The first 56 bytes: salt and commitment; another object under this name is told from it by them."""


class Transfers(Message, frozen=True):
    """One for each GUID that was asked for, in that order."""

    transfers: list[Transfer]
    are_there_any: bool
    """Whether this hospital has storage elements at all: else nobody need ask again soon."""


class Describe(Message, frozen=True):
    """Ask for all that a worker may know of one file."""

    guid: bytes


class FileDescription(Message, frozen=True):
    """One file, to one who may at least list its directory."""

    guid: bytes
    inode: int
    size: int
    header_length: int
    """Bytes before the value of Pixel Data; the size where there is none."""
    sha256: bytes
    """Of the whole plaintext."""
    generation: int
    """Of the key; part of the sealed object's context."""
    threshold: int
    """How many shares make the key."""
    locality: str
    replicas: list[str]
    """SURLs."""
    registered: float


class Locate(Message, frozen=True):
    """Ask under which names files are, ``MAX_BATCH`` at most."""

    guids: list[bytes]


class FilePlace(Message, frozen=True):
    """A file, and one of its names that the caller may list."""

    node: Node
    lfn: str
    above: list[int]
    """The numbers of the directories above, from the root down."""


class Located(Message, frozen=True):
    """For each file its place; None for one that is not there, or not for the caller."""

    places: list[FilePlace | None]


# Access control lists


class ReadAcl(Message, frozen=True):
    """Ask for the ACL of a name; of a directory also for the one that the files in it share."""

    lfn: str


class AclTexts(Message, frozen=True):
    """ACLs as ``getfacl`` prints them."""

    texts: list[str]


class ChangeAcl(Message, frozen=True):
    """Change the ACL of a directory, or those of all below it; all or nothing."""

    lfn: str
    edits: list[Edit]
    files: bool = False
    """The one that the files directly in it share, in place of its own."""
    recursive: bool = False
    """Both, of it and of every directory below."""
    keeps_mask: bool = False
    is_test: bool = False
    """Only say what would be."""
    expected_version: int = 0
    """Change nothing unless this is the version of the one ACL that is named; 0: whatever it is."""


class ChangedAcls(Message, frozen=True):
    """What was changed, or would be."""

    count: int
    texts: list[str]
    """The first ones, as they are now."""
    epoch: int
    """For ``AskAclEffect``."""
    version: int
    """For ``AskAclEffect``."""


class AskAclEffect(Message, frozen=True):
    """Ask whether a change holds everywhere; the numbers are those of ``ChangedAcls``."""

    epoch: int
    version: int


class AclEffect(Message, frozen=True):
    """Whether a change holds everywhere: at n - k + 1 keystores, and at every mount that holds a lease."""

    is_effective: bool
    keystores: list[str]
    """Those that have yet to acknowledge it."""
    mounts: list[str]


class AskWhy(Message, frozen=True):
    """Ask which entries decide on the way to a name: for the caller, or, where he may administer it, for another DN."""

    lfn: str
    dn: str = ""
    """Empty: the caller."""
    fqans: list[str] = []
    """Of the other DN."""


class WhyStep(Message, frozen=True):
    """What decides at one step of a path."""

    lfn: str
    right: str
    """The letter that is wanted: x of a directory, r of a file."""
    is_allowed: bool
    reason: str
    """The entry that decides, or why there is none."""


class Why(Message, frozen=True):
    """Why a name can be read, or cannot: no more than what is refused would have told."""

    dn: str
    fqans: list[str]
    not_after: float
    """When the caller's credential ends; infinity for another DN."""
    steps: list[WhyStep]
    """From the root to the name, or to the first step that is refused; what lies behind it is not told."""
    guid: bytes
    """Of a file that may be known; else empty."""
    locality: str
    pacs: str
    """How it is with the PACS of a file that may be read; else empty."""


# Administration of the hospital, by its own certificate only


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
    """Files made under another policy or engine that are still there."""
    failures: list[str]
    """The first ones; without anything identifying."""
    is_over: bool


class StartWithdraw(Message, frozen=True):
    """Start to take files away for ever, a key task of its own; ``AskKeyTask`` tells how far it is."""

    lfn: str = ""
    """A file, or a directory with all that is visible below it."""
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


class PacsHealth(Message, frozen=True):
    """What the daemon knows of one PACS."""

    name: str
    retrieval: str
    """``get`` or ``move``, once it was negotiated; empty before."""
    is_left_alone: bool
    """Whether it failed so often that it is not asked at the moment."""


class Health(Message, frozen=True):
    """How the site does, as the hospital's daemon knows it."""

    pacs: list[PacsHealth]
    lies: dict[str, int]
    """How many wrong shares each keystore gave since the daemon's start."""
    outbox: int
    """Items that keystores have yet to take."""
    notices: int
    """Series that PACSs have told of and that are not dealt with."""
    files: int
    """Visible ones."""


class KeyTask(enum.StrEnum):
    """What can be done about the keys of all files, or of some."""

    VERIFY = "verify"
    REPAIR = "repair"
    """Verify, and give each keystore what it misses or has wrong."""
    RESPLIT = "resplit"
    """Split every key anew among the keystores that are configured now."""
    ROTATE = "rotate"
    """Make new keys; the old ones open what was sealed before, and nothing new."""
    DESTROY = "destroy"
    """Take files and their keys away for ever."""


class StartKeyTask(Message, frozen=True):
    """Start a task; raises ``BusyError`` while another one runs."""

    task: KeyTask
    guids: list[bytes] = []
    """Only of these files."""
    subject: str = ""
    """Only of this subject's files."""
    project: str = ""
    """Only of this project's files. Without guids, subject and project it is all files, but never for ``DESTROY``."""


class AskKeyTask(Message, frozen=True):
    """Ask how far the latest task is."""


class AskCertificates(Message, frozen=True):
    """Ask the hospital for what keystores certify of the keys that the latest task destroyed, a batch at a time."""

    after: int = 0
    """How many of the keys came in the batches before."""


class Certificate(Message, frozen=True):
    """What a keystore certifies: a document for people and programs, signed with its own key."""

    document: bytes
    """JSON in UTF-8."""
    signature: bytes
    """``mdmfs.pki.signature``."""
    chain: list[bytes]
    """The keystore's certificates in DER, leaf first."""


class Certificates(Message, frozen=True):
    """One certificate of each keystore, by its name, about one batch of keys."""

    certificates: dict[str, Certificate]
    silent: dict[str, str]
    """Keystores that gave none, and why."""
    count: int
    """How many keys they are about; 0 where there are no more."""


class KeyProgress(Message, frozen=True):
    """How far a task is, and what it found."""

    task: KeyTask
    files: int
    files_done: int
    faults: dict[str, int]
    """How many of each kind."""
    lost: int
    """Files whose key no shares make."""
    lines: list[str]
    """The first faults: GUID, keystore, kind."""
    silent: dict[str, str]
    """Keystores that did not answer, and why."""
    changed: int
    """Files for which something was sent on its way to keystores."""
    waiting: int
    """Items of the outbox that have yet to arrive at keystores; a hundred for each stands for more."""
    behind: list[str]
    """Keystores that have yet to acknowledge the destruction."""
    is_effective: bool
    """Whether so many keystores have acknowledged it that the others do not suffice for a key."""
    failure: str
    is_over: bool


# Keystores


class KeyEntry(Message, frozen=True):
    """One share for one keystore to keep, and whom it may be given to."""

    share: bytes
    """A share record (``mdmfs.sharing.shamir.Share``), which names its GUID."""
    aliases: list[list[bytes]]
    """For each name of the file the ids of the ACLs above it, outermost first, and last its own."""
    replaces: bytes = b""
    """The split id of the share of the same generation whose place this one takes; empty: of none."""

    def __repr__(self) -> str:
        """Show no share."""
        return "KeyEntry(...)"


class Outcome(enum.StrEnum):
    """What became of one entry of a batch."""

    DONE = "done"
    DENIED = "denied"
    UNKNOWN = "unknown"
    CONFLICT = "conflict"
    """Another share of the same generation, or a later one, is there and stays; for an ACL the same of its version."""
    DESTROYED = "destroyed"
    """A tombstone stands for this GUID."""
    STALE = "stale"
    """The keystore has not heard from the hospital since its start, or for too long, and decides nothing meanwhile."""


class Register(Message, frozen=True):
    """Keep these shares; from the hospital only."""

    entries: list[KeyEntry]


class Outcomes(Message, frozen=True):
    """What became of each entry of a batch, in its order."""

    outcomes: list[Outcome]


class Collect(Message, frozen=True):
    """Give the shares of these GUIDs."""

    guids: list[bytes]


class Collected(Message, frozen=True):
    """One outcome for each GUID asked for, in that order, and its share where the outcome is DONE, else empty bytes."""

    outcomes: list[Outcome]
    shares: list[bytes]

    def __repr__(self) -> str:
        """Show no share."""
        return f"Collected(outcomes={self.outcomes!r}, ...)"


class Unregister(Message, frozen=True):
    """Destroy the shares of these GUIDs for ever; from the hospital only."""

    guids: list[bytes]


class VersionedAcl(Message, frozen=True):
    """An ACL under its opaque id; a higher version replaces a lower one, never the other way round."""

    id: bytes
    version: int
    acl: bytes
    """``mdmfs.access.acl.Acl.encode``."""


class SetAcls(Message, frozen=True):
    """Know these ACLs; from the hospital only."""

    acls: list[VersionedAcl]


class AskStatus(Message, frozen=True):
    """Ask what is kept of these GUIDs; from the hospital only."""

    guids: list[bytes]


class KeyStatus(Message, frozen=True):
    """What a keystore keeps of one GUID."""

    outcome: Outcome
    generation: int = 0
    split_id: bytes = b""


class Statuses(Message, frozen=True):
    """One status for each GUID asked for, in that order."""

    statuses: list[KeyStatus]


class AskEpoch(Message, frozen=True):
    """Ask up to which of the hospital's epochs a keystore has heard everything; from the hospital only.

    The answer waits up to ``wait`` seconds while the keystore is current: one that was started again answers at once,
    or the connection breaks.
    """

    wait: float = 0.0


class EpochHeld(Message, frozen=True):
    """What a keystore knows of the hospital's changes."""

    epoch: int
    """0 where it was told of none."""
    mark: bytes
    """Of that epoch; empty with epoch 0. Another mark than the hospital's own shows that one of both was restored."""
    is_current: bool
    """Whether it gives shares."""
    nonce: bytes
    """For ``ConfirmEpoch``."""


class Certify(Message, frozen=True):
    """Certify that the shares of these GUIDs are destroyed; from the hospital only."""

    guids: list[bytes]


class Witness(Message, frozen=True):
    """Keep where the hospital's audit log is, as evidence (``mdmfs.journal.checkpoint``); from the hospital only."""

    journal: bytes
    """The log's id."""
    number: int
    link: bytes
    when: float
    signature: bytes
    """Of the hospital's signing key."""


class AskWitnessed(Message, frozen=True):
    """Ask for what is kept of the hospital's audit logs, those after a record of one; from the hospital only."""

    journal: bytes = b""
    after: int = 0


class Witnessed(Message, frozen=True):
    """Checkpoints by log and number; the next page is asked for after the last of these."""

    checkpoints: list[Witness]
    is_last: bool


class ConfirmEpoch(Message, frozen=True):
    """Say that the keystore has heard of every change up to an epoch, and that there is none after it."""

    epoch: int
    mark: bytes
    nonce: bytes
    """Of the answer to the question before."""
