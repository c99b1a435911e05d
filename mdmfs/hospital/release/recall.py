"""Recall: bring files online from a PACS, siblings together, once for all who wait, at the PACS's pace.

A recall goes on when its callers have given up, so that a second open succeeds. Nothing is staged before its digest
matched what was registered.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import structlog
import trio

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.deid.refusal import RefusedError
from mdmfs.hospital.dicom.pacs import IncomingInstance, InstanceKey, Pacs
from mdmfs.hospital.release.escrow import verifier
from mdmfs.hospital.release.render import Admission, Rendering, verified
from mdmfs.hospital.release.staging import StagedObject, Staging
from mdmfs.hospital.uidmap.records import InstanceRecord
from mdmfs.model.errors import InstanceLostError, MdmfsError, RecallTimedOutError, again
from mdmfs.model.names import Guid
from mdmfs.sealing.header import ObjectContext, Role
from mdmfs.sealing.layout import SALT_SIZE, sealed_size
from mdmfs.sealing.seal import Sealer
from mdmfs.wire.keystores import Gathering, Keystores

log = structlog.get_logger()

MAX_BATCH: Final = 32
"""Instances in one C-GET (design decision 12)."""

Quarantine = Callable[[Guid, RefusedError], Awaitable[None]]
"""Takes the name of a file away that was refused when it was recalled."""


class Source(NamedTuple):
    """Where a file comes from and what it must become."""

    file: FileRecord
    instance: InstanceRecord
    admit: Callable[[IdentifiedHeader], Awaitable[Admission]]


class _Recall:
    """One file on its way, and everyone who waits for it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.staged: StagedObject | None = None
        self.failure: MdmfsError | None = None
        self.has_begun = trio.Event()
        """Set when the first verified bytes are staged, or when there will be none."""

    @property
    def guid(self) -> Guid:
        return self.source.file.guid

    def begin(self, staged: StagedObject) -> None:
        self.staged = staged
        self.has_begun.set()

    def fail(self, error: MdmfsError) -> None:
        if not self.has_begun.is_set():
            self.failure = error
            self.has_begun.set()


class _Queue:
    """The recalls that wait for one PACS."""

    def __init__(self) -> None:
        self.waiting: collections.deque[_Recall] = collections.deque()
        self.arrival = trio.Event()

    def put(self, recall: _Recall) -> None:
        self.waiting.append(recall)
        self.arrival.set()

    async def take(self) -> list[_Recall]:
        """Wait for the next batch: the one that waits longest, and its siblings."""
        while not self.waiting:
            self.arrival = trio.Event()
            await self.arrival.wait()
        series = self.waiting[0].source.instance.series
        batch = [recall for recall in self.waiting if recall.source.instance.series == series][:MAX_BATCH]
        taken = set(map(id, batch))
        self.waiting = collections.deque(recall for recall in self.waiting if id(recall) not in taken)
        return batch


class Recalls:
    """The recalls of one hospital; ``run`` works on them."""

    def __init__(
        self,
        pacs: Mapping[str, tuple[Pacs, int]],
        keystores: Keystores,
        staging: Staging,
        quarantine: Quarantine,
        deadline: float,
    ) -> None:
        """Take each PACS with the number of associations that it allows; ``deadline`` is in seconds."""
        self._pacs = pacs
        self._keystores = keystores
        self._staging = staging
        self._quarantine = quarantine
        self._deadline = deadline
        self._queues = {name: _Queue() for name in pacs}
        self._under_way: dict[Guid, _Recall] = {}

    async def bring_online(self, source: Source) -> StagedObject:
        """Give the staged object as soon as it has begun, from one recall for all who ask.

        Raises ``RecallTimedOutError`` when the deadline is past, and whatever went wrong in the recall.
        """
        recall = self._under_way.get(source.file.guid)
        if recall is None:
            recall = _Recall(source)
            self._under_way[recall.guid] = recall
            self._queues[source.instance.pacs].put(recall)
        with trio.move_on_after(self._deadline):
            await recall.has_begun.wait()
        if recall.failure is not None:
            raise again(recall.failure) from recall.failure
        if recall.staged is None:
            waited = f"{self._deadline:g} s"
            message = f"the PACS did not deliver {recall.guid} within {waited}; the recall goes on: open it again later"
            raise RecallTimedOutError(message)
        return recall.staged

    async def run(self) -> None:
        """Serve every PACS, with as many batches at once as it allows associations, until cancelled."""
        async with trio.open_nursery() as nursery:
            for name, (pacs, associations) in self._pacs.items():
                for _ in range(associations):
                    nursery.start_soon(self._serve, pacs, self._queues[name])

    async def _serve(self, pacs: Pacs, queue: _Queue) -> None:
        while True:
            batch = await queue.take()
            try:
                await self._bring(pacs, batch)
            except MdmfsError as error:
                self._fail(batch, error)
            except Exception as error:
                # the service loop: one batch that fails in a way nobody foresaw must not end all recalls
                incident = secrets.token_hex(4)
                log.exception("recall failed", incident=incident)
                failure = MdmfsError(f"the recall failed, incident {incident}")
                failure.__cause__ = error
                self._fail(batch, failure)
            finally:
                for recall in batch:
                    self._under_way.pop(recall.guid, None)

    async def _bring(self, pacs: Pacs, batch: list[_Recall]) -> None:
        wanted = {recall.source.instance.instance_uid: recall for recall in batch}
        deadline = trio.current_time() + self._deadline
        async with (
            self._keystores.collecting([recall.guid for recall in batch], deadline=deadline) as gathering,
            pacs.retrieve([_key_of(recall.source.instance) for recall in batch]) as arriving,
        ):
            async for incoming in arriving:
                recall = wanted.pop(incoming.instance_uid)
                await self._seal(incoming, recall, gathering)
        for recall in wanted.values():
            recall.fail(InstanceLostError(f"the PACS did not deliver {recall.guid}, and gave no reason"))

    async def _seal(self, incoming: IncomingInstance, recall: _Recall, gathering: Gathering) -> None:
        """Seal one instance into staging.

        What is wrong with it alone is not its siblings' trouble; a broken association is, and raises at their turn.
        """
        try:
            await self._stage(incoming, recall, gathering)
        except RefusedError as error:
            recall.fail(error)
            await self._quarantine(recall.guid, error)
        except MdmfsError as error:
            recall.fail(error)

    async def _stage(self, incoming: IncomingInstance, recall: _Recall, gathering: Gathering) -> None:
        file, size = recall.source.file, recall.source.file.rendition.size
        verify = verifier(file.guid, file.generation, file.key_check)
        with await gathering.key(file.guid, verify, threshold=file.threshold) as key:
            context = ObjectContext(Role.BODY, file.guid, file.generation, size)
            sealer = Sealer(key, context, secrets.token_bytes(SALT_SIZE))
        segments = verified(Rendering(incoming, recall.source.admit), file.guid, file.rendition)
        async with (
            contextlib.aclosing(segments),
            self._staging.writing(file.guid, file.generation, sealed_size(size)) as writer,
        ):
            async for segment in segments:
                if not recall.has_begun.is_set():
                    await writer.begin(sealer.header, sealer.salt)
                await writer.write(functools.partial(sealer.seal, segment))
                recall.begin(writer.staged)

    def _fail(self, batch: list[_Recall], error: MdmfsError) -> None:
        log.warning("recall failed", reason=str(error), code=error.code, files=len(batch))
        for recall in batch:
            recall.fail(error)


def _key_of(instance: InstanceRecord) -> InstanceKey:
    return InstanceKey(
        study_uid=instance.study_uid,
        series_uid=instance.series_uid,
        instance_uid=instance.instance_uid,
        class_uid=instance.class_uid,
        transfer_syntax=instance.transfer_syntax,
    )
