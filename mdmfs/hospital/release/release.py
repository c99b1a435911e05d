"""Release: the hospital's act of letting files out, in the order that nobody may change.

Decide, record, recall, de-identify, refuse residue, compare with what was registered, seal. This page decides and
records; ``recall`` and ``render`` do the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.deid.refusal import RefusedError
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.ledger.records import LossCause, QuarantineRecord, SeriesState
from mdmfs.hospital.metadata.outgoing import send_shown
from mdmfs.hospital.projects import Partial
from mdmfs.hospital.release.arrivals import Arrivals, Bringing, Released
from mdmfs.hospital.release.decision import Denial, Standing, decide, deciding, hold_still, stand
from mdmfs.hospital.release.loss import note_found, note_lost
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import (
    BusyError,
    InstanceChangedError,
    InstanceLostError,
    MdmfsError,
    OutOfSpaceError,
    RecallTimedOutError,
)
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import SealedHeader

log = structlog.get_logger()

_SHOWN_OR_HIDDEN: Final = {SeriesState.VISIBLE, SeriesState.HIDDEN}


async def release(
    principal: Principal, guid: Guid, hospital: Hospital, recalls: Bringing, *, address: str, purpose: str = ""
) -> Released:
    """Let one file out to a principal at an address; what he says it is for, ``purpose``, is recorded.

    Raises ``NoSuchFileError`` and ``AccessDeniedError`` as decided, ``StoreError`` if the decision cannot be recorded,
    and what a recall raises.
    """
    releasing = release_all(principal, [guid], hospital, recalls, address=address, purpose=purpose)
    async with contextlib.aclosing(releasing) as released:
        async for let_out in released:
            if let_out is None:
                continue
            _, one = let_out
            if isinstance(one, MdmfsError):
                raise one
            return one
    message = f"{guid} was neither released nor refused"
    raise RuntimeError(message)


async def release_all(  # noqa: PLR0913 what is known of the one who asks
    principal: Principal,
    guids: Sequence[Guid],
    hospital: Hospital,
    recalls: Bringing,
    *,
    address: str,
    purpose: str = "",
    are_ahead: bool = False,
    is_over: Callable[[], bool] = lambda: False,
    event: Event = Event.RELEASE,
) -> AsyncGenerator[tuple[int, Released | MdmfsError] | None]:
    """Let files out to a principal, each as soon as its first bytes are staged: its place among ``guids``, and itself.

    None says that the next may take a while. With ``are_ahead`` a mount asks for them before any program does: then the
    PACS is spared in its clinical hours. Nothing more is waited for once ``is_over`` says that nobody waits here.
    Whoever sends nothing of them names another ``event`` to be recorded: so files are staged on somebody's behalf.

    The PACS is asked while the decisions go to the audit log; nothing is given before all of them are on disk. A recall
    may take a minute, and what was decided before it is decided again after it. Raises ``StoreError`` if the decisions
    cannot be recorded, and ``PeerUnreachableError`` where they may rest on what is no longer true; what is wrong with
    one file takes its place.
    """
    decisions = decide(principal, guids, hospital)
    with contextlib.closing(Arrivals(recalls, hospital.staging, are_ahead=are_ahead)) as arrivals:
        arrivals.expect_all(decisions)
        if records := list(_records(principal, guids, decisions, hospital, address, arrivals)):
            said = {"purpose": purpose, "ahead": are_ahead}
            await hospital.audit.record(*(_as(event, msgspec.structs.replace(record, **said)) for record in records))

        async def again(place: int) -> Standing | Denial:
            return await _decide_again(principal, guids[place], decisions[place], hospital, address)

        coming = _arriving(guids, decisions, arrivals, hospital, again, recalls.deadline, is_over)
        async with contextlib.aclosing(coming):
            async for arrived in coming:
                yield arrived


async def stage_all(
    guids: Sequence[Guid],
    hospital: Hospital,
    recalls: Bringing,
    *,
    address: str,
    are_ahead: bool,
    is_over: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[tuple[int, Released | MdmfsError] | None]:
    """Bring files online for another daemon of this hospital, which decides about readers and records them itself.

    That they were staged for it is on record here. What is given and raised is as in ``release_all``.
    """
    decisions = stand(guids, hospital)
    own = Principal(hospital.dn, (), float("inf"))
    with contextlib.closing(Arrivals(recalls, hospital.staging, are_ahead=are_ahead)) as arrivals:
        arrivals.expect_all(decisions)
        if records := list(_records(own, guids, decisions, hospital, address, arrivals)):
            said = (msgspec.structs.replace(_as(Event.STAGING, record), ahead=are_ahead) for record in records)
            await hospital.audit.record(*said)

        async def again(place: int) -> Standing | Denial:
            await trio.lowlevel.checkpoint()
            return stand([guids[place]], hospital)[0]

        coming = _arriving(guids, decisions, arrivals, hospital, again, recalls.deadline, is_over)
        async with contextlib.aclosing(coming):
            async for arrived in coming:
                yield arrived


async def _arriving(  # noqa: PLR0913, PLR0917 what both of the above have
    guids: Sequence[Guid],
    decisions: list[Standing | Denial],
    arrivals: Arrivals,
    hospital: Hospital,
    again: Callable[[int], Awaitable[Standing | Denial]],
    seconds: float,
    is_over: Callable[[], bool],
) -> AsyncGenerator[tuple[int, Released | MdmfsError] | None]:
    """Give files as they come; what was decided before its recall is decided ``again`` after it."""
    deadline = trio.current_time() + seconds
    while arrivals.expected:
        if not arrivals.is_any_there:
            yield None
        place = await arrivals.next(deadline, is_over)
        if place is None:
            break
        outcome: Released | MdmfsError | None = arrivals.failure(place)
        if outcome is None:
            decisions[place] = await again(place)
            outcome = arrivals.outcome(place, decisions[place])
        await _note_loss(guids[place], decisions[place], outcome, hospital)
        if outcome is not None:
            hospital.store.refuse_stale()
            yield place, outcome
    for late in arrivals.expected:
        hospital.store.refuse_stale()
        yield late, _late(guids[late], seconds)


async def release_headers(
    principal: Principal, guids: Sequence[Guid], hospital: Hospital, *, address: str, purpose: str = ""
) -> list[SealedHeader]:
    """Let out the headers that are at hand, of the files that the principal may have; an empty one for every other.

    Decided and recorded as a release is, and nothing is given before that is on disk. Why there is none, he hears who
    opens the file. Raises ``StoreError`` if the decisions cannot be recorded.
    """
    decisions = decide(principal, guids, hospital)
    standing = {place: decision for place, decision in enumerate(decisions) if isinstance(decision, Standing)}
    wanted = [(guids[place], decision.source.file.generation) for place, decision in standing.items()]
    found = dict(zip(standing, await hospital.headers.find(wanted), strict=True))
    begun = record_of(principal, hospital, address, Event.HEADER, purpose=purpose)
    records = [
        about(begun, guids[place], standing[place], ahead=place > 0) for place, sealed in found.items() if sealed
    ]
    if records:
        await hospital.audit.record(*records)
    if not hold_still(standing.values(), hospital):
        decisions = decide(principal, guids, hospital)
    headers = []
    for place, decision in enumerate(decisions):
        sealed, before = found.get(place, b""), standing.get(place)
        header = SealedHeader()
        if sealed and before and isinstance(decision, Standing):
            file = before.source.file
            if decision.source.file.generation == file.generation:
                header = SealedHeader(sealed, file.generation, file.threshold)
        headers.append(header)
    return headers


async def admit(principal: Principal, guid: Guid, hospital: Hospital, *, address: str) -> None:
    """Raise what says that the principal may not have the file now; a refusal is recorded."""
    (decision,) = decide(principal, [guid], hospital)
    if isinstance(decision, Denial):
        if decision.outcome:
            await hospital.audit.record(record_of_refusal(principal, guid, hospital, address, decision))
        raise decision.error


async def _note_loss(
    guid: Guid, decision: Standing | Denial, outcome: Released | MdmfsError | None, hospital: Hospital
) -> None:
    """Remember what a recall has shown: that the PACS no longer has a file as it was registered, or has it again.

    Where there is no room for that, the next recall shows it again; its siblings come all the same.
    """
    if hospital.is_beside:
        return  # whoever has recalled it remembers
    try:
        if isinstance(outcome, InstanceLostError):
            await note_lost(hospital, [guid], LossCause.GONE)
        elif isinstance(outcome, InstanceChangedError):
            await note_lost(hospital, [guid], LossCause.CHANGED)
        elif isinstance(outcome, Released) and isinstance(decision, Standing) and decision.is_lost:
            await note_found(hospital, [guid])
    except OutOfSpaceError as error:
        log.error("whether a file is lost cannot be kept", guid=str(guid), reason=error.told_here)  # noqa: TRY400 as it says


async def _decide_again(
    principal: Principal, guid: Guid, before: Standing | Denial, hospital: Hospital, address: str
) -> Standing | Denial:
    """Decide after a recall; where nothing has changed since, that holds still. A refusal is recorded."""
    if isinstance(before, Standing) and hold_still([before], hospital):
        return before
    (decision,) = decide(principal, [guid], hospital)
    if isinstance(decision, Denial) and decision.outcome:
        await hospital.audit.record(record_of_refusal(principal, guid, hospital, address, decision))
    return decision


async def quarantine(hospital: Hospital, guid: Guid, refused: RefusedError) -> None:
    """Take the name of a file away that was refused when it was recalled; the reason is kept, and no value.

    With it go those of its whole series, unless the project shows parts: half a volume is worse than none. Nothing
    goes with one that was taken away for ever while it was recalled.
    """

    def act(tx: Transaction) -> list[Guid]:
        instance, file = tx.uidmap.resolve(guid), tx.catalogue.file(guid)
        if instance is None or file is None or file.state is FileState.WITHDRAWN:
            return []
        tx.quarantine.put(
            QuarantineRecord(
                project=instance.project,
                study_uid=instance.study_uid,
                series_uid=instance.series_uid,
                instance_uid=instance.instance_uid,
                reason=refused.reason.value,
                tag=refused.where,
                when=now,
            )
        )
        hidden = [guid]
        project, series = hospital.projects.get(instance.project), tx.series.get(instance.series)
        if series is not None and (project is None or project.partial is Partial.HIDE):
            hidden = [sibling for sibling, _ in tx.uidmap.of_series(instance.series)]
            series = msgspec.structs.replace(series, state=SeriesState.HIDDEN)
            tx.series.put(series)
        tx.catalogue.quarantine(hidden)
        if series is not None and hospital.has_metadata and series.state in _SHOWN_OR_HIDDEN:
            send_shown(tx, series, is_visible=series.state is SeriesState.VISIBLE and _shows(tx, series.key))
        return hidden

    now = hospital.clock()
    for hidden in await hospital.store.write(act):
        hospital.discard(hidden)
    hospital.feed.bell.ring()
    hospital.outbox.ring()
    await hospital.audit.record(
        AuditRecord(time=now, event=Event.QUARANTINE, guid=str(guid), outcome=refused.reason.value)
    )


def _shows(tx: Transaction, key: SeriesKey) -> bool:
    files = (tx.catalogue.file(guid) for guid, _ in tx.uidmap.of_series(key))
    return any(file is not None and file.state is FileState.VISIBLE for file in files)


def _late(guid: Guid, seconds: float) -> MdmfsError:
    text = f"the PACS did not deliver {guid} within {seconds:g} s; the recall goes on: open it again later"
    return RecallTimedOutError(text)


def _records(
    principal: Principal,
    guids: Sequence[Guid],
    decisions: Sequence[Standing | Denial],
    hospital: Hospital,
    address: str,
    arrivals: Arrivals,
) -> Iterator[AuditRecord]:
    """Make the records of what was decided; where the PACS is spared, nothing was let out."""
    begun = record_of(principal, hospital, address, Event.RELEASE)
    for place, (guid, decision) in enumerate(zip(guids, decisions, strict=True)):
        if isinstance(decision, Standing) and not isinstance(arrivals.expected[place], BusyError):
            yield about(begun, guid, decision)
        elif isinstance(decision, Denial) and decision.outcome:
            yield record_of_refusal(principal, guid, hospital, address, decision)


def _as(event: Event, record: AuditRecord) -> AuditRecord:
    return msgspec.structs.replace(record, event=event) if record.event is Event.RELEASE else record


def record_of_refusal(
    principal: Principal, guid: Guid, hospital: Hospital, address: str, denial: Denial
) -> AuditRecord:
    """Make the record of a decision against somebody."""
    begun = record_of(principal, hospital, address, Event.REFUSAL)
    return msgspec.structs.replace(
        begun, guid=str(guid), uid=denial.uid, project=denial.project, outcome=denial.outcome
    )


def record_of(
    principal: Principal, hospital: Hospital, address: str, event: Event, *, purpose: str = ""
) -> AuditRecord:
    """Begin the records of what is decided for somebody in one question: all but the files."""
    return AuditRecord(
        time=hospital.clock(),
        event=event,
        dn=str(principal.dn),
        fqans=tuple(map(str, principal.fqans)),
        address=address,
        purpose=purpose,
    )


def about(begun: AuditRecord, guid: Guid, decision: Standing, *, ahead: bool = False) -> AuditRecord:
    """Make the record of a file that is let out."""
    return msgspec.structs.replace(
        begun,
        guid=str(guid),
        uid=decision.source.uid,
        project=decision.project.name,
        outcome=deciding(decision.granted),
        ahead=ahead,
    )
