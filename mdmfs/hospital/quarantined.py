"""What is quarantined, for the hospital's own people: by series and reason, explained; real UIDs only when asked for.

Lists and explanations identify nobody, so that they can be written into a ticket. By which UIDs the PACS knows the
images is a second question, and whoever asks it is in the audit log.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from typing import Final, NamedTuple

import trio

from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.ledger.records import QuarantineRecord
from mdmfs.hospital.own_people import for_own_people
from mdmfs.hospital.pages import pages_of_quarantine
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import UnknownNameError
from mdmfs.wire.messages.administration import (
    QUARANTINE_EXPLAIN_PATH,
    QUARANTINE_PATH,
    QUARANTINE_RETRY_PATH,
    ExplainQuarantine,
    ListQuarantine,
    QuarantineExplanation,
    QuarantineGroup,
    QuarantineGroups,
    RealUids,
    Retried,
    RetryQuarantined,
)
from mdmfs.wire.service import Reply, Request, Respond

MAX_GROUPS: Final = 5000
"""In one answer, the latest."""
MAX_UIDS: Final = 1000
_HANDLE_OCTETS: Final = 5
_POLICY: Final = "another policy may let it through: that is for the project's approver to say"
_PACS: Final = "have it mended in the PACS, then mdmfs quarantine retry and harvest"
_NOTHING: Final = "nothing, if that is right; else have it sent in another one, then mdmfs quarantine retry and harvest"
_SENDER: Final = "no policy lets it through: have it sent without that, then mdmfs quarantine retry and harvest"


class Explanation(NamedTuple):
    """What a reason means, and what can be done."""

    what: str
    advice: str


EXPLANATIONS: Final = {
    Reason.NOT_INCLUDED: Explanation(
        "no project's list names its patient or study, or he opted out",
        "nothing, if that is right; else have the line added to the list, restart hospitald, harvest",
    ),
    Reason.MOVED_PATIENT: Explanation(
        "the PACS has it under another patient now than when it was registered",
        "if two patients were made one, say so with mdmfs subject merge; else leave it, or destroy its keys",
    ),
    Reason.OTHER_PATIENT: Explanation(
        "its header names another patient than its series, or than when it was registered",
        "find out in the PACS whose image it is; a merge is told with mdmfs subject merge",
    ),
    Reason.OTHER_INSTANCE: Explanation("it is not the instance that was announced", _PACS),
    Reason.NO_PATIENT: Explanation("its Patient ID is empty", _PACS),
    Reason.NO_IDENTITY: Explanation("it lacks one of its UIDs", _PACS),
    Reason.RESIDUE: Explanation(
        "a value that was removed stands somewhere else in the image",
        "look at the image: the text may be in a private element or a comment that nobody expected",
    ),
    Reason.BURNED_IN: Explanation("its header says that text is burned into the pixels", _POLICY),
    Reason.HEAD: Explanation("it may show a head, and the policy refuses heads", _POLICY),
    Reason.SOP_CLASS: Explanation("the policy does not let objects of this class through", _POLICY),
    Reason.NO_REGION: Explanation("the policy has no region for this machine or size", _POLICY),
    Reason.TRANSFER_SYNTAX: Explanation("its transfer syntax is not read", _NOTHING),
    Reason.MALFORMED: Explanation("it does not parse as PS3.5 says", _PACS),
    Reason.TRUNCATED: Explanation("it ends inside an element", _PACS),
    Reason.TOO_LARGE: Explanation(
        "its header, or what follows its pixels, is larger than the engine holds, or of more words", _SENDER
    ),
    Reason.TOO_DEEP: Explanation("its sequences are nested deeper than in any object of DICOM", _SENDER),
    Reason.CHARACTER_SET: Explanation(
        "its character set is none of DICOM, or its Patient ID is not written in it", _PACS
    ),
    Reason.IMAGE_TYPE: Explanation("it is neither ORIGINAL nor DERIVED\\PRIMARY, or a screenshot or report", _POLICY),
    Reason.PHOTOMETRIC: Explanation("it is not monochrome, and colour is where text is burned in", _POLICY),
    Reason.CONVERSION_TYPE: Explanation("it was digitised, scanned or captured from a screen", _POLICY),
    Reason.COMPRESSED_REGION: Explanation(
        "a region of it is to be blanked, and nothing here decodes its frames",
        "install the extra pixels, or have the image sent uncompressed; then mdmfs quarantine retry and harvest",
    ),
    Reason.EMBEDDED_OVERLAY: Explanation("an overlay lies in unused bits of its pixels", _SENDER),
    Reason.PIXEL_LENGTH: Explanation("its pixels are missing, or not as long as its header says", _PACS),
    Reason.UNUSED_BITS: Explanation("bits of its pixels are set outside Bits Stored, where overlays once lay", _SENDER),
    Reason.CODESTREAM: Explanation("its compressed frames are not what syntax and header say, or hold more", _SENDER),
    Reason.UNKNOWN_UID: Explanation(
        "it names a class, coding scheme or context group that neither PS3.6 nor the policy lists",
        "a policy may list it under known_uids: that is for the project's approver to say",
    ),
    Reason.INVALID_VALUE: Explanation("a number, code or UID that it needs is none", _PACS),
}
"""Of every reason; what the engine cannot do, no policy can let through, and the advice does not say so."""


class Quarantined:
    """The quarantine of a hospital, as groups that have a handle until the daemon ends."""

    def __init__(self, hospital: Hospital) -> None:
        """Draw what makes handles, so that none can be recomputed from a UID."""
        self._hospital = hospital
        self._key = secrets.token_bytes(32)

    async def groups(self, project: str) -> QuarantineGroups:
        """List groups, the latest first; raises ``UnknownNameError`` for a project of which nothing is known."""
        latest: list[QuarantineGroup] = []
        count = 0
        pages = pages_of_quarantine(self._hospital.store, project=project or None)
        for _, records in itertools.groupby(itertools.chain.from_iterable(pages), lambda record: record.series):
            groups = self._groups_of_series(list(records))
            count += len(groups)
            latest += groups
            latest = _latest(latest) if len(latest) > 2 * MAX_GROUPS else latest
            await trio.lowlevel.checkpoint()
        if project and not count and project not in self._hospital.projects:
            known = ", ".join(sorted(self._hospital.projects))
            message = f"there is no project {project}; this hospital has {known}"
            raise UnknownNameError(message)
        return QuarantineGroups(_latest(latest), max(count - MAX_GROUPS, 0))

    async def explain(self, handle: str, dn: str, *, is_identified: bool) -> QuarantineExplanation:
        """Explain a group; raises ``UnknownNameError`` for a handle that names none."""
        records = await self._find(handle)
        group = self._hospital.store.read(lambda tx: self._group(tx, records))
        explanation = EXPLANATIONS[Reason(group.reason)]
        uids: list[RealUids] = []
        if is_identified:
            now = self._hospital.clock()
            await self._hospital.audit.record(
                AuditRecord(time=now, event=Event.IDENTIFICATION, dn=dn, project=group.project, count=group.images)
            )
            uids = [RealUids(it.study_uid, it.series_uid, it.instance_uid) for it in records[:MAX_UIDS]]
        return QuarantineExplanation(group, explanation.what, explanation.advice, uids)

    async def retry(self, handle: str) -> int:
        """Forget refusals, so that the next harvest asks for the images again; gives how many.

        Those that had been registered stay put away: a merge or a new rendition shows them again. Raises
        ``UnknownNameError`` for a handle that names none.
        """
        records = await self._find(handle)

        def forget(tx: Transaction) -> int:
            left = [it for it in records if tx.quarantine.get(it.series, it.instance_uid) == it]
            new = [it for it in left if not tx.uidmap.guids_of(it.project, it.instance_uid)]
            return sum(it.images for it in new if tx.quarantine.remove(it.series, it.instance_uid))

        return await self._hospital.store.write(forget)

    async def _find(self, handle: str) -> list[QuarantineRecord]:
        """Find what a handle names; raises ``UnknownNameError``."""
        found: list[QuarantineRecord] = []
        for page in pages_of_quarantine(self._hospital.store):
            found += [record for record in page if self._handle(record) == handle]
            await trio.lowlevel.checkpoint()
        if not found:
            raise _unknown(handle)
        return found

    def _groups_of_series(self, records: list[QuarantineRecord]) -> list[QuarantineGroup]:
        by_handle: dict[str, list[QuarantineRecord]] = {}
        for record in records:
            by_handle.setdefault(self._handle(record), []).append(record)
        return self._hospital.store.read(lambda tx: [self._group(tx, it) for it in by_handle.values()])

    def _group(self, tx: Transaction, records: list[QuarantineRecord]) -> QuarantineGroup:
        first = records[0]
        series = tx.series.get(first.series) if first.project else None
        return QuarantineGroup(
            handle=self._handle(first),
            project=first.project,
            reason=first.reason,
            tag=first.tag,
            images=sum(record.images for record in records),
            first=min(record.when for record in records),
            latest=max(record.when for record in records),
            directory="" if series is None else str(series.lfn),
            is_registered=bool(tx.uidmap.guids_of(first.project, first.instance_uid)),
        )

    def _handle(self, record: QuarantineRecord) -> str:
        key = SeriesKey(record.project, record.study_uid, record.series_uid).octets()
        said = b"\0".join((key, record.reason.encode(), record.tag.encode()))
        return hashlib.blake2b(said, key=self._key, digest_size=_HANDLE_OCTETS).hexdigest()


def quarantine_routes(hospital: Hospital) -> dict[tuple[str, str], Respond]:
    """Give the routes; the hospital's own certificate is let in, and nobody else."""
    quarantined = Quarantined(hospital)

    async def show(request: Request) -> Reply:
        return Reply(await quarantined.groups((await request.read(ListQuarantine)).project))

    async def explain(request: Request) -> Reply:
        asked = await request.read(ExplainQuarantine)
        dn = str(request.principal.dn)
        return Reply(await quarantined.explain(asked.handle, dn, is_identified=asked.is_identified))

    async def retry(request: Request) -> Reply:
        handle = (await request.read(RetryQuarantined)).handle
        return Reply(Retried(await quarantined.retry(handle)))

    return {
        ("POST", QUARANTINE_RETRY_PATH): for_own_people(hospital, retry),
        ("POST", QUARANTINE_PATH): for_own_people(hospital, show),
        ("POST", QUARANTINE_EXPLAIN_PATH): for_own_people(hospital, explain),
    }


def _latest(groups: list[QuarantineGroup]) -> list[QuarantineGroup]:
    return sorted(groups, key=lambda group: group.latest, reverse=True)[:MAX_GROUPS]


def _unknown(handle: str) -> UnknownNameError:
    message = f"nothing is quarantined under {handle}"
    return UnknownNameError(message, what_to_do="list again: handles change when hospitald is restarted")
