"""Recall: bring files online from a PACS, siblings together, once for all who wait, at the PACS's pace.

A recall goes on when its callers have given up, so that a second open succeeds. Nothing is staged before its digest
matched what was registered.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
import trio
from prometheus_client import Counter

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.dicom.pacs import IncomingInstance, InstanceKey, Pacs
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.kept.escrow import FIRST_GENERATION
from mdmfs.hospital.kept.headers import Headers, Resealing
from mdmfs.hospital.kept.known import KnownHeader, known_header
from mdmfs.hospital.kept.shares import Gathered, Shares
from mdmfs.hospital.kept.staging import Staging
from mdmfs.hospital.release.queue import PendingRecall, RecallQueue, Source
from mdmfs.hospital.release.render import Rendering, Verification
from mdmfs.hospital.uidmap.records import InstanceRecord
from mdmfs.model.errors import (
    InstanceChangedError,
    InstanceLostError,
    InstanceRefusedError,
    MdmfsError,
    NoSuchFileError,
    again,
)
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import SALT_SIZE, Buffer, sealed_size
from mdmfs.sealing.seal import Sealer

log = structlog.get_logger()

RECALLED: Final = Counter("mdmfs_recalled_files", "Files that PACSs were asked for, by what came of it.", ["outcome"])
_STAGED: Final = RECALLED.labels("staged")
PUT_AWAY: Final = frozenset({Reason.OTHER_PATIENT, Reason.RESIDUE})
"""Refusals that take a registered file's name away. For all others, the PACS's faults of the moment, it stays: EIO."""
MEMORY_SECONDS: Final = 30.0
"""How long it is known why a file was not released: a reader whose stream was cut midway asks once more."""

Quarantine = Callable[[Guid, RefusedError], Awaitable[None]]
"""Takes the name of a file away that was refused when it was recalled."""


class _Refusals:
    """Why files were not released lately: who asks again hears it before any byte, and the PACS is spared."""

    def __init__(self) -> None:
        self._known: dict[Guid, tuple[MdmfsError, float]] = {}
        """By GUID, the oldest first."""

    def note(self, guid: Guid, error: MdmfsError) -> None:
        """Remember an error that another recall would meet again."""
        self._expire()
        if isinstance(error, InstanceChangedError | InstanceRefusedError):
            self._known.pop(guid, None)
            self._known[guid] = error, trio.current_time() + MEMORY_SECONDS

    def raise_for(self, guid: Guid) -> None:
        """Raise what is remembered of a file."""
        self._expire()
        if guid in self._known:
            error = self._known[guid][0]
            raise again(error) from error

    def _expire(self) -> None:
        now = trio.current_time()
        while self._known and next(iter(self._known.values()))[1] <= now:
            del self._known[next(iter(self._known))]


class Recalls:
    """The recalls of one hospital; ``run`` works on them."""

    def __init__(
        self,
        pacs: Mapping[str, tuple[Pacs, int]],
        shares: Shares,
        staging: Staging,
        headers: Headers,
        quarantine: Quarantine,
        deadline: float,
    ) -> None:
        """Take each PACS with the associations it allows; ``deadline`` is in seconds, for callers and keystores."""
        self._pacs = pacs
        self._shares = shares
        self._staging = staging
        self._headers = headers
        self._quarantine = quarantine
        self.deadline: Final = deadline
        self._queues = {
            name: RecallQueue(associations, functools.partial(_may_look_ahead, remote))
            for name, (remote, associations) in pacs.items()
        }
        self._under_way: dict[Guid, PendingRecall] = {}
        self._refusals = _Refusals()

    def begin(self, source: Source, *, is_ahead: bool = False) -> PendingRecall:
        """Have a file brought online, by one recall for all who ask; each ends it with ``leave``.

        With ``is_ahead`` nobody has opened the file: it comes after those that are waited for, and not in clinical
        hours (``BusyError``). Raises at once why it was not released lately.
        """
        queue, recall = self._queues[source.instance.pacs], self._under_way.get(source.file.guid)
        if recall is None:
            self._refusals.raise_for(source.file.guid)
            recall = PendingRecall(source, is_ahead=is_ahead)
            queue.put(recall)
            self._under_way[recall.guid] = recall
        elif recall.is_ahead and not is_ahead:
            queue.promote(recall)
        recall.askers += 1
        return recall

    def leave(self, recall: PendingRecall) -> None:
        """Wait for a recall no longer; what was only looked ahead for, and is not under way, is given up."""
        recall.askers -= 1
        queue = self._queues[recall.source.instance.pacs]
        if recall.failure is not None or (not recall.askers and queue.withdraw(recall)):
            self._end(recall)

    async def run(self) -> None:
        """Serve every PACS, with as many batches at once as it allows associations, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._shares.run)
            for name, (pacs, associations) in self._pacs.items():
                for _ in range(associations):
                    nursery.start_soon(self._serve, pacs, self._queues[name])

    async def _serve(self, pacs: Pacs, queue: RecallQueue) -> None:
        while True:
            taken = await queue.take()
            batch = taken.recalls
            try:
                await self._bring(pacs, batch, is_alone=len(batch) == 1 and not batch[0].is_ahead)
            except InstanceLostError as error:
                await self._bring_alone(pacs, batch, error)
            except MdmfsError as error:
                self._fail(batch, error)
            except Exception as error:  # noqa: BLE001 the service loop: one batch must not end all recalls
                self._fail(batch, MdmfsError(note_incident("a recall", error)))
            finally:
                queue.done(taken)
                for recall in batch:
                    self._end(recall)

    async def _bring(self, pacs: Pacs, batch: list[PendingRecall], *, is_alone: bool) -> None:
        wanted = {recall.source.instance.instance_uid: recall for recall in batch}
        deadline = trio.current_time() + self.deadline
        files = [recall.source.file for recall in batch]
        async with (
            self._shares.collecting(files, deadline=deadline, is_alone=is_alone) as shares,
            pacs.retrieve([key_of(recall.source.instance) for recall in batch]) as arriving,
        ):
            async for incoming in arriving:
                recall = wanted.pop(incoming.instance_uid)
                await self._seal(incoming, recall, shares, is_last=not wanted)
        for recall in wanted.values():
            recall.fail(InstanceLostError(f"the PACS did not deliver {recall.guid}, and gave no reason"))

    async def _bring_alone(self, pacs: Pacs, batch: list[PendingRecall], error: InstanceLostError) -> None:
        """Ask singly for what a batch did not bring: only so it is known which one is lost."""
        missing = [recall for recall in batch if not recall.has_begun]
        if len(batch) == 1:
            self._fail(missing, error)
            return
        for recall in missing:
            try:
                await self._bring(pacs, [recall], is_alone=False)
            except MdmfsError as alone:
                self._fail([recall], alone)

    async def _seal(
        self, incoming: IncomingInstance, recall: PendingRecall, shares: Gathered, *, is_last: bool
    ) -> None:
        """Seal one instance into staging; ``is_last`` where no other of its batch comes behind it.

        What is wrong with it alone is not its siblings' trouble; a broken association is, and raises at their turn.
        """
        try:
            await self._stage(incoming, recall, shares, is_last=is_last)
            _STAGED.inc()
        except RefusedError as error:
            fault: MdmfsError = error if error.reason in PUT_AWAY else _changed(recall.guid, error)
            RECALLED.labels(fault.code).inc()
            self._refusals.note(recall.guid, fault)
            recall.fail(fault)
            if error.reason in PUT_AWAY:
                await self._put_away(recall.guid, error)
        except MdmfsError as error:
            if error.place and (recall.has_begun or not recall.askers):  # else who waits is told, as logged
                log.warning("a file is not staged", guid=str(recall.guid), code=error.code, reason=error.told_here)
            RECALLED.labels(error.code).inc()
            self._refusals.note(recall.guid, error)
            recall.fail(error)
        except Exception as error:  # noqa: BLE001 the service loop: one instance must not take its siblings along
            recall.fail(MdmfsError(note_incident("a recall", error)))
        finally:
            self._end(recall)

    async def _put_away(self, guid: Guid, refused: RefusedError) -> None:
        """Quarantine a file; where that cannot be written down, its name stays and the next recall is refused again."""
        try:
            await self._quarantine(guid, refused)
        except MdmfsError as error:
            log.error("a refused file keeps its name", guid=str(guid), reason=error.told_here)  # noqa: TRY400 the reason says it

    async def _stage(
        self, incoming: IncomingInstance, recall: PendingRecall, shares: Gathered, *, is_last: bool
    ) -> None:
        file, size = recall.source.file, recall.source.file.rendition.size
        with await shares.key(file) as key:
            context = ObjectContext(Role.BODY, file.guid, file.generation, size)
            sealer = Sealer(key, context, secrets.token_bytes(SALT_SIZE))
            known = self._known(incoming, recall.source, key)
            anew = Resealing(file, key) if self._has_lost_header(file) else None
        rendering = Rendering(incoming, recall.source.admit, known)
        verification = Verification(file.guid, file.rendition)

        def seal(segment: memoryview) -> Buffer:
            verification.verify(segment)
            return sealer.seal(segment) if recall.has_begun else sealer.begin(segment)

        async with (
            contextlib.aclosing(rendering.segments()) as segments,
            self._staging.writing(
                file.guid, file.generation, sealed_size(size), is_awaited=not recall.is_ahead
            ) as writer,
        ):
            async for segment in segments:
                _refuse_stale(recall.source)
                if anew is not None:
                    anew.feed(segment)
                is_awaited = not (recall.has_begun or recall.is_ahead)
                await writer.write(functools.partial(seal, segment))
                recall.staged = writer.staged
                recall.begin()
                if is_awaited:
                    await writer.give_way(until_sent=is_last)
            verification.finish()
            _refuse_stale(recall.source)
        if anew is not None:
            claim = recall.source.claim
            await self._headers.put([anew.finish(rendering.origin(claim, size) if claim else None)])
            if not recall.source.is_current():  # since it was asked last
                self._headers.discard(file.guid)

    def _has_lost_header(self, file: FileRecord) -> bool:
        """Ask whether a rotation took a file's prefix object, or a full disk; what only made room stays away."""
        may_be_kept = file.generation > FIRST_GENERATION or self._headers.has_room()
        return may_be_kept and self._headers.lacks(file.guid, file.generation)

    def _known(self, incoming: IncomingInstance, source: Source, key: FileKey) -> KnownHeader | None:
        """Find what was published of the header that is expected; the engine makes it anew where that is gone."""
        if incoming.transfer_syntax != source.instance.transfer_syntax or not source.claim:
            return None
        file = source.file
        found = self._headers.origin(file.guid, file.generation)
        return known_header(found, key, file.guid, file.generation, file.rendition, source.claim)

    def _end(self, recall: PendingRecall) -> None:
        """Let the next who asks begin anew, unless somebody has already."""
        if self._under_way.get(recall.guid) is recall:
            del self._under_way[recall.guid]

    def _fail(self, batch: list[PendingRecall], error: MdmfsError) -> None:
        RECALLED.labels(error.code).inc(len(batch))
        log.warning("recall failed", reason=error.told_here, code=error.code, files=len(batch))
        for recall in batch:
            recall.fail(error)


def _may_look_ahead(pacs: Pacs) -> bool:
    return pacs.may_look_ahead


def _refuse_stale(source: Source) -> None:
    """Stop sealing for a file that was withdrawn, or whose key was renewed, since it was asked for."""
    if not source.is_current():
        message = f"{source.file.guid} was withdrawn or given a new key while it was brought online"
        raise NoSuchFileError(message)


def _changed(guid: Guid, refused: RefusedError) -> InstanceChangedError:
    """Say that the PACS delivers what could never have been registered: its fault, and no reason to take names away."""
    message = f"the PACS delivers something else for {guid} than was registered ({refused.reason}); it is not released"
    return InstanceChangedError(message)


def key_of(instance: InstanceRecord) -> InstanceKey:
    """Say how a PACS is asked for an instance."""
    return InstanceKey(
        study_uid=instance.study_uid,
        series_uid=instance.series_uid,
        instance_uid=instance.instance_uid,
        class_uid=instance.class_uid,
        transfer_syntax=instance.transfer_syntax,
    )
